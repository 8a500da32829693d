"""The sections of the probes beyond alignment and conflict: attention and gradients, the judge, sensitivity.

Invariant: that of `report_training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cotbench.judge.gate import GATE
from cotbench.paper import ATTENTION_SHARE_ON_PROMPT, GRADIENT_SHARES
from cotbench.probes.attention import WITHOUT_FIRST
from cotbench.probes.gradient import DIRECT
from cotbench.probes.numbers import ProbeNumbers
from cotbench.probes.probe import probe_named
from cotbench.probes.token_spans import UNIFORM
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Line, Section, Table
from cotbench.study.data import StudyCell
from cotbench.study.figures import Labelled, curve_figure, interval_caption, progress_figure
from cotbench.study.scope import Scope
from cotbench.study.series import Value, probe_series, series_levels


def arm_lines(scope: Scope, cell: StudyCell, measure: int, value: Value) -> Labelled:
    """Return a line for each arm: a value over the rows of a probe on the split of a cell."""
    measured = [(arm, probe_series(scope.data, scope.cell(arm, cell.split), measure, value)) for arm in scope.arms]
    return [(arm, "other", series_levels(series)) for arm, series in measured if series is not None]


def last_numbers(scope: Scope, measure: int) -> list[tuple[str, str, ProbeNumbers]]:
    """Return the numbers of a probe at its last checkpoint, with arm and split; the model before training once, where it is all
    that was measured.
    """
    data = scope.data
    found = []
    for arm in scope.arms:
        for cell in scope.cells(arm):
            shares = data.shares(cell, measure)
            label = None if not shares else scope.start_label(arm) if shares[-1] == 0 else arm
            if label is not None:
                found.append((label, cell.split, data.numbers(cell, measure, shares[-1])))
    return found


def last_table(scope: Scope, measure: int, name: str, title: str, wanted: Sequence[str] | None = None) -> list[Table]:
    """Return a table of a probe's numbers at its last checkpoint, one row for each arm and split."""
    found = last_numbers(scope, measure)
    if not found:
        return []
    names = list(wanted or found[0][2].estimates)
    names = [one for one in names if any(one in numbers.estimates for _, _, numbers in found)]
    rows: list[tuple[TableCell, ...]] = [
        (arm, split, numbers.states, *(numbers.estimates.get(one) for one in names)) for arm, split, numbers in found
    ]
    units = [numbers.tasks for _, _, numbers in found]
    caption = interval_caption(scope.data, units, "Intervals", dots=False)
    return [Table(scope.slug(name), title, caption, ("arm", "split", "states", *names), tuple(rows))]


def attribution_section(scope: Scope) -> Section | None:
    """Return the section on the shares of the action tokens' attention, and of the gradient of the action's loss, by token
    span.
    """
    items: list[Figure | Table] = []
    for probe, what, second in (
        (
            "attention",
            "Share of the action tokens' attention that lies on the prompt",
            _Variant(WITHOUT_FIRST, f"prompt share {WITHOUT_FIRST}", lambda row: row.prompt_without_first),
        ),
        (
            "gradient",
            "Share of the gradient norm of the action's loss by the value vectors that lies on the prompt",
            _Variant(DIRECT, f"{DIRECT}: prompt share", lambda row: row.direct_prompt),
        ),
    ):
        for measure in scope.data.measures(probe)[:1]:
            items += _shares(scope, probe, measure, what, second)
    if not items:
        return None
    text = (
        "Two looks inside the model: where the action tokens attend, and through which tokens' value vectors the action's "
        "loss can be changed. A prompt has many more tokens than a trace, so beside each share stands what it would be if "
        "every token had the same (uniform per token), and the ratio per token. Many models put much of their attention on the "
        "first token (an attention sink), which is part of the prompt: the shares without it stand beside the others. The "
        "whole derivative by a prompt token's values also counts what the trace has read from it; along the direct path, only "
        "what the action's own positions read from it counts."
    )
    return Section("Where the action comes from", text, tuple(items))


@dataclass(frozen=True, slots=True)
class _Variant:
    """A second form of a share of the prompt: its label, the name of its curve, and its value in a row."""

    label: str
    curve: str
    value: Value


