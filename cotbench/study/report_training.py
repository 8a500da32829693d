"""The sections of a study's report on alignment, success and arms. Invariant: a section gives what was measured, on how much,
and the result; a section without a measurement is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cotbench.paper import SOURCE, paper_success
from cotbench.prompting.elicitation import MODES
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Section, Table
from cotbench.study.comparisons import DIFFERENCES, Quantity
from cotbench.study.data import StudyCell
from cotbench.study.family import family_of
from cotbench.study.figures import Labelled, interval_caption, progress_figure
from cotbench.study.measures import (
    alignment_levels,
    alignment_series,
    consistency_levels,
    gap_levels,
)
from cotbench.study.report_tests import estimate_cells, format_notes, gap_verdict
from cotbench.study.scope import Scope
from cotbench.study.series import Value, run_series, series_levels, success, success_levels

NAMES = {"prompt": "prompt action", "cot": "CoT action"}


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
        "CoT - prompt alignment",
        lambda cell: [
            (arm, "other", found) for arm in scope.arms if (found := gap_levels(scope, scope.cell(arm, cell.split))) is not None
        ],
        scope.cells(scope.main),
        about="CoT alignment minus prompt alignment at the same states.",
        at=0.0,
    )
    items += [figure] if figure else []
    items += _trends(scope)
    notes = format_notes(scope)
    if not items and not notes:
        return None
    return Section(
        "What training does to both actions",
        "If training taught the model to use its reasoning, the CoT action would improve and leave the prompt action behind. "
        "If it taught the model to predict the action from the prompt, both would rise and the gap would stay flat. A gap is "
        "called flat only if every checkpoint's difference from the first one, and the change of the fitted line, lie within a "
        f"margin of {data.config.margin:g} that was set beforehand (two one-sided tests at 5 % each). A series begins at the "
        f"first checkpoint at which at least {data.config.format_kept:g} of the answers keep the format, in the modes "
        f"concerned.{scope.starts_note}{notes}",
        tuple(items),
    )


def _modes(scope: Scope, cell: StudyCell) -> Labelled:
    found = [(NAMES[mode], mode, alignment_levels(scope, cell, mode)) for mode in MODES]
    return [(label, mode, some) for label, mode, some in found if some is not None]


def _trends(scope: Scope) -> list[Table]:
    """Return a table of the changes from the first checkpoint to the last."""
    rows: list[tuple[TableCell, ...]] = []
    units: list[int] = []
    family = family_of(scope.data)
    quantities: tuple[Quantity, ...] = ("prompt alignment", "CoT alignment", "gap")
    for arm in scope.arms:
        for split in scope.splits:
            found = [family.find(scope, split, arm, quantity) for quantity in quantities]
            if not any(one is not None and one.estimate is not None for one in found):
                continue
            gap = gap_levels(scope, scope.cell(arm, split))
            moved = None if gap is None else gap.trend
            flat = None if moved is None else moved.flat_all[moved.over]
            cells = estimate_cells(found)
            verdict = "-" if flat is None else gap_verdict(flat, found[2])
            hull = "" if flat is None or flat.low is None or flat.high is None else f"[{flat.low:+.2f}, {flat.high:+.2f}]"
            rows.append((arm, split, *cells, verdict, hull))
            units += [one.estimate.n for one in found if one is not None and one.estimate is not None]
    if not rows:
        return []
    columns = ("arm", "split", "prompt", "p prompt", "CoT", "p CoT", "gap", "p gap", "gap is", "90 % intervals")
    caption = (
        "Last checkpoint minus first, in alignment; a series begins where its format is kept. p: of no change, adjusted (Holm) "
        f"in the study's claims (*) or in all other tests. The gap is flat where all its differences from the first checkpoint "
        f"lie within {scope.data.config.margin:g}; last column: the outermost ends of their 90 % intervals. "
        f"{interval_caption(scope.data, units, 'Intervals', dots=False, over='both')}"
    )
    signed = frozenset(("prompt", "CoT", "gap"))
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
    if not scope.data.measures("alignment"):
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
    if not rows:
        return None
    columns = ("arm", "split", "training", "states", *(name.replace("->", "→") for name in _REVISIONS), "net benefit")
    caption = (
        "What became of the prompt action when the model reasoned; right: it is the reference action. Net benefit: right after "
        "minus right before, per revised state. " + interval_caption(data, units, "Intervals", dots=False)
    )
    table = Table(scope.slug("revisions"), "Revisions", caption, columns, tuple(rows), frozenset(("net benefit",)))
    text = "Where the two actions agree, the trace did not change what the agent does; where they differ, the trace revised it."
    items = (table,) if figure is None else (figure, table)
    return Section("Does the trace change the action?", text, items)


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
        "log-probability (nats)",
        of,
        scope.cells(scope.main),
        about=f"Arm {scope.main}: mean log-probability of the whole reference action, from the prompt alone and after the "
        "model's own trace.",
    )
    if figure is None:
        return None
    text = "A finer measure than whether the most probable action is the right one: it moves before the choice does."
    return Section("How probable the right action is", text, (figure,))


def success_section(scope: Scope) -> Section | None:
    """Return the section on the success of whole episodes."""
    data = scope.data
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
        else paper_success(None, method, scope.paper_env, str(row[1]), data.config.scheme)
        for row in rows
    ]
    caption = (
        "Success of whole episodes, official verdict. "
        f"{interval_caption(data, units, 'Intervals', dots=False, over='both')}{scope.starts_note}"
    )
    if any(one is not None for one in reported):
        columns = (*columns, "paper: success")
        rows = [(*row, one) for row, one in zip(rows, reported, strict=True)]
        caption += (
            f" The last column is what the paper reports of its own model after that recipe ({SOURCE}); it does not say in "
            "which mode."
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
_ARMS = ("How the arms differ", "Each arm against its baseline, at the end of the training.")


def arms_section(scope: Scope) -> Section | None:
    """Return every arm minus the one that it is compared with, at the end of the training."""
    pairs = [(arm, baseline) for arm in scope.arms if (baseline := scope.baseline(arm)) is not None]
    rows: list[tuple[TableCell, ...]] = []
    units: list[int] = []
    family = family_of(scope.data)
    for arm, baseline in pairs:
        for split in scope.splits:
            found = [family.find(scope, split, arm, quantity, baseline) for quantity in DIFFERENCES]
            if any(one is not None and one.estimate is not None for one in found):
                units += [one.estimate.n for one in found if one is not None and one.estimate is not None]
                rows.append((arm, baseline, split, *estimate_cells(found)))
    if not rows:
        return None
    measured = [place for place, _ in enumerate(DIFFERENCES) if any(row[3 + 2 * place] is not None for row in rows)]
    rows = [(*row[:3], *(cell for place in measured for cell in row[3 + 2 * place : 5 + 2 * place])) for row in rows]
    names = [name for place in measured for name in (DIFFERENCES[place], f"p {DIFFERENCES[place]}")]
    columns: tuple[str, ...] = ("arm", "against", "split", *names)
    signed = frozenset(DIFFERENCES[place] for place in measured)
    baselines = list(dict.fromkeys(str(row[1]) for row in rows))
    if len(baselines) == 1:
        columns, rows = (columns[0], *columns[2:]), [(row[0], *row[2:]) for row in rows]
    what = baselines[0] if len(baselines) == 1 else "its baseline"
    caption = (
        f"Each arm minus {what} at the end of the training, on the same states and tasks, seeds paired. p: of no "
        "difference, adjusted (Holm) in the study's claims (*) or in all other tests. "
        + interval_caption(scope.data, units, "Intervals", dots=False, over="both")
    )
    title = f"Against {what}" if len(baselines) == 1 else "Arms compared"
    table = Table(scope.slug("arms"), title, caption, columns, tuple(rows), signed)
    masks_alone = all(scope.arm(arm).differs_by_masks_alone(scope.arm(baseline)) for arm, baseline in pairs)
    return Section(*(_MASKING if masks_alone else _ARMS), (table,))


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
