"""What a study compares: alignment, gap, consistency, conflicts and success, of an arm or between arms. Invariant: the figures,
the tables, the sentences and the tests of a report take their numbers from here, each series from where its format is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.stats.trend import CheckpointSeries, Level
from cotbench.study.data import StudyCell
from cotbench.study.format_gate import SeriesStart, begun, series_start
from cotbench.study.scope import Scope
from cotbench.study.series import (
    SeriesLevels,
    Value,
    final_level,
    final_success,
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


def conflict_kept(row: Any) -> bool:
    """Return whether the action stays the model's own under the whole conflicting trace."""
    return bool(row.outcome(len(row.truncations) - 1) == "kept")


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
    measures = scope.data.measures("conflict")
    series = probe_series(scope.data, cell, measures[0], conflict_kept) if measures else None
    return _levels(scope, begun(series, start_of(scope, cell, ("cot",))))


def _levels(scope: Scope, series: CheckpointSeries | None) -> SeriesLevels | None:
    return None if series is None else series_levels(series, margin=scope.data.config.margin)


def arm_differences(scope: Scope, arm: str, baseline: str, split: str) -> list[Level | None]:
    """Return an arm minus another at the end of the training: prompt alignment, CoT alignment, prompt success, CoT success.

    None where it was not measured, or where an arm never keeps the format.
    """
    cells = [scope.cell(one, split) for one in (arm, baseline)]
    found: list[Level | None] = []
    for mode in MODES:
        found.append(_paired([alignment_series(scope, cell, ALIGNED[mode], (mode,)) for cell in cells], final_level))
    for mode in MODES:
        found.append(_paired([run_series(scope.data, cell, success(mode)) for cell in cells], final_success))
    return found


def _paired(
    sides: Sequence[CheckpointSeries | None], difference: Callable[[CheckpointSeries, CheckpointSeries], Level]
) -> Level | None:
    """Return the difference of two series at their last checkpoint; None where it or the tasks are not the same."""
    if any(one is None for one in sides):
        return None
    series, minus = (_last(one) for one in sides if one is not None)
    if series.progress != minus.progress or len(series.totals[0][0]) != len(minus.totals[0][0]):
        return None
    return difference(series, minus)


def _last(series: CheckpointSeries) -> CheckpointSeries:
    return CheckpointSeries(series.progress[-1:], [row[-1:] for row in series.totals], [row[-1:] for row in series.counts])
