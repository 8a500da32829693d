"""A quantity over the progress of a training. Invariant: tasks are resampled whole, with all their checkpoints, seeds and both
sides of a gap; every interval names the units that it is over.

`over` is one of
    tasks: for these seeds; tasks are resampled (BCa bootstrap). Does not cover another training run.
    seeds: for these tasks; t interval of the seeds' values. Needs two seeds, and is wide with few.
    both: for another run on other tasks. Tasks and seeds are resampled (bootstrap of crossed factors, Owen 2007; of S seeds
        S - 1 are drawn, which keeps the variance unbiased: Rao and Wu 1988); its standard error, and a t distribution with
        Satterthwaite's degrees of freedom. Never too narrow, but wide where seeds hardly differ (simulated coverage 95 to
        100 %).
The value is the same for all three: the mean over the seeds. A mixed model is left out: with two to five seeds its variance of
seeds is a guess, it takes rates for normal, and over tasks a GEE has the slope and the standard error of this bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from cotbench.errors import UsageError
from cotbench.stats import bootstrap, equivalence, estimates
from cotbench.stats.bootstrap import RESAMPLES, SEED, Bootstrap, Floats, Ratios
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
    """

    progress: Sequence[float]
    totals: _Table
    counts: _Table


class Trend(BaseModel):
    """The change of a quantity over a training. Each number has one value for each kind of interval; with one seed over tasks
    alone.

    Attributes:
        levels: at each checkpoint.
        slope: least squares over the checkpoints, per unit of progress: the change of the fitted line from start to end.
        change: last checkpoint minus first.
        flat: test that the slope is equivalent to 0; empty where no margin was given. `flat_change`: the same of the change.
    """

    model_config = ConfigDict(frozen=True)

    progress: tuple[float, ...]
    tasks: int
    seeds: int
    levels: dict[Over, tuple[Estimate, ...]]
    slope: dict[Over, Estimate]
    change: dict[Over, Estimate]
    flat: dict[Over, Equivalence]
    flat_change: dict[Over, Equivalence]


def trend(series: CheckpointSeries, baseline: CheckpointSeries | None = None, margin: float | None = None) -> Trend:
    """Return the trend of a series, or of the difference of two on the same tasks (`series` minus `baseline`: a gap).

    Args:
        series: the measurements.
        baseline: what is subtracted; same seeds, checkpoints and tasks.
        margin: of the equivalence test, in the unit of the quantity, over the whole training.

    Raises:
        UsageError: fewer than two checkpoints, shapes that differ, or a checkpoint without observations.
    """
    sides = [series] if baseline is None else [series, baseline]
    progress = np.asarray(series.progress, dtype=float)
    totals, counts = _stacked(sides)
    _, seeds, checkpoints, tasks = totals.shape
    together = bootstrap.ratios(totals.reshape(-1, tasks), counts.reshape(-1, tasks))
    measured = _Measured(together, np.array([1.0, -1.0][: len(sides)]), seeds)
    centred = progress - progress.mean()
    slope, change = centred / (centred**2).sum(), np.zeros(checkpoints)
    change[0], change[-1] = -1.0, 1.0
    overs: list[Over] = ["tasks", "seeds", "both"] if seeds > 1 else ["tasks"]
    return Trend(
        progress=tuple(progress.tolist()),
        tasks=tasks,
        seeds=seeds,
        levels={over: tuple(measured.estimate(row, over) for row in np.eye(checkpoints)) for over in overs},
        slope={over: measured.estimate(slope, over) for over in overs},
        change={over: measured.estimate(change, over) for over in overs},
        flat={over: measured.equivalence(slope, over, margin) for over in overs} if margin is not None else {},
        flat_change={over: measured.equivalence(change, over, margin) for over in overs} if margin is not None else {},
    )


def _stacked(sides: Sequence[CheckpointSeries]) -> tuple[Floats, Floats]:
    """Return totals and counts, [sides, seeds, checkpoints, tasks]."""
    progress = list(sides[0].progress)
    if len(set(progress)) < 2 or sorted(progress) != progress:
        raise UsageError(f"a trend needs two checkpoints at ascending progress, not {progress}")
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
    """The ratios of all sides, seeds and checkpoints, in this order; `signs` of the sides."""

    ratios: Ratios
    signs: Floats
    seeds: int

    def estimate(self, weights: Floats, over: Over) -> Estimate:
        """Return a weighted sum of the checkpoints' values."""
        from scipy.special import stdtrit

        if over == "tasks":
            return estimates.estimate(self._pooled(weights))
        value, error, df, n = self._by_t(weights, over)
        if not np.isfinite(df):
            return Estimate(n=n, mean=value, low=None, high=None)
        reach = float(stdtrit(df, 0.5 + CONFIDENCE / 2)) * error
        return Estimate(n=n, mean=value, low=value - reach, high=value + reach)

    def equivalence(self, weights: Floats, over: Over, margin: float) -> Equivalence:
        """Return the test that a weighted sum of the checkpoints' values is equivalent to 0."""
        if over == "tasks":
            return equivalence.of_bootstrap(self._pooled(weights), margin)
        value, error, df, _ = self._by_t(weights, over)
        return equivalence.of_t(value, error, df, margin)

    def _of_seed(self, weights: Floats, seed: int) -> Bootstrap:
        chosen = np.zeros(self.seeds)
        chosen[seed] = 1.0
        return self.ratios.combined(np.einsum("i,s,c->isc", self.signs, chosen, weights).ravel())

    def _pooled(self, weights: Floats) -> Bootstrap:
        equally = np.full(self.seeds, 1 / self.seeds)
        return self.ratios.combined(np.einsum("i,s,c->isc", self.signs, equally, weights).ravel())

    def _by_t(self, weights: Floats, over: Over) -> tuple[float, float, float, int]:
        """Return value, standard error, degrees of freedom and units over seeds, or over both."""
        pooled = self._pooled(weights)
        by_seed = np.array([self._of_seed(weights, seed).value for seed in range(self.seeds)])
        of_seeds = float(by_seed.var(ddof=1)) / self.seeds
        if over == "seeds":
            return pooled.value, of_seeds**0.5, float(self.seeds - 1), self.seeds
        tasks = len(pooled.influence)
        units = min(tasks, self.seeds)
        if tasks == 1:
            return pooled.value, np.nan, np.nan, units
        of_tasks = pooled.variance
        shares = of_tasks**2 / (tasks - 1) + of_seeds**2 / (self.seeds - 1)
        df = (of_tasks + of_seeds) ** 2 / shares if shares > 0 else float(tasks - 1)
        return pooled.value, self._error_over_both(weights), df, units

    def _error_over_both(self, weights: Floats) -> float:
        """Return the standard deviation of the quantity when tasks and seeds are both resampled."""
        shape = (RESAMPLES, len(self.signs), self.seeds, len(weights))
        by_seed = np.einsum("bisc,i,c->bs", self.ratios.draws.reshape(shape), self.signs, weights)
        drawn = np.random.default_rng(SEED).integers(self.seeds, size=(RESAMPLES, self.seeds - 1))
        return float(np.nanstd(np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)))
