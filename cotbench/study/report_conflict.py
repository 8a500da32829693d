"""The section of probe `conflict`: the action under the trace of another state. Invariant: that of `report_training`."""

from __future__ import annotations

from cotbench.probes.conflict import headline_index
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Line, Panel, Section, Table
from cotbench.study.figures import interval_caption, progress_figure
from cotbench.study.report_probes import arm_lines, last_numbers, last_table
from cotbench.study.scope import Scope


def conflict_headline(scope: Scope, measure: int) -> str:
    """Return the share of the conflicting trace that the headline number is at, in percent: "50 %"."""
    return _percent(_truncations(scope, measure)[0])


def _truncations(scope: Scope, measure: int) -> tuple[float, float]:
    """Return the truncation of the headline, and the longest."""
    data = scope.data
    rows = (
        row
        for arm in scope.arms
        for cell in scope.cells(arm)
        for share in data.shares(cell, measure)
        for row in data.rows(cell, measure, share)
        if row.truncations
    )
    cuts = next(rows).truncations
    return cuts[headline_index(cuts)], cuts[-1]


def conflict_section(scope: Scope) -> Section | None:
    """Return the section on the action under the trace of another state."""
    measure = next((one for one in scope.data.measures("conflict") if last_numbers(scope, one)), None)
    if measure is None:
        return None
    title = "A conflicting trace"
    if not any(numbers.states for *_, numbers in last_numbers(scope, measure)):
        text = "No state was measured: none has a trace of its own and another state whose trace can be given to it."
        return Section(title, text, tuple(_donors_table(scope, measure)))
    headline, whole = _truncations(scope, measure)
    cuts = {"conflict": headline} | ({"conflict_whole": whole} if whole != headline else {})
    figures = [_cuts_figure(scope, measure), *(_kept_figure(scope, measure, name, share) for name, share in cuts.items())]
    items = [one for one in figures if one is not None]
    outcomes = ("kept", "followed", "other", "as prompt action", "kept, consistent", "kept, revised")
    tables: list[Table] = []
    for name, share in cuts.items():
        heading = f"Under {_percent(share)} of the conflicting trace, at the end of the training"
        tables += last_table(scope, measure, name, heading, [f"{outcome} at {share:g}" for outcome in outcomes])
    heading = "Without the last sentence, and without a trace, at the end of the training"
    tables += last_table(scope, measure, "conflict_cut", heading, _CUT)
    text = (
        "A state has its own trace and action; the trace of another state, which led to another action, is put in its place. "
        "Does the model keep its action (the prompt decides) or follow the foreign trace (the trace decides)? The foreign "
        "action can be executed at the state, where the environment lists what can be. A whole trace may spell its action, so "
        f"the headline is at {_percent(headline)} of its words, and the trace without its last sentence stands beside it."
    )
    return Section(title, text, (*items, *tables, *_donors_table(scope, measure)))


_CUT = (
    "last sentence cut: kept",
    "last sentence cut: followed",
    "own trace, last sentence cut: kept",
    "empty trace: kept",
    "empty trace: as prompt action",
)


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _cuts_figure(scope: Scope, measure: int) -> Figure | None:
    """Return the figure of the action under the foreign and the own trace, by how much of it is given."""
    data = scope.data
    panels = []
    for cell in scope.cells(scope.main):
        shares = data.shares(cell, measure)
        found = [(share, data.numbers(cell, measure, share)) for share in dict.fromkeys((*shares[:1], *shares[-1:]))]
        for whose, curve, cut in (
            ("another state's trace", "kept", "last sentence cut: kept"),
            ("its own trace", "own trace: kept", "own trace, last sentence cut: kept"),
        ):
            lines, labels = [], list[str]()
            for share, numbers in found:
                levels = dict(zip(numbers.curves[curve].at, numbers.curves[curve].values, strict=True))
                bars = [(_percent(at), level) for at, level in levels.items() if at < 1]
                bars += [("last sentence cut", numbers.estimates[cut])]
                bars += [(_percent(at), level) for at, level in levels.items() if at == 1]
                labels = [label for label, _ in bars]
                drawn = [(float(place), level) for place, (_, level) in enumerate(bars) if level.mean is not None]
                name = "before training" if share == 0 else f"after {share:.0%}"
                if drawn:
                    lines.append(Line(name, tuple(x for x, _ in drawn), tuple(y for _, y in drawn), "checkpoint"))
            if lines:
                panels.append(Panel(f"{cell.split}: {whose}", tuple(lines), labels=tuple(labels)))
    if not panels:
        return None
    units = [estimate.n for panel in panels for line in panel.lines for estimate in line.y]
    caption = (
        f"Arm {scope.main}: states at which the action stays the model's own, under the trace of another state that led to "
        "another action, and under its own trace, by how much of the words is given. Last sentence cut: of the traces with "
        "more than one. "
        f"{interval_caption(data, units, 'Whiskers', dots=False)}"
    )
    return Figure(
        scope.slug("conflict"),
        f"Kept under a cut trace, {scope.main}",
        caption,
        "share of the trace that is given",
        "share of states",
        tuple(panels),
        (0.0, 1.0),
    )


def _kept_figure(scope: Scope, measure: int, name: str, truncation: float) -> Figure | None:
    """Return the figure of keeping one's action at a truncation of the foreign trace, over the progress of the training."""
    return progress_figure(
        scope.data,
        scope.slug(f"{name}_kept"),
        f"Kept under {_percent(truncation)} of the conflicting trace",
        "share of states",
        lambda cell: arm_lines(scope, cell, measure, lambda row: row.outcome(row.truncations.index(truncation)) == "kept"),
        scope.cells(scope.main),
        about=f"States at which the action stays the model's own under {_percent(truncation)} of the trace of another state.",
        y_range=(0.0, 1.0),
    )


def _donors_table(scope: Scope, measure: int) -> list[Table]:
    """Return the table of where the foreign traces are from, and of the states that found none."""
    found = last_numbers(scope, measure)
    counted = (
        "donor's action admissible",
        "donor's action not checked",
        "donor of the same task",
        "donor of the same task type",
        "donor's trace of one sentence",
        "own trace of one sentence",
    )
    reasons = list(dict.fromkeys(reason for _, _, numbers in found for reason in numbers.left_out))
    rows: list[tuple[TableCell, ...]] = [
        (
            *(arm, split, numbers.states),
            *(numbers.counts.get(name, 0) for name in counted),
            *(numbers.left_out.get(reason, 0) for reason in reasons),
        )
        for arm, split, numbers in found
    ]
    notes = " ".join(f"{note[0].upper()}{note[1:]}." for note in dict.fromkeys(note for *_, one in found for note in one.notes))
    columns = ("arm", "split", "states", *counted, *(f"left out: {reason}" for reason in reasons))
    caption = f"Numbers of states, of all seeds together. {notes}".strip()
    return [Table(scope.slug("conflict_donors"), "Where the conflicting traces are from", caption, columns, tuple(rows))]
