"""How small a difference a comparison can see, before it is made. Invariant: every number follows from stated assumptions: the
correlation of the pairs, the seeds' standard deviation, and rates in the middle where no others are given.

A comparison is a mean of paired differences over n tasks and S seeds. Its standard error has two parts. The tasks' part is
p1 (1 - p1) + p2 (1 - p2) - 2 r sqrt(p1 (1 - p1) p2 (1 - p2)) over n, the usual variance of a paired difference of proportions;
more seeds do not make it smaller (the cautious case: what a task makes of two arms is the same in every seed). The seeds' part
is 2 SD^2 over S. Power is that of the two-sided t test with Satterthwaite's degrees of freedom. With one seed the seeds' part
is left out: then nothing is said of another training run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

POWER = 0.8
LEVEL = 0.05
CORRELATION = 0.5
"""Of the two outcomes of a pair; an assumption, as is usual where nothing was measured."""
SEED_SD = 0.02
"""Standard deviation of a rate between trainings that differ in their seed alone; an assumption, from the range 0 to 0.03 in
which the false positives of intervals over tasks alone were simulated."""
CLUSTERING = 0.1
"""Correlation of the outcomes at two states of one task; an assumption."""


@dataclass(frozen=True, slots=True)
class Design:
    """A comparison to be made.

    Attributes:
        n: paired observations, as many as independent ones.
        seeds: trainings on each side; with one, seeds are left out.
        rates: of the two sides; in the middle the difference is hardest to see.
        correlation: of a pair's outcomes.
        seed_sd: standard deviation of a side's rate between seeds.
    """

    n: float
    seeds: int = 1
    rates: tuple[float, float] = (0.5, 0.5)
    correlation: float = CORRELATION
    seed_sd: float = SEED_SD

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return math.sqrt(self._of_tasks + self._of_seeds)

    @property
    def df(self) -> float:
        """Degrees of freedom of the error."""
        tasks, seeds = self._of_tasks, self._of_seeds
        if seeds == 0:
            return max(self.n - 1, 1.0)
        return (tasks + seeds) ** 2 / (tasks**2 / max(self.n - 1, 1.0) + seeds**2 / (self.seeds - 1))

    @property
    def _of_tasks(self) -> float:
        return paired_variance(*self.rates, self.correlation) / self.n

    @property
    def _of_seeds(self) -> float:
        return 2 * self.seed_sd**2 / self.seeds if self.seeds > 1 else 0.0


def paired_variance(first: float, second: float, correlation: float) -> float:
    """Return the variance of the difference of a pair of binary outcomes.

    Args:
        first: rate of one side; `second` of the other.
        correlation: of a pair's outcomes.
    """
    one, two = first * (1 - first), second * (1 - second)
    return one + two - 2 * correlation * math.sqrt(one * two)


def pairs_needed(first: float, second: float, correlation: float = CORRELATION, power: float = POWER) -> float:
    """Return how many pairs see the difference of two rates, over tasks alone (normal approximation).

    Args:
        first: rate of one side; `second` of the other, another one.
        correlation: of a pair's outcomes.
        power: chance to see it.
    """
    from scipy.special import ndtri

    reach = float(ndtri(1 - LEVEL / 2)) + float(ndtri(power))
    return reach**2 * paired_variance(first, second, correlation) / (second - first) ** 2


def detectable_difference(design: Design, power: float = POWER) -> float:
    """Return the true difference that is significant at 5 % with this chance.

    Args:
        design: the comparison.
        power: such as 0.8.
    """
    return detectable_of_error(design.error, design.df, power)


def detectable_of_error(error: float, df: float, power: float = POWER) -> float:
    """Return `detectable_difference` of a measurement, from its standard error.

    Args:
        error: the standard error.
        df: its degrees of freedom.
        power: such as 0.8.
    """
    from scipy.special import stdtrit
    from scipy.stats import nct

    threshold = float(stdtrit(df, 1 - LEVEL / 2))
    return error * _root(lambda shift: float(nct.sf(threshold, df, shift)) - power, 0.0, threshold + 40)


def smallest_margin(design: Design, power: float = POWER) -> float:
    """Return the smallest margin within which a difference of 0 is called equivalent with this chance (two one-sided tests at
    5 %, Schuirmann 1987; by shifted t distributions).

    Args:
        design: the comparison.
        power: such as 0.8.
    """
    from scipy.special import stdtrit

    df = design.df
    return design.error * float(stdtrit(df, 1 - LEVEL) + stdtrit(df, 0.5 + power / 2))


def independent_states(states: int, tasks: int, clustering: float = CLUSTERING) -> float:
    """Return how many independent observations states are worth that come from fewer tasks (Kish's design effect).

    Args:
        states: drawn.
        tasks: that they come from, at most.
        clustering: correlation of the outcomes of one task's states.
    """
    per_task = max(1.0, states / max(1, tasks))
    return states / (1 + (per_task - 1) * clustering)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(function, low, high))
