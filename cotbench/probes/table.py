"""A probe's summary as a table. Invariant: it is drawn from the summary alone, so table and `probe.json` show one result."""

from __future__ import annotations

import re

from rich.console import Group, RenderableType

from cotbench.paragraph import Paragraph, together
from cotbench.probes.folder import ProbeSummary
from cotbench.probes.numbers import ProbeNumbers
from cotbench.runs.tables import NAMES, NO_ELICITATION
from cotbench.stats.formatting import estimate_cell
from cotbench.text_table import TableColumn, TextTable, table_row

_INTERVALS = "95 % intervals over tasks: cluster bootstrap"
_WIDTHLESS = "; an interval of zero width means that all tasks gave the same value"


def probe_table(summary: ProbeSummary, *, verbose: bool = False) -> RenderableType:
    """Return the summary of a probe as `cotbench probe` prints it.

    Args:
        summary: of the probe.
        verbose: list the counts too that are zero.
    """
    numbers = summary.numbers
    zero = [] if verbose else [name for name, count in numbers.counts.items() if count == 0]
    rows = [table_row(_spelled(name), estimate_cell(estimate, 3)) for name, estimate in numbers.estimates.items()]
    rows += [table_row(_spelled(name), str(count)) for name, count in numbers.counts.items() if name not in zero]
    parts: list[RenderableType] = [Paragraph(_title(summary), "bold")]
    if rows:
        parts.append(TextTable((TableColumn(summary.probe, "label"), TableColumn("value")), tuple(rows)))
    if zero:
        parts.append(Paragraph(f"counts that are 0: {', '.join(together(_spelled(name)) for name in zero)}"))
    by_x: dict[tuple[str, tuple[float, ...]], list[str]] = {}
    for name, curve in numbers.curves.items():
        by_x.setdefault((curve.x, curve.at), []).append(name)
    parts += [_curves(numbers, x, at, names) for (x, at), names in by_x.items()]
    return Group(*parts, *map(Paragraph, _footer(summary, verbose=verbose)))


def _curves(numbers: ProbeNumbers, x: str, at: tuple[float, ...], names: list[str]) -> TextTable:
    rows = tuple(
        table_row(f"{value:g}", *(estimate_cell(numbers.curves[name].values[place]) for name in names))
        for place, value in enumerate(at)
    )
    return TextTable((TableColumn(x), *(TableColumn(_spelled(name)) for name in names)), rows, narrow="columns")


def _spelled(name: str) -> str:
    """Return the name of a number with the mode's name as tables spell it."""
    return re.sub(r"\bcot\b", NAMES["cot"], name)


def _title(summary: ProbeSummary) -> str:
    return f"{summary.probe} of {summary.agent} on {summary.env} {summary.scheme}/{summary.split}, seed {summary.seed}"


def _footer(summary: ProbeSummary, *, verbose: bool) -> list[str]:
    numbers = summary.numbers
    episodes = "successful episodes" if summary.recorded is None else "CoT episodes"
    lines = [f"{numbers.states} states of {numbers.tasks} tasks, of {episodes} of {summary.reference}"]
    lines.append(_INTERVALS + (_WIDTHLESS if verbose else ""))
    if numbers.tasks == 1:
        lines[-1] = "only one task: no intervals"
    lines += numbers.notes
    lines += [f"left out: {count} states ({reason})" for reason, count in numbers.left_out.items()]
    if numbers.errors:
        lines.append(
            f"ERRORS: {numbers.errors} states could not be measured for a reason outside the model and are excluded from all "
            "statistics"
        )
    lines += _run_lines(summary)
    options = ", ".join(f"{name} {value}" for name, value in summary.options.items() if value is not None)
    elicitation = f"elicitation {summary.elicitation}" if summary.uses_elicitation else NO_ELICITATION
    lines.append(elicitation + (f"; {options}" if options else ""))
    return lines


def _run_lines(summary: ProbeSummary) -> list[str]:
    """Return the lines on the recorded run whose own answers were measured; none for another measurement."""
    run, numbers = summary.recorded, summary.numbers
    if run is None:
        return []
    measured = numbers.states + numbers.errors
    lines = [
        f"the trace changed the action at {run.revised} of {run.compared} states; "
        f"judged: {'all' if measured == run.revised else measured} of them",
        "a split verdict counts half; position bias: share of verdicts for the action shown first, 0.5 means no bias",
    ]
    if summary.judge is not None:
        lines.append(f"question {summary.judge['question']}")
    if run.partial:
        lines.append("PARTIAL: games of this split are missing on this machine: not comparable with results on the whole split")
    if run.episodes < run.tasks:
        lines.append(f"UNFINISHED: the run has {run.episodes} CoT episodes of {run.tasks} tasks so far")
    return lines