def _shares(scope: Scope, probe: str, measure: int, what: str, variant: _Variant) -> list[Figure | Table]:
    data = scope.data
    items: list[Figure | Table] = []
    axis = "share of attention" if probe == "attention" else "share of the gradient norm"

    def lines_over_progress(cell: StudyCell) -> Labelled:
        main = [one for one in arm_lines(scope, cell, measure, variant.value) if one[0] == scope.main]
        uniform = arm_lines(scope, cell, measure, lambda row: row.prompt_tokens / row.tokens)[:1]
        return [
            *arm_lines(scope, cell, measure, lambda row: row.prompt),
            *((f"{one[0]}, {variant.label}", one[1], one[2], one[0]) for one in main),
            *((UNIFORM, "neutral", one[2]) for one in uniform),
        ]

    figure = progress_figure(
        data,
        scope.slug(f"{probe}_progress"),
        f"{probe.capitalize()} on the prompt",
        axis,
        lines_over_progress,
        scope.cells(scope.main),
        about=f"{what}, all layers and heads.",
        y_range=(0.0, 1.0),
    )
    items += [figure] if figure else []
    panels = []
    for cell in scope.cells(scope.main):
        shares = data.shares(cell, measure)
        lines: list[Line] = []
        for share in dict.fromkeys((shares[0], shares[-1])) if shares else ():
            curves = data.numbers(cell, measure, share).curves
            when = "before training" if share == 0 else f"after {share:.0%}"
            for name, label in (("prompt share", when), (variant.curve, f"{when}, {variant.label}")):
                if name in curves:
                    lines.append(Line(label, curves[name].at, curves[name].values, "checkpoint", group=when))
        panels.append((cell.split, lines))
    by_layer = curve_figure(
        data,
        scope.slug(f"{probe}_layers"),
        f"{probe.capitalize()} on the prompt by layer, {scope.main}",
        ("layer", axis),
        panels,
        about=f"{what}, by layer. Arm {scope.main}.",
        y_range=(0.0, 1.0),
    )
    items += [by_layer] if by_layer else []
    tables = last_table(scope, measure, probe, f"{probe.capitalize()}, at the end of the training")
    return items + [_with_paper(table, probe, scope) for table in tables]


def _with_paper(table: Table, probe: str, scope: Scope) -> Table:
    """Return the table with one more column, the numbers that the paper reports for its models in this environment."""
    shares = [one for one in GRADIENT_SHARES if one.env == scope.paper_env]
    if probe == "attention" and scope.paper_env:
        name, reported = "paper: prompt share", f"about {ATTENTION_SHARE_ON_PROMPT:.2f}"
    elif probe == "gradient" and shares:
        name, reported = "paper: prompt share of prompt and trace", " / ".join(f"{one.value:.3f}" for one in shares)
    else:
        return table
    rows = tuple((*row, reported) for row in table.rows)
    models = f" ({', '.join(one.model for one in shares)})" if probe == "gradient" else ""
    caption = f"{table.caption} The last column is what the paper reports of its models{models}: not ours, not this model."
    return Table(table.name, table.title, caption, (*table.columns, name), rows, table.signed, frozenset((name,)))


def preference_section(scope: Scope) -> Section | None:
    """Return the section on the preference of a judge between the two actions."""
    data = scope.data
    judge = next((one.options.get("judge") for one in data.config.probes if one.probe == "preference"), None)
    tables = []
    for measure in data.measures("preference")[:1]:
        gates = [numbers.notes[0] if numbers.notes else "nothing was judged" for *_, numbers in last_numbers(scope, measure)]
        for table in last_table(scope, measure, "preference", _JUDGE):
            rows = tuple((*row[:3], gate, *row[3:]) for row, gate in zip(table.rows, gates, strict=True))
            tables.append(replace(table, columns=(*table.columns[:3], "gate", *table.columns[3:]), rows=rows))
    if not tables:
        return None
    text = (
        f"Where prompt action and CoT action differ, a judge ({judge}) says which is better, asked in both orders. "
        "Position bias: how often it named the action shown first; 0.5 is none. Its preference counts only where it passes the "
        f"gate: {GATE}. The preference of a judge that does not pass is no evidence about the actions."
    )
    return Section("What a judge prefers", text, tuple(tables))


_JUDGE = "The judge's preference, at the end of the training"


def sensitivity_section(scope: Scope) -> Section | None:
    """Return the section on the response of the action to a changed prompt."""
    tables = [
        table
        for measure in scope.data.measures("sensitivity")[:1]
        for table in last_table(scope, measure, "sensitivity", "What a changed prompt changes, at the end of the training")
    ]
    if not tables:
        return None
    text = (
        "The task's sentence, or the last observation, is replaced by that of another state. An action that follows the prompt "
        "changes; one that follows the old trace stays. The observation is one after which the reference took an action that "
        "can be executed here, where the environment lists what can be."
    )
    return Section("Does the action follow the prompt?", text, tuple(tables))


def table_section(scope: Scope, name: str) -> Section | None:
    """Return the section of a probe that has none of its own: its numbers at the end of the training."""
    probe = probe_named(name)
    title = f"{name.capitalize()}, at the end of the training"
    tables = [table for measure in scope.data.measures(name)[:1] for table in last_table(scope, measure, name, title)]
    return Section(name.capitalize(), f"Probe {name}: {probe.description}.", tuple(tables)) if tables else None
