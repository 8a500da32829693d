"""The sections of the probes beyond alignment: conflicting traces, attention and gradients, the judge, sensitivity.

Invariant: that of `report_training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cotbench.envs.registry import env_entry
from cotbench.paper import ATTENTION_SHARE_ON_PROMPT, GRADIENT_SHARES
from cotbench.probes.probe import probe_named
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Section, Table
from cotbench.stats.estimates import Estimate
from cotbench.study.data import StudyCell
from cotbench.study.figures import Labelled, curve_figure, interval_caption, progress_figure
from cotbench.study.scope import Scope
from cotbench.study.series import Value, probe_series, series_levels


def conflict_section(scope: Scope) -> Section | None:
    """Return the section on the action under the trace of another state."""
    data = scope.data
    measures = data.measures("conflict")
    if not measures:
        return None
    measure = measures[0]
    panels = []
    for cell in scope.cells(scope.main):
        lines = []
        for share in data.shares(cell, measure):
            curve = data.numbers(cell, measure, share).curves["kept"]
            lines.append(("before training" if share == 0 else f"after {share:.0%}", curve.at, curve.values))
        panels.append((cell.split, lines))
    over_truncation = curve_figure(
        data,
        scope.slug("conflict"),
        f"Kept under a conflicting trace, {scope.main}",
        ("share of the conflicting trace that is shown", "share of states"),
        panels,
        about=f"Arm {scope.main}: states at which the action stays the model's own although the trace of another state, which "
        "led to another action, stands in place of its own.",
        y_range=(0.0, 1.0),
    )
    over_progress = progress_figure(
        data,
        scope.slug("conflict_kept"),
        "Kept under the whole conflicting trace",
        "share of states",
        lambda cell: _lines(scope, cell, measure, lambda row: row.outcome(len(row.truncations) - 1) == "kept"),
        scope.cells(scope.main),
        about="States at which the action stays the model's own under the whole trace of another state.",
        y_range=(0.0, 1.0),
    )
    items = [one for one in (over_truncation, over_progress) if one is not None]
    if not items:
        return None
    table = _last(scope, measure, "conflict", "Under the whole conflicting trace, at the end of the training", _CONFLICT)
    text = (
        "State 1 has its own trace and action; the trace of another state, which led to another action, is put in its place. "
        "Does the model keep its action (the prompt decides) or follow the foreign trace (the trace decides)?"
    )
    return Section("A conflicting trace", text, (*items, *table))


_CONFLICT = ("kept", "followed", "other", "as prompt action", "kept, consistent", "kept, revised", "empty trace: kept")


def _lines(scope: Scope, cell: StudyCell, measure: int, value: Value) -> Labelled:
    measured = [(arm, probe_series(scope.data, scope.cell(arm, cell.split), measure, value)) for arm in scope.arms]
    return [(arm, "other", series_levels(series)) for arm, series in measured if series is not None]


def _last(scope: Scope, measure: int, name: str, title: str, wanted: Sequence[str] | None = None) -> list[Table]:
    """Return a table of a probe's numbers at its last checkpoint, one row for each arm and split."""
    data = scope.data
    found: list[tuple[str, str, Any]] = []
    for arm in scope.arms:
        for cell in scope.cells(arm):
            shares = data.shares(cell, measure)
            if shares:
                found.append(
                    ("before training" if shares[-1] == 0 else arm, cell.split, data.numbers(cell, measure, shares[-1]))
                )
    if not found:
        return []
    names = list(wanted or found[0][2].estimates)
    names = [one for one in names if any(one in numbers.estimates for _, _, numbers in found)]
    rows: list[tuple[TableCell, ...]] = [
        (arm, split, numbers.states, *(numbers.estimates.get(one) for one in names)) for arm, split, numbers in found
    ]
    units = [numbers.tasks for _, _, numbers in found]
    caption = interval_caption(data, units, "Intervals", dots=False)
    return [Table(scope.slug(name), title, caption, ("arm", "split", "states", *names), tuple(rows))]


def attribution_section(scope: Scope) -> Section | None:
    """Return the section on the shares of the action tokens' attention, and of the gradient of the action's loss, by token
    span.
    """
    items: list[Figure | Table] = []
    for probe, what in (
        ("attention", "Share of the action tokens' attention that lies on the prompt"),
        ("gradient", "Share of the gradient norm of the action's loss, along the value path, that lies on the prompt"),
    ):
        for measure in scope.data.measures(probe)[:1]:
            items += _shares(scope, probe, measure, what)
    if not items:
        return None
    text = (
        "Two looks inside the model: where the action tokens attend, and through which tokens the action's loss reaches the "
        "value vectors. A prompt has many more tokens than a trace, so the ratio per token stands beside the total."
    )
    return Section("Where the action comes from", text, tuple(items))


