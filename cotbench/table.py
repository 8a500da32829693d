"""A run's summary as a table. Invariant: drawn from the summary alone, so programs and people see one result."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.elicitation import Mode
from cotbench.statistics import Estimate
from cotbench.summary import ModeSummary, Summary

_NAMES: dict[Mode, str] = {"prompt": "prompt", "cot": "CoT"}


def shown(estimate: Estimate | None, digits: int = 2, signed: bool = False) -> str:
    """`0.25 [0.05, 0.70]`; a dash where nothing was measured; no interval where one task cannot give one."""
    if estimate is None or estimate.mean is None:
        return "-"
    sign = "+" if signed else ""
    value = f"{estimate.mean:{sign}.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return f"{value} [n=1]"
    return f"{value} [{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]"


def run_table(summary: Summary) -> RenderableType:
    """What `cotbench run` prints at its end."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("per episode", no_wrap=True)
    modes = list(summary.modes)
    for mode in modes:
        table.add_column(_NAMES[mode], justify="right", no_wrap=True)
    both = summary.gap is not None
    if both:
        table.add_column("CoT - prompt", justify="right", no_wrap=True)
    gap = summary.gap
    rows: list[tuple[str, list[str], str]] = [
        ("episodes", [str(summary.modes[mode].n) for mode in modes], f"{gap.n} pairs" if gap else ""),
        ("success", _each(summary, lambda m: shown(m.success)), shown(gap.success, signed=True) if gap else ""),
        ("score", _each(summary, lambda m: shown(m.score)), shown(gap.score, signed=True) if gap else ""),
        ("steps", _each(summary, lambda m: shown(m.steps, 1)), ""),
        ("invalid actions", _each(summary, lambda m: shown(m.invalid_actions, 1)), ""),
        ("tokens", _each(summary, lambda m: shown(m.tokens, 0)), ""),
        ("prefilled", _each(summary, lambda m: shown(m.prefilled_tokens, 0)), ""),
        ("format kept", _each(summary, lambda m: shown(m.format_ok)), ""),
        ("trace truncated", _each(summary, lambda m: shown(m.trace_truncated)), ""),
        ("errors", [str(summary.modes[mode].errors) for mode in modes], ""),
    ]
    for name, cells, difference in rows:
        table.add_row(name, *cells, *([difference] if both else []))
    return Group(Text(_title(summary), style="bold"), table, *(Text(line) for line in _below(summary)))


def _each(summary: Summary, cell: Callable[[ModeSummary], str]) -> list[str]:
    return [cell(mode) for mode in summary.modes.values()]


def _title(summary: Summary) -> str:
    played = (
        f"{summary.tasks} of {summary.split_tasks} tasks" if summary.tasks < summary.split_tasks else f"{summary.tasks} tasks"
    )
    return f"{summary.agent} on {summary.env} {summary.scheme}/{summary.split}: {played}, seed {summary.seed}"


def _below(summary: Summary) -> list[str]:
    lines = []
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    if gap is not None and gap.p is not None:
        lines.append(f"gap: McNemar exact p = {gap.p:.3g} (won by prompt alone {gap.prompt_only}, by CoT alone {gap.cot_only})")
    if same is not None:
        lines.append(
            f"consistency: {shown(same.consistency)} of {same.states} states have prompt action = CoT action; "
            f"revision rate {shown(same.revision_rate)}"
        )
    if revisions is not None:
        lines.append(
            f"revisions: {revisions.revised} at {revisions.states} states with a known expert action; "
            f"helped {revisions.helped}, hurt {revisions.hurt}, neither {revisions.neither}; "
            f"net {shown(revisions.net, signed=True)}"
        )
    lines.append(
        "95 % intervals over tasks: Wilson (success), Newcombe paired (gap), bootstrap (the rest; an interval of no width "
        "means that all tasks gave the same value)"
    )
    lines.append(
        f"elicitation {summary.style} {summary.elicitation}, temperature {summary.temperature:g}, "
        f"at most {summary.max_steps} steps"
    )
    if summary.partial:
        lines.append("PARTIAL: games of this split are missing on this machine; not comparable with the whole split")
    errors = sum(mode.errors for mode in summary.modes.values())
    if errors:
        lines.append(f"ERRORS: {errors} episodes failed for a reason outside the model and are in no figure")
    dropped = sum(mode.dropped_observations for mode in summary.modes.values())
    if dropped:
        lines.append(f"in {dropped} episodes the oldest observations were dropped to fit the model's context")
    return lines
