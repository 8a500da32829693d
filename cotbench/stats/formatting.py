"""Estimates as text. Invariant: a value that has an interval is never printed without it."""

from __future__ import annotations

from cotbench.stats.estimates import Estimate
from cotbench.text_table import TextCell

_ROUNDING = 1e-9
"""What a rate or a difference of rates may be off by rounding."""


def format_estimate(estimate: Estimate | None, digits: int = 2, signed: bool = False) -> str:
    """Return an estimate as text, such as `0.25 [0.05, 0.70]`; a dash where nothing was measured; no interval where there is
    none.

    Args:
        estimate: None where nothing was measured.
        digits: after the point.
        signed: show the sign of a positive number.
    """
    return str(estimate_cell(estimate, digits, signed))


def estimate_cell(estimate: Estimate | None, digits: int = 2, signed: bool = False) -> TextCell:
    """Return an estimate as a cell of a table, with its interval beside it.

    Args:
        estimate: None where nothing was measured.
        digits: after the point.
        signed: show the sign of a positive number.
    """
    if estimate is None or estimate.mean is None:
        return TextCell("-")
    form = f"{'+' if signed else ''}z.{digits}f"  # z: no minus sign of a number that is shown as 0.
    value = f"{estimate.mean:{form}}"
    if estimate.low is None or estimate.high is None:
        return TextCell(value, "[n=1]")
    # An end just below 0 keeps its minus sign: it says that the interval reaches over 0. Rounding errors are no such end.
    low, high = (f"{0.0 if abs(end) < _ROUNDING else end:{form.replace('z', '')}}" for end in (estimate.low, estimate.high))
    return TextCell(value, f"[{low}, {high}]")
