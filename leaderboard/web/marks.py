"""A rate drawn small: a point or a bar with its interval, from 0 to 1. Invariant: places are percent of the width, so the mark
can have any; what it shows stands beside it as a number too.
"""

from __future__ import annotations

from dataclasses import dataclass

from cotbench.report.cells import estimate_text
from cotbench.stats.estimates import Estimate


@dataclass(frozen=True, slots=True)
class Mark:
    """Positions of the mean and of the ends of the interval, in percent; None where there is no interval."""

    at: str
    low: str | None
    high: str | None


@dataclass(frozen=True, slots=True)
class Number:
    """A number as text, and its interval beside it.

    Attributes:
        known: whether anything was measured.
    """

    value: str
    beside: str
    known: bool


def mark_of(estimate: Estimate | None) -> Mark | None:
    """Return the mark of a rate; None where there is none."""
    if estimate is None or estimate.mean is None:
        return None
    ends = estimate.low is not None and estimate.high is not None
    return Mark(_percent(estimate.mean), _percent(estimate.low) if ends else None, _percent(estimate.high) if ends else None)


def _percent(value: float | None) -> str:
    return f"{100 * min(1.0, max(0.0, value or 0.0)):.2f}%"


def number_of(estimate: Estimate | None, *, plus: bool = False, digits: int | None = None) -> Number:
    """Format an estimate as the tables of a report show it.

    Args:
        estimate: None where nothing was measured.
        plus: show the sign of a positive number.
        digits: after the point; as usual where None.
    """
    if estimate is None or estimate.mean is None:
        return Number("–", "", False)
    value, _, beside = estimate_text(estimate, plus, digits).partition(" ")
    return Number(signed(value), signed(beside), True)


def signed(number: str) -> str:
    """Return a number's text with a true minus sign."""
    return number.replace("-", "−")
