"""Estimates as text. Invariant: a value never stands without its interval where it has one."""

from __future__ import annotations

from cotbench.stats.estimates import Estimate


def format_estimate(estimate: Estimate | None, digits: int = 2, signed: bool = False) -> str:
    """`0.25 [0.05, 0.70]`; a dash where nothing was measured; no interval where one task cannot give one."""
    if estimate is None or estimate.mean is None:
        return "-"
    sign = "+" if signed else ""
    value = f"{estimate.mean:{sign}.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return f"{value} [n=1]"
    return f"{value} [{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]"
