"""What a study compares: alignment, gap, consistency, conflicts and success, of an arm or between arms. Invariant: the figures,
the tables, the sentences and the tests of a report take their numbers from here, each series from where its format is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.stats.trend import CheckpointSeries, Level, independent_difference, trend
from cotbench.study.data import StudyCell
from cotbench.study.format_gate import SeriesStart, begun, series_start
from cotbench.study.scope import Scope
from cotbench.study.series import (
    SeriesLevels,
    Value,
    final_level,
    final_success,
    over_of,
    probe_series,
    run_series,
    series_levels,
    success,
)

ALIGNED: dict[str, Value] = {"prompt": lambda row: row.prompt_match, "cot": lambda row: row.cot_match}
"""Of a row of probe `alignment`: whether a mode's action is the reference action."""


def same_action(row: Any) -> bool:
    """Return whether the prompt action is the CoT action."""
    return not row.revised


def keeps_own_action(row: Any) -> bool:
    """Return whether the action stays the model's own under the headline's share of the conflicting trace."""
    return bool(row.outcome(row.headline) == "kept")


def alignment_series(scope: Scope, cell: StudyCell, value: Value, modes: Sequence[Mode] = ()) -> CheckpointSeries | None:
    """Return the series of a value over the rows of the first probe `alignment`; None where there is none.

    Args:
        scope: one model in one environment.
        cell: arm and split.
        value: of a row.
        modes: whose format must be kept for the series to begin.
    """
    measures = scope.data.measures("alignment")
    found = probe_series(scope.data, cell, measures[0], value) if measures else None
    return begun(found, start_of(scope, cell, modes))


def start_of(scope: Scope, cell: StudyCell, modes: Sequence[Mode]) -> SeriesStart | None:
    """Return where the series of a cell begin that need these modes; None where it is not known."""
    return series_start(scope.data, cell, modes)


def gap_levels(scope: Scope, cell: StudyCell) -> SeriesLevels | None:
    """Return CoT alignment minus prompt alignment, with the study's margin."""
    cot, prompt = (alignment_series(scope, cell, ALIGNED[mode], MODES) for mode in ("cot", "prompt"))
    return None if cot is None or prompt is None else series_levels(cot, prompt, scope.data.config.margin)


def alignment_levels(scope: Scope, cell: StudyCell, mode: str) -> SeriesLevels | None:
    """Return the alignment of one mode's action with the reference."""
    of_mode: tuple[Mode, ...] = tuple(one for one in MODES if one == mode)
    return _levels(scope, alignment_series(scope, cell, ALIGNED[mode], of_mode))


def consistency_levels(scope: Scope, cell: StudyCell) -> SeriesLevels | None:
    """Return the share of states with prompt action = CoT action."""
    return _levels(scope, alignment_series(scope, cell, same_action, MODES))


def conflict_levels(scope: Scope, cell: StudyCell) -> SeriesLevels | None:
    """Return the share of states whose action stays under a conflicting trace."""
    return _levels(scope, conflict_series(scope, cell))


def conflict_series(scope: Scope, cell: StudyCell) -> CheckpointSeries | None:
    """Return the series of the states whose action stays under a conflicting trace."""
    measures = scope.data.measures("conflict")
    series = probe_series(scope.data, cell, measures[0], keeps_own_action) if measures else None
    return begun(series, start_of(scope, cell, ("cot",)))


def conflict_domains(scope: Scope, arm: str) -> Level | None:
    """Return how much more an arm's keeping of its action under a conflicting trace changes out of domain than in domain.

    Out of domain are the splits of `conflict_splits`. The tasks are others, so the two changes count as independent; that their
    seeds are the same makes the interval too wide rather than too narrow where the seeds move both alike.
    """
    outside = pooled([conflict_series(scope, scope.cell(arm, split)) for split in conflict_splits(scope)])
    inside = conflict_series(scope, scope.cell(arm, scope.headline))
    if outside is None or inside is None or outside.progress != inside.progress or len(inside.progress) < 2:
        return None
    changes = []
    for series in (outside, inside):
        found = trend(series, overs=[over_of(series)])
        changes.append(Level(found.change[found.over], found.p[found.over], found.errors[found.over], found.seeds))
    return independent_difference(*changes)


def conflict_splits(scope: Scope) -> tuple[str, ...]:
    """Return the splits out of domain on which the first probe `conflict` is made."""
    return _probed_outside(scope, "conflict")


def share_level(scope: Scope, cell: StudyCell, probe: str) -> Level | None:
    """Return the prompt's share of a probe `attention` or `gradient` at the end of the training, minus one half."""
    measures = scope.data.measures(probe)
    series = probe_series(scope.data, cell, measures[0], lambda row: row.prompt - 0.5) if measures else None
    return None if series is None or series.progress[-1] == 0 else final_level(series)


