"""A quantity over the progress of a training. Invariant: tasks are resampled whole, with all their checkpoints, seeds and both
sides of a gap; every interval names the units that it is over.

`over` is one of
    tasks: for these seeds; tasks are resampled (BCa bootstrap). Does not cover another training run.
    seeds: for these tasks; t interval of the seeds' values. Needs two seeds, and is wide with few.
    both: for another run on other tasks; tasks and seeds are crossed samples (`crossed`). Verdicts use it where there are two
        seeds or more. A ratio enters by its linearisation.
The value is the same for all three: the mean over the seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from cotbench.errors import UsageError
from cotbench.stats import bootstrap, equivalence, estimates
from cotbench.stats.bootstrap import Bootstrap, Floats, Ratios
from cotbench.stats.crossed import CrossedMean, crossed_mean, sign_test
from cotbench.stats.equivalence import Equivalence
from cotbench.stats.estimates import CONFIDENCE, Estimate

Over = Literal["tasks", "seeds", "both"]
_Table = Sequence[Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class CheckpointSeries:
    """Measurements at the checkpoints of a training, on the same tasks at each, with one seed or several.

    Attributes:
        progress: [checkpoints] in [0, 1], ascending.
        totals: [seeds][checkpoints][tasks] a sum for each task, such as its states with the reference action.
        counts: [seeds][checkpoints][tasks] how many observations each sum has; 1 for a success.
        seeds: the seeds' numbers, where series of different seeds may meet; empty where they are all the same.
        tasks: the tasks' names, likewise.
    """

    progress: Sequence[float]
    totals: _Table
    counts: _Table
    seeds: Sequence[int] = ()
    tasks: Sequence[str] = ()

    def at(self, places: Sequence[int]) -> CheckpointSeries:
        """Return the series at some of its checkpoints.

        Args:
            places: their indices, ascending.
        """
        return CheckpointSeries(
            progress=tuple(self.progress[place] for place in places),
            totals=[[row[place] for place in places] for row in self.totals],
            counts=[[row[place] for place in places] for row in self.counts],
            seeds=self.seeds,
            tasks=self.tasks,
        )

    def of_seeds(self, seeds: Sequence[int]) -> CheckpointSeries:
        """Return the series of some of its seeds.

        Args:
            seeds: their numbers.
        """
        places = [self.seeds.index(seed) for seed in seeds]
        totals, counts = [self.totals[place] for place in places], [self.counts[place] for place in places]
        return CheckpointSeries(self.progress, totals, counts, tuple(seeds), self.tasks)


class Trend(BaseModel):
    """The change of a quantity over a training. Each number has one value for each kind of interval; with one seed over tasks
    alone.

    Attributes:
        levels: at each checkpoint.
        slope: least squares over the checkpoints, per unit of progress: the change of the fitted line from start to end.
        changes: each later checkpoint minus the first; `change` is the last of them.
        p: two-sided p-value of "the change is 0"; None where there is no test.
        errors: standard error and degrees of freedom of the change, for its detectable difference (`power`); None where there
            is none.
        flat: test that the slope is equivalent to 0; empty where no margin was given. `flat_change`: the same of the change.
            `flat_all`: of all changes from the first checkpoint and of the fitted line's, together: only this one is "flat".
    """

    model_config = ConfigDict(frozen=True)

    progress: tuple[float, ...]
    tasks: int
    seeds: int
    levels: dict[Over, tuple[Estimate, ...]]
    slope: dict[Over, Estimate]
    changes: dict[Over, tuple[Estimate, ...]]
    p: dict[Over, float | None]
    errors: dict[Over, tuple[float, float] | None]
    flat: dict[Over, Equivalence]
    flat_change: dict[Over, Equivalence]
    flat_all: dict[Over, Equivalence]

    @property
    def over(self) -> Over:
        """The kind of interval that verdicts use: over tasks and seeds where there are two seeds."""
        return "both" if self.seeds > 1 else "tasks"

    @property
    def change(self) -> dict[Over, Estimate]:
        """Last checkpoint minus first."""
        return {over: found[-1] for over, found in self.changes.items()}


def trend(
    series: CheckpointSeries,
    baseline: CheckpointSeries | None = None,
    margin: float | None = None,
    overs: Sequence[Over] | None = None,
) -> Trend:
    """Return the trend of a series, or of the difference of two on the same tasks (`series` minus `baseline`: a gap).

    Args:
        series: the measurements.
        baseline: what is subtracted; same seeds, checkpoints and tasks.
        margin: of the equivalence test, in the unit of the quantity, over the whole training.
        overs: the kinds of interval; None: all there are.

    Raises:
        UsageError: fewer than two checkpoints, shapes that differ, or a checkpoint without observations.
    """
    overs = overs or (["tasks", "seeds", "both"] if len(series.totals) > 1 else ["tasks"])
    measured, progress = _measured(series, baseline, "tasks" in overs)
    checkpoints = len(progress)
    if checkpoints < 2:
        raise UsageError(f"a trend needs two checkpoints at ascending progress, not {progress.tolist()}")
    centred = progress - progress.mean()
    slope, span = centred / (centred**2).sum(), progress[-1] - progress[0]
    changes = np.eye(checkpoints)[1:] - np.eye(checkpoints)[0]
    tested = overs if margin is not None else []
    return Trend(
        progress=tuple(progress.tolist()),
        tasks=measured.tasks,
        seeds=measured.seeds,
        levels={over: tuple(measured.estimate(row, over) for row in np.eye(checkpoints)) for over in overs},
        slope={over: measured.estimate(slope, over) for over in overs},
        changes={over: tuple(measured.estimate(row, over) for row in changes) for over in overs},
        p={over: measured.p(changes[-1], over) for over in overs},
        errors={over: measured.error(changes[-1], over) for over in overs},
        flat={over: measured.equivalence(slope, over, margin) for over in tested},
        flat_change={over: measured.equivalence(changes[-1], over, margin) for over in tested},
        flat_all={over: measured.all_equivalent([*changes, slope * span], over, margin) for over in tested},
    )


def level(series: CheckpointSeries, place: int, over: Over, baseline: CheckpointSeries | None = None) -> Level:
    """Return the value of a series, or of the difference of two, at one checkpoint.

    Args:
        series: the measurements.
        place: index of the checkpoint.
        over: the units of the interval.
        baseline: what is subtracted; same seeds, checkpoints and tasks.

    Raises:
        UsageError: shapes that differ, or a checkpoint without observations.
    """
    sides = [side.at([place]) for side in ([series] if baseline is None else [series, baseline])]
    measured, _ = _measured(sides[0], sides[1] if len(sides) > 1 else None, over == "tasks")
    only = np.ones(1)
    return Level(measured.estimate(only, over), measured.p(only, over), measured.error(only, over), measured.seeds)


@dataclass(frozen=True, slots=True)
class Level:
    """A value at one checkpoint.

    Attributes:
        p: two-sided p-value of "it is 0"; None where there is no test.
        error: standard error and degrees of freedom; None where there is none.
        seeds: behind it.
    """

    estimate: Estimate
    p: float | None
    error: tuple[float, float] | None
    seeds: int


def independent_difference(one: Level, minus: Level) -> Level | None:
    """Return the difference of two independent levels (Welch's t interval); None where one has no standard error.

    Args:
        one: of some tasks.
        minus: of other tasks.
    """
    from scipy.special import stdtr, stdtrit

    if one.error is None or minus.error is None or one.estimate.mean is None or minus.estimate.mean is None:
        return None
    squares = [(error**2, df) for error, df in (one.error, minus.error)]
    variance = sum(square for square, _ in squares)
    value, n = one.estimate.mean - minus.estimate.mean, one.estimate.n + minus.estimate.n
    if not variance > 0:
        return None
    error, df = variance**0.5, variance**2 / sum(square**2 / df for square, df in squares if square > 0)
    reach = float(stdtrit(df, 0.5 + CONFIDENCE / 2)) * error
    estimate = Estimate(n=n, mean=value, low=value - reach, high=value + reach)
    return Level(estimate, float(2 * stdtr(df, -abs(value) / error)), (error, df), min(one.seeds, minus.seeds))


def _measured(series: CheckpointSeries, baseline: CheckpointSeries | None, resamples: bool) -> tuple[_Measured, Floats]:
    sides = [series] if baseline is None else [series, baseline]
    totals, counts = _stacked(sides)
    _, seeds, _, tasks = totals.shape
    together = bootstrap.ratios(totals.reshape(-1, tasks), counts.reshape(-1, tasks), resamples)
    signs = np.array([1.0, -1.0][: len(sides)])
    share = len(sides) == 1 and bool(np.all((totals >= 0) & (totals <= counts)))
    return _Measured(together, signs, seeds, share), np.asarray(series.progress, dtype=float)


def _stacked(sides: Sequence[CheckpointSeries]) -> tuple[Floats, Floats]:
    """Return totals and counts, [sides, seeds, checkpoints, tasks]."""
    progress = list(sides[0].progress)
    if sorted(set(progress)) != progress:
        raise UsageError(f"a trend needs checkpoints at ascending progress, not {progress}")
    for side in sides:
        shape = np.shape(side.totals)
        if list(side.progress) != progress or shape != np.shape(sides[0].totals) or shape != np.shape(side.counts):
            raise UsageError("a trend needs the same seeds, checkpoints and tasks throughout: leave out what some lack")
        if len(shape) != 3 or shape[1] != len(progress):
            raise UsageError(f"a trend needs [seeds][checkpoints][tasks] with {len(progress)} checkpoints, not {shape}")
        if not np.all(np.sum(side.counts, axis=2) > 0):
            raise UsageError("a checkpoint has no observation on any task: measure it, or leave it out")
    return np.array([side.totals for side in sides], dtype=float), np.array([side.counts for side in sides], dtype=float)


@dataclass(frozen=True, slots=True)
class _Measured:
    """The ratios of all sides, seeds and checkpoints, in this order.

    Attributes:
        signs: of the sides.
        share: whether each ratio is a share, in [0, 1].
    """

    ratios: Ratios
    signs: Floats
    seeds: int
    share: bool

    @property
    def tasks(self) -> int:
        return len(self.ratios.influence)

    def estimate(self, weights: Floats, over: Over) -> Estimate:
        """Return a weighted sum of the checkpoints' values."""
        if over == "tasks":
            return estimates.estimate(self._pooled(weights))
        mean = self._by_t(weights, over)
        is_level = self.share and over == "both" and np.count_nonzero(weights) == 1 and weights.sum() == 1
        return mean.share() if is_level else mean.estimate()

    def p(self, weights: Floats, over: Over) -> float | None:
        """Return the two-sided p-value of "the weighted sum is 0"."""
        if over != "tasks":
            return self._by_t(weights, over).p()
        pooled = self._pooled(weights)
        if self.tasks < 2 or not pooled.moves:
            return None if self.tasks < 2 else sign_test(pooled.value, self.tasks)
        return min(1.0, 2 * min(pooled.p_at_most(0.0), pooled.p_at_least(0.0)))

    def error(self, weights: Floats, over: Over) -> tuple[float, float] | None:
        """Return the standard error of a weighted sum and its degrees of freedom; None where there is none."""
        if over != "tasks":
            mean = self._by_t(weights, over)
            return (mean.error, mean.df) if mean.varies else None
        pooled = self._pooled(weights)
        return (pooled.variance**0.5, self.tasks - 1.0) if self.tasks > 1 and pooled.moves else None

    def equivalence(self, weights: Floats, over: Over, margin: float | None) -> Equivalence:
        """Return the test that a weighted sum of the checkpoints' values is equivalent to 0."""
        if over == "tasks":
            return equivalence.of_bootstrap(self._pooled(weights), margin or 0.0)
        mean = self._by_t(weights, over)
        return equivalence.of_t(mean.value, mean.error, mean.df, margin or 0.0)

    def all_equivalent(self, rows: Sequence[Floats], over: Over, margin: float | None) -> Equivalence:
        """Return the test that several weighted sums are all equivalent to 0; the last one is not tested for a difference."""
        tests = [self.equivalence(row, over, margin) for row in rows]
        return equivalence.of_all(tests, [self.p(row, over) for row in rows[:-1]])

    def _pooled(self, weights: Floats) -> Bootstrap:
        equally = np.full(self.seeds, 1 / self.seeds)
        return self.ratios.combined(np.einsum("i,s,c->isc", self.signs, equally, weights).ravel())

    def _by_t(self, weights: Floats, over: Over) -> CrossedMean:
        """Return the weighted sum with its standard error over seeds, or over both."""
        shape = (len(self.signs), self.seeds, len(weights))
        values = np.einsum("isc,i,c->s", self.ratios.values.reshape(shape), self.signs, weights)
        if over == "seeds":
            value, error = float(values.mean()), float(values.std(ddof=1)) / self.seeds**0.5
            # As an interval over seeds does not know the tasks, its n is the number of seeds.
            return CrossedMean(value, error, float(self.seeds - 1), self.seeds, self.seeds)
        influence = np.einsum("tisc,i,c->st", self.ratios.influence.reshape((-1, *shape)), self.signs, weights)
        return crossed_mean(values[:, None] + self.tasks * influence)