def _shares(scope: Scope, probe: str, measure: int, what: str) -> list[Figure | Table]:
    data = scope.data
    items: list[Figure | Table] = []
    figure = progress_figure(
        data,
        scope.slug(f"{probe}_progress"),
        f"{probe.capitalize()} on the prompt",
        "share",
        lambda cell: _lines(scope, cell, measure, lambda row: row.prompt),
        scope.cells(scope.main),
        about=f"{what}, all layers and heads.",
        y_range=(0.0, 1.0),
    )
    items += [figure] if figure else []
    panels = []
    for cell in scope.cells(scope.main):
        shares = data.shares(cell, measure)
        lines: list[tuple[str, tuple[float, ...], tuple[Estimate, ...]]] = []
        for share in dict.fromkeys((shares[0], shares[-1])) if shares else ():
            curve = data.numbers(cell, measure, share).curves.get("prompt share")
            if curve is not None:
                lines.append(("before training" if share == 0 else f"after {share:.0%}", curve.at, curve.values))
        panels.append((cell.split, lines))
    by_layer = curve_figure(
        data,
        scope.slug(f"{probe}_layers"),
        f"{probe.capitalize()} on the prompt by layer, {scope.main}",
        ("layer", "share"),
        panels,
        about=f"{what}, by layer. Arm {scope.main}.",
        y_range=(0.0, 1.0),
    )
    items += [by_layer] if by_layer else []
    tables = _last(scope, measure, probe, f"{probe.capitalize()}, at the end of the training")
    return items + [_with_paper(table, probe, scope) for table in tables]


def _with_paper(table: Table, probe: str, scope: Scope) -> Table:
    """Return the table with one more column, the numbers that the paper reports for its models in this environment."""
    shares = [one for one in GRADIENT_SHARES if one.env == env_entry(scope.env).benchmark]
    if probe == "attention":
        name, reported = "paper: prompt share", f"about {ATTENTION_SHARE_ON_PROMPT:.2f}"
    elif shares:
        name, reported = "paper: prompt share of prompt and trace", " / ".join(f"{one.value:.3f}" for one in shares)
    else:
        return table
    rows = tuple((*row, reported) for row in table.rows)
    models = f" ({', '.join(one.model for one in shares)})" if probe == "gradient" else ""
    caption = f"{table.caption} The last column is what the paper reports of its models{models}: not ours, not this model."
    return Table(table.name, table.title, caption, (*table.columns, name), rows, table.signed, frozenset((name,)))


def preference_section(scope: Scope) -> Section | None:
    """Return the section on the preference of a judge between the two actions."""
    tables = [
        table for measure in scope.data.measures("preference")[:1] for table in _last(scope, measure, "preference", _JUDGE)
    ]
    judge = next((one.options.get("judge") for one in scope.data.config.probes if one.probe == "preference"), None)
    if not tables:
        return None
    text = (
        f"Where prompt action and CoT action differ, a judge ({judge}) says which is better, asked in both orders. "
        "Position bias: how often it named the action shown first; 0.5 is none."
    )
    return Section("What a judge prefers", text, tuple(tables))


_JUDGE = "The judge's preference, at the end of the training"


def sensitivity_section(scope: Scope) -> Section | None:
    """Return the section on the response of the action to a changed prompt."""
    tables = [
        table
        for measure in scope.data.measures("sensitivity")[:1]
        for table in _last(scope, measure, "sensitivity", "What a changed prompt changes, at the end of the training")
    ]
    if not tables:
        return None
    text = (
        "The task's sentence, or the last observation, is replaced by that of another state. An action that follows the prompt "
        "changes; one that follows the old trace stays."
    )
    return Section("Does the action follow the prompt?", text, tuple(tables))


def table_section(scope: Scope, name: str) -> Section | None:
    """Return the section of a probe that has none of its own: its numbers at the end of the training."""
    probe = probe_named(name)
    title = f"{name.capitalize()}, at the end of the training"
    tables = [table for measure in scope.data.measures(name)[:1] for table in _last(scope, measure, name, title)]
    return Section(name.capitalize(), f"Probe {name}: {probe.description}.", tuple(tables)) if tables else None
