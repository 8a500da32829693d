"""A mean over two crossed samples, tasks and seeds: for another training run on other tasks. Invariant: an interval holds the
variance of both; where seeds hardly differ it comes near the interval over tasks alone.

Each value belongs to a task and a seed: a task's effect, a seed's effect, and the rest. Two-way analysis of variance without
replication gives mean squares MT of tasks, MS of seeds and ME of the rest, and the mean's variance is estimated by
(max(MT - ME, 0) + MS) / (tasks x seeds), which is unbiased but for the truncation. MS is at least the 1 % quantile of what ME
alone leads to: counts of a few seeds can tie, which is no sign of precision. Satterthwaite's degrees of freedom (1946), there
with MS at least ME: seeds that happen to agree must not look like many degrees of freedom.

Simulated (tests/cotbench/stats/test_false_positives.py): a null difference of two arms of binary outcomes is significant at
5 % in 3 to 7 % of the studies with 5 or 10 seeds, 100 to 1,000 tasks and a seed's standard deviation of 0 to 0.03, also where
the arms' seeds are correlated. Left out: a mixed model, which needs iteration and has no better degrees of freedom with few
seeds; a bootstrap of both (Owen 2007), whose variance counts the rest more than once, so that it is too wide where seeds hardly
differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from cotbench.errors import UsageError
from cotbench.stats.estimates import CONFIDENCE, Estimate

FEW_SEEDS = 5
"""Below this many seeds an interval over tasks and seeds is wide, and says little of another training run."""
_SAME = 1e-18
_LEAST = 0.01


@dataclass(frozen=True, slots=True)
class CrossedMean:
    """The mean of values of tasks and seeds.

    Attributes:
        value: the mean.
        error: its standard error; 0 where nothing varies, not a number with one task.
        df: degrees of freedom of the error, not always an integer; not a number where there is no interval.
        tasks: how many; `seeds` likewise.
    """

    value: float
    error: float
    df: float
    tasks: int
    seeds: int

    @property
    def varies(self) -> bool:
        """Return whether there is a standard error to test with."""
        return math.isfinite(self.df) and self.error > 0

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Return the t interval; None with one task.

        Args:
            confidence: such as 0.95.
        """
        from scipy.special import stdtrit

        if not math.isfinite(self.error):
            return None
        reach = float(stdtrit(self.df, 0.5 + confidence / 2)) * self.error if self.varies else 0.0
        return self.value - reach, self.value + reach

    def estimate(self) -> Estimate:
        """Return the mean with its 95 % interval; n is the number of tasks."""
        low, high = self.interval() or (None, None)
        return Estimate(n=self.tasks, mean=self.value, low=low, high=high)

    def p(self) -> float | None:
        """Return the two-sided p-value of "the mean is 0"; None with one task.

        Where nothing varies it is the sign test's over tasks, all of which point the same way.
        """
        from scipy.special import stdtr

        if not self.varies:
            return None if self.tasks < 2 else sign_test(self.value, self.tasks)
        return float(2 * stdtr(self.df, -abs(self.value) / self.error))

    def share(self) -> Estimate:
        """Return the mean as an estimate of a share, within [0, 1]: Wilson's interval of as many independent observations as
        give this standard error (Franco et al. 2019, "Comparative study of confidence intervals for proportions in complex
        sample surveys"), at least as many as tasks where nothing varies; so it has a width at 0 and at 1 too.
        """
        from scipy.special import ndtri, stdtrit

        inside = self.value * (1 - self.value)
        if not math.isfinite(self.error):
            return self.estimate()
        if self.varies and inside > 0:
            n, quantile = inside / self.error**2, float(stdtrit(self.df, 0.5 + CONFIDENCE / 2))
        else:
            n, quantile = float(self.tasks), float(ndtri(0.5 + CONFIDENCE / 2))
        square = quantile * quantile / n
        middle = (self.value + square / 2) / (1 + square)
        reach = quantile * math.sqrt(max(inside, 0.0) / n + square / (4 * n)) / (1 + square)
        return Estimate(n=self.tasks, mean=self.value, low=max(0.0, middle - reach), high=min(1.0, middle + reach))


@cache
def _least_share(df: int) -> float:
    """Return the 1 % quantile of a mean square, in units of its expectation."""
    from scipy.special import chdtri

    return float(chdtri(df, 1 - _LEAST)) / df


def sign_test(value: float, tasks: int) -> float:
    """Return the two-sided p-value of "the value is 0" where every task has the same value.

    Args:
        value: of each task.
        tasks: how many.
    """
    return 1.0 if value == 0 else float(2.0 ** (1 - min(tasks, 1000)))


def crossed_mean(values: ArrayLike) -> CrossedMean:
    """Return the mean of values over tasks and seeds.

    Args:
        values: [seeds, tasks]; for a ratio, its linearisation: the seed's ratio plus tasks times the task's influence.

    Raises:
        UsageError: fewer than two seeds.
    """
    table = np.asarray(values, dtype=float)
    seeds, tasks = table.shape
    if seeds < 2:
        raise UsageError("an interval over tasks and seeds needs two seeds: with one it is over tasks")
    value = math.fsum(table.ravel()) / table.size
    if tasks < 2:
        return CrossedMean(value, math.nan, math.nan, tasks, seeds)
    of_seeds, of_tasks = table.mean(axis=1) - value, table.mean(axis=0) - value
    rest = table - value - of_seeds[:, None] - of_tasks[None, :]
    rest_df = (seeds - 1) * (tasks - 1)
    # Rounding must not make equal values look different.
    rounding = _SAME * max(1.0, float((table**2).max()))
    squares = (
        seeds * float((of_tasks**2).sum()) / (tasks - 1),
        tasks * float((of_seeds**2).sum()) / (seeds - 1),
        float((rest**2).sum()) / rest_df,
    )
    of_task, of_seed, of_rest = (0.0 if one <= rounding * table.size else one for one in squares)
    above = max(of_task - of_rest, 0.0)
    variance = (above + max(of_seed, _least_share(seeds - 1) * of_rest)) / table.size
    if variance == 0:
        return CrossedMean(value, 0.0, math.nan, tasks, seeds)
    expected = max(of_seed, of_rest)
    df = (above + expected) ** 2 / (of_task**2 / (tasks - 1) + expected**2 / (seeds - 1) + of_rest**2 / rest_df)
    return CrossedMean(value, math.sqrt(variance), df, tasks, seeds)
