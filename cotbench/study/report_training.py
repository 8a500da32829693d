"""The sections of a study's report on alignment, success and arms. Invariant: a section gives what was measured, on how much,
and the result; a section without a measurement is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cotbench.envs.registry import env_entry
from cotbench.paper import SOURCE, paper_success
from cotbench.prompting.elicitation import MODES
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Section, Table
from cotbench.stats.estimates import Estimate
from cotbench.stats.trend import CheckpointSeries
from cotbench.study.data import StudyCell
from cotbench.study.figures import Labelled, interval_caption, progress_figure
from cotbench.study.scope import Scope
from cotbench.study.series import (
    SeriesLevels,
    Value,
    final_level,
    probe_series,
    run_series,
    series_levels,
    success,
    success_levels,
)

NAMES = {"prompt": "prompt action", "cot": "CoT action"}
_PROMPT: Value = lambda row: row.prompt_match  # noqa: E731
_COT: Value = lambda row: row.cot_match  # noqa: E731
_SAME: Value = lambda row: not row.revised  # noqa: E731


def alignment_series(scope: Scope, cell: StudyCell, value: Value) -> CheckpointSeries | None:
    """Return the series of a value over the rows of the first probe `alignment`; None where there is none.

    Args:
        scope: one model in one environment.
        cell: arm and split.
        value: of a row.
    """
    measures = scope.data.measures("alignment")
    return probe_series(scope.data, cell, measures[0], value) if measures else None


def gap_levels(scope: Scope, cell: StudyCell) -> SeriesLevels | None:
    """Return CoT alignment minus prompt alignment, with the study's margin."""
    cot, prompt = alignment_series(scope, cell, _COT), alignment_series(scope, cell, _PROMPT)
    return None if cot is None or prompt is None else series_levels(cot, prompt, scope.data.config.margin)


def alignment_levels(scope: Scope, cell: StudyCell, mode: str) -> SeriesLevels | None:
    """Return the alignment of one mode's action with the reference."""
    series = alignment_series(scope, cell, _PROMPT if mode == "prompt" else _COT)
    return None if series is None else series_levels(series)


def consistency_levels(scope: Scope, cell: StudyCell) -> SeriesLevels | None:
    """Return the share of states with prompt action = CoT action."""
    series = alignment_series(scope, cell, _SAME)
    return None if series is None else series_levels(series)


def training_section(scope: Scope) -> Section | None:
    """Return the section on the change of both actions' alignment with the reference, and of the gap between them."""
    data = scope.data
    items: list[Figure | Table] = []
    for arm in scope.arms:
        figure = progress_figure(
            data,
            scope.slug(f"alignment_{arm}"),
            f"Alignment with the reference action, {arm}",
            "share of states",
            lambda cell: _modes(scope, cell),
            scope.cells(arm),
            about=f"Arm {arm}: states of the reference's episodes at which the prompt action, and the CoT action, is the "
            "reference's.",
            y_range=(0.0, 1.0),
        )
        items += [figure] if figure else []
    figure = progress_figure(
        data,
        scope.slug("gap"),
        "The gap: CoT minus prompt",
        "difference in alignment",
        lambda cell: [
            (arm, "gap" if arm == scope.main else "other", found)
            for arm in scope.arms
            if (found := gap_levels(scope, scope.cell(arm, cell.split))) is not None
        ],
        scope.cells(scope.main),
        about="CoT alignment minus prompt alignment at the same states.",
        at=0.0,
    )
    if figure is None:
        return None
    items += [figure, *_trends(scope)]
    return Section(
        "What training does to both actions",
        "If training taught the model to use its reasoning, the CoT action would improve and leave the prompt action behind. "
        "If it taught the model to guess the action from the prompt, both would rise and the gap would stay flat. Flat is said "
        f"only where the change over the training lies within a margin of {data.config.margin:g} that was set beforehand "
        "(two one-sided tests at 5 %).",
        tuple(items),
    )


def _modes(scope: Scope, cell: StudyCell) -> Labelled:
    found = [(NAMES[mode], mode, alignment_levels(scope, cell, mode)) for mode in MODES]
    return [(label, mode, some) for label, mode, some in found if some is not None]


