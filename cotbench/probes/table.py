"""A probe's summary as a table. Invariant: it is drawn from the summary alone, so table and `probe.json` show one result."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.probes.folder import ProbeSummary
from cotbench.probes.numbers import ProbeNumbers
from cotbench.runs.tables import NO_ELICITATION
from cotbench.stats.formatting import format_estimate

_INTERVALS = "95 % intervals over tasks: cluster bootstrap; an interval of no width means that all tasks gave the same value"
_CURVES_PER_TABLE = 4
"""Curves side by side in one table."""


def probe_table(summary: ProbeSummary) -> RenderableType:
    """Return the summary of a probe as `cotbench probe` prints it."""
    numbers = summary.numbers
    parts: list[RenderableType] = [Text(_title(summary), style="bold")]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(summary.probe, no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for name, estimate in numbers.estimates.items():
        table.add_row(Text(name), Text(format_estimate(estimate, 3)))
    for name, count in numbers.counts.items():
        table.add_row(Text(name), Text(str(count)))
    parts.append(table)
    by_x: dict[tuple[str, tuple[float, ...]], list[str]] = {}
    for name, curve in numbers.curves.items():
        by_x.setdefault((curve.x, curve.at), []).append(name)
    for (x, at), names in by_x.items():
        parts += [
            _curves(numbers, x, at, names[start : start + _CURVES_PER_TABLE])
            for start in range(0, len(names), _CURVES_PER_TABLE)
        ]
    return Group(*parts, *(Text(line) for line in _footer(summary)))


def _curves(numbers: ProbeNumbers, x: str, at: tuple[float, ...], names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(x, justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for place, value in enumerate(at):
        table.add_row(f"{value:g}", *(Text(format_estimate(numbers.curves[name].values[place])) for name in names))
    return table


def _title(summary: ProbeSummary) -> str:
    return f"{summary.probe} of {summary.agent} on {summary.env} {summary.scheme}/{summary.split}, seed {summary.seed}"


def _footer(summary: ProbeSummary) -> list[str]:
    numbers = summary.numbers
    episodes = "successful episodes" if summary.recorded is None else "CoT episodes"
    lines = [f"{numbers.states} states of {numbers.tasks} tasks, of {episodes} of {summary.reference}", _INTERVALS]
    if numbers.tasks == 1:
        lines[-1] = "one task gives no interval"
    lines += numbers.notes
    lines += [f"left out: {count} states ({reason})" for reason, count in numbers.left_out.items()]
    if numbers.errors:
        lines.append(
            f"ERRORS: {numbers.errors} states could not be measured for a reason outside the model and are in no figure"
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
        "in win rate and agreement a split counts half; position bias: verdicts for the action shown first, 0.5 is none",
    ]
    if summary.judge is not None:
        lines.append(f"question {summary.judge['question']}")
    if run.partial:
        lines.append("PARTIAL: games of this split are missing on this machine; not comparable with the whole split")
    if run.episodes < run.tasks:
        lines.append(f"UNFINISHED: the run has {run.episodes} CoT episodes of {run.tasks} tasks so far")
    return lines
