"""Quantities over the progress of a training, from a study's data. Invariant: a series holds the same tasks at every
checkpoint; the model before training is the checkpoint at 0 of every seed. With two seeds or more every interval is over tasks
and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cotbench.prompting.elicitation import Mode
from cotbench.runs.episode import rows_of
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.results import Run
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate
from cotbench.stats.trend import CheckpointSeries, Level, Over, Trend, level, trend
from cotbench.study.data import StudyCell, StudyData, sums_by_task

Value = Callable[[Any], float | bool | None]
Sums = Mapping[str, tuple[float, float]]
"""Task -> sum and count."""


@dataclass(frozen=True, slots=True)
class SeriesLevels:
    """A quantity at each checkpoint.

    Attributes:
        shares: of the training.
        estimates: the mean over the seeds; over tasks and seeds where there are two seeds, else over tasks.
        by_seed: [checkpoints][seeds] the value of each seed; a single one at 0.
        trend: the change over the training; None where there is one checkpoint.
    """

    shares: tuple[float, ...]
    estimates: tuple[Estimate, ...]
    by_seed: tuple[tuple[float, ...], ...]
    trend: Trend | None


def probe_series(data: StudyData, cell: StudyCell, measure: int, value: Value) -> CheckpointSeries | None:
    """Return the series of a value over a probe's rows; None where nothing was measured.

    Args:
        data: the study.
        cell: arm and split.
        measure: index of the probe in the study.
        value: of a row; None where the row has none.
    """
    shares = data.shares(cell, measure)

    def sums(share: float, seed: int) -> Sums:
        return sums_by_task(data.rows(cell, measure, share, seed), value)

    return _build_series(data, shares, sums)


def run_series(data: StudyData, cell: StudyCell, value: Callable[[Run], Sums]) -> CheckpointSeries | None:
    """Return the series of a value over runs; None where nothing was played.

    Args:
        data: the study.
        cell: arm and split.
        value: sums and counts by task of one run.
    """

    def sums(share: float, seed: int) -> Sums:
        found: dict[str, tuple[float, float]] = {}
        for played_with, run in data.played(cell, share):
            if played_with in (None, seed):
                found |= value(run)
        return found

    return _build_series(data, data.run_shares(cell), sums)


def _build_series(data: StudyData, shares: list[float], sums: Callable[[float, int], Sums]) -> CheckpointSeries | None:
    """Return a series of the checkpoints at which every seed has observations; of the seeds that have any after training."""
    by_seed = {seed: [sums(share, seed) for share in shares] for seed in data.config.seeds}
    trained = [place for place, share in enumerate(shares) if share > 0]
    seeds = [seed for seed, row in by_seed.items() if any(row[place] for place in trained)] or list(by_seed)
    table = [by_seed[seed] for seed in seeds]
    complete = [place for place in range(len(shares)) if all(row[place] for row in table)]
    tasks = sorted({task for row in table for place in complete for task in row[place]})
    if not complete or not tasks:
        return None
    absent = (0.0, 0.0)
    cells = [[[row[place].get(task, absent) for task in tasks] for place in complete] for row in table]
    return CheckpointSeries(
        progress=tuple(shares[place] for place in complete),
        totals=[[[one[0] for one in at] for at in row] for row in cells],
        counts=[[[one[1] for one in at] for at in row] for row in cells],
        seeds=tuple(seeds),
        tasks=tuple(tasks),
    )


def success(mode: Mode) -> Callable[[Run], Sums]:
    """Return a function that gives the success of a run's tasks in a mode."""
    return lambda run: {one.task: (float(one.success), 1.0) for one in _scored(run, mode)}


def _scored(run: Run, mode: Mode) -> list[EpisodeRow]:
    return [one for one in rows_of(run.records) if one.mode == mode and one.error is None]


def series_levels(
    series: CheckpointSeries, baseline: CheckpointSeries | None = None, margin: float | None = None
) -> SeriesLevels:
    """Return the levels of a series, or of the difference of two.

    Args:
        series: the measurements.
        baseline: what is subtracted; same seeds, checkpoints and tasks.
        margin: of the equivalence test; None: no test.
    """
    shares, over = tuple(series.progress), over_of(series)
    by_seed = tuple(tuple(_values(series, baseline, place)) for place in range(len(shares)))
    by_seed = tuple(values[:1] if _one_model(series, baseline, place) else values for place, values in enumerate(by_seed))
    if len(shares) > 1:
        found = trend(series, baseline, margin, [over])
        return SeriesLevels(shares, found.levels[over], by_seed, found)
    return SeriesLevels(shares, (level(series, 0, over, baseline).estimate,), by_seed, None)


