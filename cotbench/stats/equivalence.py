"""Tests that a difference is small enough to be called none. Invariant: "equivalent" is said only of an interval that lies
within the margin; a difference that is not significant is not thereby equivalent to 0.

Two one-sided tests (TOST; Schuirmann 1987): the truth is equivalent to 0 at 5 % where both "at most -margin" and "at least
+margin" are rejected at 5 %, which is where the 90 % interval lies inside (-margin, margin).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from cotbench.errors import UsageError
from cotbench.stats.bootstrap import Bootstrap
from cotbench.stats.multiple_testing import holm

LEVEL = 0.05
EquivalenceVerdict = Literal["equivalent", "different", "undecided"]


class Equivalence(BaseModel):
    """The outcome of two one-sided tests.

    Attributes:
        margin: the largest difference that is called none, chosen before looking; in the unit of the quantity.
        low: of the 90 % interval; `high` likewise. None where there is none.
        p_low: of "the truth is -margin or less"; `p_high` of "the truth is margin or more". None where nothing varies: then the
            interval is a point, and there is no test.
        method: the source of interval and p-values: the bootstrap's own tails, or a t distribution.
        verdict: `equivalent` (90 % interval inside the margin, also where it leaves out 0), else `different` (95 % interval
            leaves out 0), else `undecided`.
    """

    model_config = ConfigDict(frozen=True)

    margin: float
    low: float | None
    high: float | None
    p_low: float | None
    p_high: float | None
    method: Literal["bootstrap", "t"]
    verdict: EquivalenceVerdict


def of_bootstrap(quantity: Bootstrap, margin: float) -> Equivalence:
    """Return the test by the tails of the bootstrap.

    Args:
        quantity: the resampled quantity.
        margin: in the unit of the quantity.

    Raises:
        UsageError: the margin is not above 0.
    """
    _check(margin)
    if len(quantity.influence) < 2 or not quantity.moves:
        return _untested(margin, "bootstrap")
    low, high = quantity.interval(1 - 2 * LEVEL)
    p_low, p_high = quantity.p_at_most(-margin), quantity.p_at_least(margin)
    verdict = _verdict(low, high, quantity.interval(1 - LEVEL), margin)
    return Equivalence(margin=margin, low=low, high=high, p_low=p_low, p_high=p_high, method="bootstrap", verdict=verdict)


def of_t(value: float, error: float, df: float, margin: float) -> Equivalence:
    """Return the test by a t distribution.

    Args:
        value: the estimate.
        error: the standard error.
        df: degrees of freedom, not always an integer.
        margin: in the unit of the value.

    Raises:
        UsageError: the margin is not above 0.
    """
    from scipy.special import stdtr, stdtrit

    _check(margin)
    if not np.isfinite(df) or not error > 1e-10 * max(1.0, abs(value)):
        return _untested(margin, "t")
    reach, wider = (float(stdtrit(df, 1 - tail)) * error for tail in (LEVEL, LEVEL / 2))
    return Equivalence(
        margin=margin,
        low=value - reach,
        high=value + reach,
        p_low=float(stdtr(df, -(value + margin) / error)),
        p_high=float(stdtr(df, (value - margin) / error)),
        method="t",
        verdict=_verdict(value - reach, value + reach, (value - wider, value + wider), margin),
    )


def of_all(tests: Sequence[Equivalence], p_values: Sequence[float | None]) -> Equivalence:
    """Return the test that several quantities are all equivalent to 0.

    Equivalent where each one is: the intersection-union test (Berger 1982), which needs no correction. Else different where a
    difference from 0 stands after Holm's correction. Low and high are those of all the intervals together, the p-values the
    largest.

    Args:
        tests: one for each quantity, with the same margin and method.
        p_values: two-sided, of "the quantity is 0", of those that may be called different.
    """
    verdict: EquivalenceVerdict = "undecided"
    if all(test.verdict == "equivalent" for test in tests):
        verdict = "equivalent"
    elif any(one.rejected for one in holm({str(number): p for number, p in enumerate(p_values)}).values()):
        verdict = "different"
    return Equivalence(
        margin=tests[0].margin,
        low=_of_each([test.low for test in tests], min),
        high=_of_each([test.high for test in tests], max),
        p_low=_of_each([test.p_low for test in tests], max),
        p_high=_of_each([test.p_high for test in tests], max),
        method=tests[0].method,
        verdict=verdict,
    )


def _of_each(values: Sequence[float | None], join: Callable[[Sequence[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return join(known) if len(known) == len(values) else None


def _verdict(low: float, high: float, wider: tuple[float, float], margin: float) -> EquivalenceVerdict:
    if -margin < low and high < margin:
        return "equivalent"
    return "different" if wider[0] > 0 or wider[1] < 0 else "undecided"


def _untested(margin: float, method: Literal["bootstrap", "t"]) -> Equivalence:
    return Equivalence(margin=margin, low=None, high=None, p_low=None, p_high=None, method=method, verdict="undecided")


def _check(margin: float) -> None:
    if not margin > 0:
        raise UsageError(f"an equivalence test needs a margin above 0, not {margin:g}")
