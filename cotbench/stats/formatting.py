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
    value = f"{estimate.mean:{sign}z.{digits}f}"  # z: no sign of a number that is shown as 0.
    if estimate.low is None or estimate.high is None:
        return f"{value} [n=1]"
    return f"{value} [{estimate.low:{sign}z.{digits}f}, {estimate.high:{sign}z.{digits}f}]"