def over_of(series: CheckpointSeries) -> Over:
    """Return the units that the intervals of a series are over: tasks and seeds where there are two seeds, else tasks."""
    return "both" if len(series.totals) > 1 else "tasks"


def _values(series: CheckpointSeries, baseline: CheckpointSeries | None, place: int) -> list[float]:
    sides = [series] if baseline is None else [series, baseline]
    found = []
    for seed in range(len(series.totals)):
        ratios = [_ratio(side.totals[seed][place], side.counts[seed][place]) for side in sides]
        found.append(ratios[0] - (ratios[1] if len(ratios) > 1 else 0.0))
    return found


def _ratio(totals: Any, counts: Any) -> float:
    return float(sum(totals)) / float(sum(counts))


def success_levels(series: CheckpointSeries, baseline: CheckpointSeries | None = None) -> tuple[Estimate, ...]:
    """Return the levels of a series of successes, or of the difference of two.

    Where each task has one outcome, with one seed or before training, they are rates with Wilson's and Newcombe's intervals:
    the bootstrap would give none at 0 or 1.

    Args:
        series: the measurements.
        baseline: what is subtracted; same seeds, checkpoints and tasks.
    """
    return tuple(success_level(series, place, baseline).estimate for place in range(len(series.progress)))


def success_level(series: CheckpointSeries, place: int, baseline: CheckpointSeries | None = None) -> Level:
    """Return the level at one checkpoint of a series of successes, or of the difference of two; see `success_levels`.

    The p-value of two single outcomes is McNemar's.

    Args:
        series: the measurements.
        place: index of the checkpoint.
        baseline: what is subtracted; same seeds, checkpoints and tasks.
    """
    found = level(series, place, over_of(series), baseline)
    sides = [_outcomes(side, place) for side in _sides(series, baseline)]
    single = all(outcome in (0.0, 1.0) for side in sides for outcome in side.values())
    alike = len(series.totals) == 1 or _one_model(series, baseline, place)
    if not single or not (alike or found.estimate.low == found.estimate.high):
        return found
    first = [bool(outcome) for _, outcome in sorted(sides[0].items())]
    if baseline is None:
        return Level(estimates.rate(sum(first), len(first)), found.p, found.error, found.seeds)
    if sides[0].keys() != sides[1].keys():
        return found
    second = [bool(outcome) for _, outcome in sorted(sides[1].items())]
    only = [sum(a and not b for a, b in zip(one, other, strict=True)) for one, other in ((first, second), (second, first))]
    return Level(estimates.paired_rate_difference(second, first), estimates.mcnemar(*only), found.error, found.seeds)


def _sides(series: CheckpointSeries, baseline: CheckpointSeries | None) -> list[CheckpointSeries]:
    return [series] if baseline is None else [series, baseline]


def _one_model(series: CheckpointSeries, baseline: CheckpointSeries | None, place: int) -> bool:
    """Return whether a checkpoint is the one model that all seeds begin with, and not what each began with from another arm."""
    if series.progress[place] != 0:
        return False
    sides = [[*zip(side.totals, side.counts, strict=True)] for side in _sides(series, baseline)]
    return all(
        (totals[place], counts[place]) == (one[0][0][place], one[0][1][place]) for one in sides for totals, counts in one
    )


def _outcomes(series: CheckpointSeries, place: int) -> dict[int, float]:
    """Return the mean over the seeds for each task that was played, by its index."""
    totals = [sum(column) for column in zip(*(row[place] for row in series.totals), strict=True)]
    counts = [sum(column) for column in zip(*(row[place] for row in series.counts), strict=True)]
    return {task: total / count for task, (total, count) in enumerate(zip(totals, counts, strict=True)) if count}


def final_level(series: CheckpointSeries, baseline: CheckpointSeries | None = None) -> Level:
    """Return the level at the last checkpoint, of a series or of the difference of two."""
    return level(series, len(series.progress) - 1, over_of(series), baseline)


def final_success(series: CheckpointSeries, baseline: CheckpointSeries | None = None) -> Level:
    """Return the level at the last checkpoint, of a series of successes or of the difference of two."""
    return success_level(series, len(series.progress) - 1, baseline)
