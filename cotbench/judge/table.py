"""A judge's summary as a table. Invariant: drawn from the summary alone, so programs and people see one result."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.judge.folder import JudgeSummary
from cotbench.stats.formatting import format_estimate

_INTERVALS = "95 % intervals over tasks: cluster bootstrap; an interval of no width means that all tasks gave the same value"


def judge_table(summary: JudgeSummary) -> RenderableType:
    """What `cotbench judge` prints at its end."""
    found = summary.preference
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("judge", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("of", justify="right", no_wrap=True)
    states = f"{found.states} states"
    when = " in both orders" if summary.both_orders else ""
    rows = [
        (f"CoT action preferred{when}", str(found.cot), states),
        (f"prompt action preferred{when}", str(found.prompt), states),
        *([("split: the order decided", str(found.split), states)] if summary.both_orders else []),
        ("no verdict", str(found.no_verdict), states),
        ("win rate of the CoT action", format_estimate(found.win_rate), f"{found.states - found.no_verdict} states"),
        ("net preference, CoT - prompt", format_estimate(found.net, signed=True), states),
        ("position bias", format_estimate(found.position_bias), f"{found.verdicts} verdicts"),
        ("agreement with the expert", format_estimate(found.expert_agreement), f"{found.expert_states} states"),
    ]
    for row in rows:
        table.add_row(*map(Text, row))
    return Group(Text(_title(summary), style="bold"), table, *(Text(line) for line in _below(summary)))


def _title(summary: JudgeSummary) -> str:
    return f"{summary.judge} judges {summary.agent} on {summary.env} {summary.scheme}/{summary.split}, seed {summary.seed}"


def _below(summary: JudgeSummary) -> list[str]:
    found = summary.preference
    asked = found.states + found.errors
    lines = [
        f"the trace changed the action at {summary.revised} of {summary.compared} states; "
        f"judged: {'all' if asked == summary.revised else asked} of them; scored in {found.tasks} tasks",
        "in win rate and agreement a split counts half; position bias: verdicts for the action shown first, 0.5 is none",
        _INTERVALS,
        f"question {summary.style} {summary.question}, mode {summary.mode}, "
        f"{'both orders' if summary.both_orders else 'one order'}, temperature {summary.temperature:g}",
    ]
    if summary.partial:
        lines.append("PARTIAL: games of this split are missing on this machine; not comparable with the whole split")
    if summary.episodes < summary.tasks:
        lines.append(f"UNFINISHED: the run has {summary.episodes} CoT episodes of {summary.tasks} tasks so far")
    if found.errors:
        lines.append(f"ERRORS: {found.errors} states could not be judged for a reason outside the judge and are in no figure")
    return lines