def success_gap_levels(scope: Scope, cell: StudyCell) -> SeriesLevels | None:
    """Return CoT success minus prompt success in whole episodes, with the study's margin."""
    prompt, cot = (run_series(scope.data, cell, success(mode)) for mode in MODES)
    if prompt is None or cot is None or prompt.progress != cot.progress or prompt.tasks != cot.tasks:
        return None
    return series_levels(cot, prompt, scope.data.config.margin)


def pooled(parts: Sequence[CheckpointSeries | None]) -> CheckpointSeries | None:
    """Return series of different tasks as one; None where one is missing, or their checkpoints or seeds differ.

    Args:
        parts: one of each split.
    """
    known = [one for one in parts if one is not None]
    if not known or len(known) < len(parts):
        return None
    first = known[0]
    if any((one.progress, one.seeds) != (first.progress, first.seeds) for one in known):
        return None
    return CheckpointSeries(
        progress=first.progress,
        totals=_side_by_side([one.totals for one in known]),
        counts=_side_by_side([one.counts for one in known]),
        seeds=first.seeds,
        tasks=tuple(task for one in known for task in one.tasks),
    )


def _side_by_side(tables: Sequence[Sequence[Sequence[Sequence[float]]]]) -> list[list[list[float]]]:
    """Return tables [seeds][checkpoints][tasks] as one with the tasks of all."""
    by_seed = [zip(*rows, strict=True) for rows in zip(*tables, strict=True)]
    return [[[value for row in at for value in row] for at in rows] for rows in by_seed]


def _levels(scope: Scope, series: CheckpointSeries | None) -> SeriesLevels | None:
    return None if series is None else series_levels(series, margin=scope.data.config.margin)


def cot_level(scope: Scope, cell: StudyCell, quantity: Literal["CoT alignment", "CoT success"]) -> float | None:
    """Return an arm's mean at the end of its training; None where it was not measured.

    Args:
        scope: one model in one environment.
        cell: arm and split.
        quantity: of CoT mode.
    """
    if quantity == "CoT alignment":
        levels = alignment_levels(scope, cell, "cot")
        return None if levels is None else levels.estimates[-1].mean
    series = run_series(scope.data, cell, success("cot"))
    return None if series is None else final_success(series).estimate.mean


def arm_differences(scope: Scope, arm: str, baseline: str, split: str) -> list[Level | None]:
    """Return an arm minus another at the end of the training: prompt alignment, CoT alignment, prompt success, CoT success.

    None where it was not measured, or where an arm never keeps the format.
    """
    return _differences(scope, (arm, baseline), (split,), (split,))


def outside_differences(scope: Scope, arm: str, baseline: str) -> list[Level | None]:
    """Return the same over the tasks of all splits out of domain on which it was measured, together."""
    played = scope.measured_outside(scope.data.config.runs)
    return _differences(scope, (arm, baseline), _probed_outside(scope, "alignment"), played)


def _probed_outside(scope: Scope, probe: str) -> tuple[str, ...]:
    return scope.measured_outside([scope.data.config.probes[number] for number in scope.data.measures(probe)[:1]])


def _differences(scope: Scope, arms: Sequence[str], probed: Sequence[str], played: Sequence[str]) -> list[Level | None]:
    """Return the differences of alignment over the tasks of some splits together, and of success over those of others."""
    found: list[Level | None] = []
    for mode in MODES:
        sides = [
            pooled([_end(alignment_series(scope, scope.cell(one, split), ALIGNED[mode], (mode,))) for split in probed])
            for one in arms
        ]
        found.append(_paired(sides, final_level))
    for mode in MODES:
        sides = [
            pooled([_end(run_series(scope.data, scope.cell(one, split), success(mode))) for split in played]) for one in arms
        ]
        found.append(_paired(sides, final_success))
    return found


def _end(series: CheckpointSeries | None) -> CheckpointSeries | None:
    """Return the last checkpoint of a series."""
    return None if series is None else series.at([len(series.progress) - 1])


def _paired(
    sides: Sequence[CheckpointSeries | None], difference: Callable[[CheckpointSeries, CheckpointSeries], Level]
) -> Level | None:
    """Return the difference of two series at their last checkpoint, of the seeds that both have; None where the checkpoint or
    the tasks are not the same.
    """
    known = [one for one in sides if one is not None]
    if len(known) < 2:
        return None
    series, minus = (one.at([len(one.progress) - 1]) for one in known)
    seeds = [seed for seed in series.seeds if seed in minus.seeds]
    if series.progress != minus.progress or series.tasks != minus.tasks or not seeds:
        return None
    return difference(series.of_seeds(seeds), minus.of_seeds(seeds))