def _trends(scope: Scope) -> list[Table]:
    """Return a table of the changes from the first checkpoint to the last."""
    rows: list[tuple[TableCell, ...]] = []
    units: list[int] = []
    for arm in scope.arms:
        for cell in scope.cells(arm):
            gap = gap_levels(scope, cell)
            prompt, cot = (alignment_levels(scope, cell, mode) for mode in MODES)
            if gap is None or gap.trend is None or prompt is None or cot is None or prompt.trend is None or cot.trend is None:
                continue
            moved = gap.trend
            several = "both" in moved.change
            flat = moved.flat_change["both" if several else "tasks"]
            rows.append(
                (
                    arm,
                    cell.split,
                    prompt.trend.change["tasks"],
                    cot.trend.change["tasks"],
                    moved.change["tasks"],
                    moved.change["both"] if several else None,
                    {"equivalent": "flat", "different": "changes", "undecided": "undecided"}[flat.verdict],
                    "" if flat.low is None or flat.high is None else f"[{flat.low:+.2f}, {flat.high:+.2f}]",
                )
            )
            units.append(gap.over_tasks[-1].n)
    if not rows:
        return []
    columns = ("arm", "split", "prompt", "CoT", "gap", "gap, tasks and seeds", "gap is", "90 % interval")
    caption = (
        "Last checkpoint minus first, in alignment. The verdict on the gap is over tasks and seeds where there are several "
        f"seeds, else over tasks; margin {scope.data.config.margin:g}. "
        f"{interval_caption(scope.data, units, 'Intervals', dots=False)}"
    )
    signed = frozenset(("prompt", "CoT", "gap", "gap, tasks and seeds"))
    return [Table(scope.slug("changes"), "Change over the training", caption, columns, tuple(rows), signed)]


def revisions_section(scope: Scope) -> Section | None:
    """Return the section on how often the trace changes the action, and whether the change is an improvement."""
    figure = progress_figure(
        scope.data,
        scope.slug("consistency"),
        "Consistency",
        "share of states",
        lambda cell: [
            (arm, "other", found)
            for arm in scope.arms
            if (found := consistency_levels(scope, scope.cell(arm, cell.split))) is not None
        ],
        scope.cells(scope.main),
        about="States at which the prompt action equals the CoT action.",
        y_range=(0.0, 1.0),
    )
    if figure is None:
        return None
    data, measure = scope.data, scope.data.measures("alignment")[0]
    rows: list[tuple[TableCell, ...]] = []
    units = []
    for arm in scope.arms:
        for cell in scope.cells(arm):
            shares = data.shares(cell, measure)
            if not shares:
                continue
            for share in dict.fromkeys((shares[0], shares[-1])):
                label = scope.start_label(arm) if share == 0 else arm
                if label is None:
                    continue
                found = data.numbers(cell, measure, share)
                units.append(found.tasks)
                cells = [found.counts[name] for name in _REVISIONS]
                net = found.estimates["net benefit of revisions"]
                rows.append((label, cell.split, f"{share:.0%}", found.states, *cells, net))
    columns = ("arm", "split", "training", "states", *(name.replace("->", "→") for name in _REVISIONS), "net benefit")
    caption = (
        "What became of the prompt action when the model reasoned; right: it is the reference action. Net benefit: right after "
        "minus right before, per revised state. " + interval_caption(data, units, "Intervals", dots=False)
    )
    table = Table(scope.slug("revisions"), "Revisions", caption, columns, tuple(rows), frozenset(("net benefit",)))
    text = "Where the two actions agree, the trace did not change what the agent does; where they differ, it was a revision."
    return Section("Does the trace change the action?", text, (figure, table))


_REVISIONS = ("right -> right", "wrong -> right", "right -> wrong", "wrong -> wrong, same", "wrong -> wrong, other")


def log_probability_section(scope: Scope) -> Section | None:
    """Return the section on the log-probability of the reference action without and with the trace."""

    def of(cell: StudyCell) -> Labelled:
        values: tuple[tuple[str, Any, Value], ...] = (
            (NAMES["prompt"], "prompt", lambda row: row.prompt_logprob),
            (NAMES["cot"], "cot", lambda row: row.cot_logprob),
        )
        measured = [(label, series, alignment_series(scope, cell, value)) for label, series, value in values]
        return [(label, series, series_levels(found)) for label, series, found in measured if found is not None]

    figure = progress_figure(
        scope.data,
        scope.slug("log_probability"),
        f"Log-probability of the reference action, {scope.main}",
        "nats",
        of,
        scope.cells(scope.main),
        about=f"Arm {scope.main}: mean log-probability of the whole reference action, from the prompt alone and after the "
        "model's own trace.",
    )
    if figure is None:
        return None
    text = "A finer measure than whether the most probable action is the right one: it moves before the choice does."
    return Section("How probable the right action is", text, (figure,))


_ONE_OUTCOME = "Where each task has one outcome (one seed, or seeds that agree), intervals are Wilson's and Newcombe's."


