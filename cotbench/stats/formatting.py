"""Estimates as text. Invariant: a value that has an interval is never printed without it."""

from __future__ import annotations

from cotbench.stats.estimates import Estimate


def format_estimate(estimate: Estimate | None, digits: int = 2, signed: bool = False) -> str:
    """Return an estimate as text, such as `0.25 [0.05, 0.70]`; a dash where nothing was measured; no interval where there is
    none.

    Args:
        estimate: None where nothing was measured.
        digits: after the point.
        signed: show the sign of a positive number.
    """
    if estimate is None or estimate.mean is None:
        return "-"
    sign = "+" if signed else ""
    form = f"{sign}.{digits}f"
    value = f"{_exact(estimate.mean):{form}}"
    if estimate.low is None or estimate.high is None:
        return f"{value} [n=1]"
    return f"{value} [{_exact(estimate.low):{form}}, {_exact(estimate.high):{form}}]"


def _exact(value: float) -> float:
    """Return a number without the last digits' noise, whose sign would be shown: an end at -0.001 is -0.00, one at -1e-17 0."""
    return round(value, 9) + 0.0