def success_section(scope: Scope) -> Section | None:
    """Return the section on the success of whole episodes."""
    data, entry = scope.data, env_entry(scope.env)
    rows: list[tuple[TableCell, ...]] = []
    units = []
    for arm in scope.arms:
        for cell in scope.cells(arm):
            prompt, cot = (run_series(data, cell, success(mode)) for mode in MODES)
            if prompt is None or cot is None:
                continue
            sides = success_levels(prompt), success_levels(cot), success_levels(cot, prompt)
            for place, share in enumerate(prompt.progress):
                label = scope.start_label(arm) if share == 0 else arm
                if label is None:
                    continue
                estimates = [side[place] for side in sides]
                units.append(estimates[0].n)
                rows.append((label, cell.split, f"{share:.0%}", *estimates))
    if not rows:
        return None
    columns: tuple[str, ...] = ("arm", "split", "training", "prompt", "CoT", "CoT - prompt")
    rows_of_paper = {arm: scope.arm(arm).paper_row for arm in scope.arms}
    reported = [
        None
        if (method := rows_of_paper.get(str(row[0]))) is None
        else paper_success(None, method, entry.benchmark, str(row[1]), data.config.scheme)
        for row in rows
    ]
    caption = (
        f"Success of whole episodes, official verdict. {_ONE_OUTCOME} {interval_caption(data, units, 'Intervals', dots=False)}"
    )
    if any(one is not None for one in reported):
        columns = (*columns, "paper: success")
        rows = [(*row, one) for row, one in zip(rows, reported, strict=True)]
        games = "" if entry.official else f", and it played {env_entry(entry.benchmark).title}'s own games"
        caption += (
            f" The last column is what the paper reports of its own model after that recipe ({SOURCE}); it does not say in "
            f"which mode{games}."
        )
    signed, paper_columns = frozenset(("CoT - prompt",)), frozenset(columns[6:])
    table = Table(scope.slug("success"), "Success", caption, columns, tuple(rows), signed, paper_columns)
    return Section(
        "Playing whole episodes",
        "The same question online: the agent plays unseen tasks, once acting straight from the prompt, once reasoning first.",
        (table,),
    )


_MASKING = (
    "Does masking actions help?",
    "Reduced action supervision leaves the action tokens of some examples out of the loss. "
    "Does it help where it was meant to, out of domain?",
)
_ARMS = ("What the arms differ in", "Each way to train against the one that it is compared with, at the end of the training.")


def arms_section(scope: Scope) -> Section | None:
    """Return every arm minus the one that it is compared with, at the end of the training."""
    pairs = [(arm, baseline) for arm in scope.arms if (baseline := scope.baseline(arm)) is not None]
    rows: list[tuple[TableCell, ...]] = []
    units: list[int] = []
    for arm, baseline in pairs:
        for split in scope.splits:
            differences = arm_differences(scope, arm, baseline, split)
            if any(one is not None for one in differences):
                units += [one.n for one in differences if one is not None]
                rows.append((arm, baseline, split, *differences))
    if not rows:
        return None
    columns: tuple[str, ...] = ("arm", "against", "split", "prompt alignment", "CoT alignment", "prompt success", "CoT success")
    signed = frozenset(columns[3:])
    baselines = list(dict.fromkeys(str(row[1]) for row in rows))
    if len(baselines) == 1:
        columns, rows = (columns[0], *columns[2:]), [(row[0], *row[2:]) for row in rows]
    what = baselines[0] if len(baselines) == 1 else "the arm that it is compared with"
    caption = (
        f"Each arm minus {what} at the end of the training, on the same states and tasks, seeds paired. {_ONE_OUTCOME} "
        + interval_caption(scope.data, units, "Intervals", dots=False)
    )
    title = f"Against {what}" if len(baselines) == 1 else "Arms compared"
    table = Table(scope.slug("arms"), title, caption, columns, tuple(rows), signed)
    masks_alone = all(scope.arm(arm).differs_by_masks_alone(scope.arm(baseline)) for arm, baseline in pairs)
    return Section(*(_MASKING if masks_alone else _ARMS), (table,))


def arm_differences(scope: Scope, arm: str, baseline: str, split: str) -> list[Estimate | None]:
    """Return an arm minus another: prompt alignment, CoT alignment, prompt success, CoT success; None where not measured."""
    found: list[Estimate | None] = []
    for value in (_PROMPT, _COT):
        sides = [alignment_series(scope, scope.cell(one, split), value) for one in (arm, baseline)]
        found.append(_paired(sides, final_level))
    for mode in MODES:
        sides = [run_series(scope.data, scope.cell(one, split), success(mode)) for one in (arm, baseline)]
        found.append(_paired(sides, lambda series, minus: success_levels(series, minus)[-1]))
    return found


def _paired(
    sides: Sequence[CheckpointSeries | None], difference: Callable[[CheckpointSeries, CheckpointSeries], Estimate]
) -> Estimate | None:
    """Return the difference of two series of the same checkpoints and tasks; None where they differ in these."""
    series, minus = sides
    if series is None or minus is None or series.progress != minus.progress:
        return None
    if len(series.totals[0][0]) != len(minus.totals[0][0]):
        return None
    return difference(series, minus)


def all_sections(scopes: Sequence[Scope], makers: Sequence[Any]) -> list[Section]:
    """Return the sections that have content, with the scope in their titles where there are several scopes.

    Args:
        scopes: the models and environments of the study.
        makers: functions from a scope to a section or None.
    """
    sections = []
    for scope in scopes:
        for make in makers:
            section = make(scope)
            if section is not None:
                title = section.title if len(scopes) == 1 else f"{section.title} ({scope.model}, {scope.env})"
                sections.append(Section(title, section.text, section.items))
    return sections
