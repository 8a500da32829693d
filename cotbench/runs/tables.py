"""Tables of a run's summary for the terminal. Invariant: a table is drawn from the summary alone, so programs and people see
the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.envs.registry import env_entry
from cotbench.failure import INFRASTRUCTURE
from cotbench.prompting.elicitation import Mode
from cotbench.runs.suite import SuiteSummary
from cotbench.runs.summary import ModeSummary, Revisions, Summary
from cotbench.stats.formatting import format_estimate

_INTERVALS = (
    "95 % intervals over tasks: Wilson (success), Newcombe paired (gap), MOVER (means over types or environments), bootstrap "
    "(the rest; an interval of no width means that all tasks gave the same value)"
)
NO_ELICITATION = "no elicitation (the agent takes none)"
_REASON_CHARS = 400
"""Characters of an error in a table's footnote."""

NAMES: dict[Mode, str] = {"prompt": "prompt", "cot": "CoT"}


def run_table(summary: Summary) -> RenderableType:
    """Return the text that `cotbench run` prints at its end."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("per episode", no_wrap=True)
    modes = list(summary.modes)
    for mode in modes:
        table.add_column(NAMES[mode], justify="right", no_wrap=True)
    both = summary.gap is not None
    if both:
        table.add_column("CoT - prompt", justify="right", no_wrap=True)
    gap = summary.gap
    rows: list[tuple[str, list[str], str]] = [
        ("episodes", [str(summary.modes[mode].n) for mode in modes], f"{gap.n} pairs" if gap else ""),
        (
            "success",
            _each(summary, lambda m: format_estimate(m.success)),
            format_estimate(gap.success, signed=True) if gap else "",
        ),
        *_success_rows(summary),
        ("score", _each(summary, lambda m: format_estimate(m.score)), format_estimate(gap.score, signed=True) if gap else ""),
        ("steps", _each(summary, lambda m: format_estimate(m.steps, 1)), ""),
        ("invalid actions", _each(summary, lambda m: format_estimate(m.invalid_actions, 1)), ""),
        ("tokens generated", _each(summary, lambda m: format_estimate(m.tokens, 0)), ""),
        ("tokens prefilled", _each(summary, lambda m: format_estimate(m.prefilled_tokens, 0)), ""),
        ("tokens reused", _each(summary, lambda m: format_estimate(m.reused_tokens, 0)), ""),
        *([("dollars", _each(summary, lambda m: format_estimate(m.dollars, 4)), "")] if summary.price else []),
        ("format kept", _each(summary, lambda m: format_estimate(m.format_ok)), ""),
        ("trace truncated", _each(summary, lambda m: format_estimate(m.trace_truncated)), ""),
        ("errors", [str(summary.modes[mode].errors) for mode in modes], ""),
    ]
    for name, cells, difference in rows:
        # As `Text`, so that "[n=1]" is not read as markup.
        table.add_row(*map(Text, (name, *cells, *([difference] if both else []))))
    return Group(Text(_title(summary), style="bold"), table, *(Text(line) for line in _below(summary)))


def _success_rows(summary: Summary) -> list[tuple[str, list[str], str]]:
    """Return the success rates that only some environments have: the mean over task types, and the rate without tasks that
    cannot be passed.
    """
    rows, modes = [], list(summary.modes.values())
    types = max((len(mode.by_type) for mode in modes), default=0)
    if any(mode.macro_success is not None for mode in modes):
        gap = format_estimate(summary.gap.macro_success, signed=True) if summary.gap else ""
        rows.append((f"success, mean of {types} types", _each(summary, lambda m: format_estimate(m.macro_success)), gap))
    if any(mode.passable_success is not None for mode in modes):
        rows.append(("success, passable tasks", _each(summary, lambda m: format_estimate(m.passable_success)), ""))
    for k in _shown_ks(summary.samples):
        rows.append((f"pass@{k}", [format_estimate(mode.pass_at.get(k)) for mode in modes], ""))
    return rows


def _shown_ks(samples: int) -> list[int]:
    """Return the k of the pass@k that a table shows: powers of two, and the number of samples; pass@1 is the success."""
    powers = (2**power for power in range(1, samples.bit_length()))
    return sorted({*powers, samples} - {1})


def _each(summary: Summary, cell: Callable[[ModeSummary], str]) -> list[str]:
    return [cell(mode) for mode in summary.modes.values()]


def _title(summary: Summary) -> str:
    played = (
        f"{summary.tasks} of {summary.split_tasks} tasks" if summary.tasks < summary.split_tasks else f"{summary.tasks} tasks"
    )
    if summary.samples > 1:
        played += f" x {summary.samples} samples"
    return f"{summary.agent} on {summary.env} {summary.scheme}/{summary.split}: {played}, seed {summary.seed}"


def _below(summary: Summary) -> list[str]:
    lines = []
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    if gap is not None and gap.p is not None:
        test, only = ("McNemar exact", "alone") if summary.samples == 1 else ("exchange test,", "more often")
        lines.append(f"gap: {test} p = {gap.p:.3g} (won by prompt {only} {gap.prompt_only}, by CoT {only} {gap.cot_only})")
    if same is not None:
        lines.append(
            f"consistency: {format_estimate(same.consistency)} of {same.states} states have prompt action = CoT action; "
            f"revision rate {format_estimate(same.revision_rate)}"
        )
    if same is not None:
        lines.append(_revisions(same.states, revisions, summary.expert))
    prompt_actions = summary.prompt_actions
    if prompt_actions is not None and prompt_actions.tokens.mean:
        lines.append(
            f"prompt actions at the {prompt_actions.states} states of CoT episodes: "
            f"{format_estimate(prompt_actions.tokens, 1)} tokens generated "
            f"and {format_estimate(prompt_actions.prefilled_tokens, 1)} prefilled a state, beside what the CoT actions took"
        )
    if summary.samples > 1:
        lines.append(
            f"success: mean over tasks of the share of their {summary.samples} samples; pass@k: at least one of k samples "
            "succeeds, without bias (Chen et al. 2021); where samples differ the intervals are bootstraps over tasks, which "
            "keep the samples of a task together"
        )
    lines.append(_INTERVALS)
    lines.append(f"{elicitation_text(summary, temperature=True)}, at most {summary.max_steps} steps")
    return lines + unplayed_lines(summary) + footnotes(summary)


def _revisions(states: int, revisions: Revisions | None, expert: str) -> str:
    if revisions is None:
        return f"revisions: helped or hurt is not known, for the expert's action is known at none of {states} states"
    return (
        f"revisions: {revisions.revised} at {revisions.states} of {states} states, where the action of "
        f"{f'expert {expert!r}' if expert else 'the expert'} is known; helped {revisions.helped}, hurt {revisions.hurt}, "
        f"neither {revisions.neither}; net {format_estimate(revisions.net, signed=True)}"
    )


def elicitation_text(summary: Summary, *, temperature: bool = False) -> str:
    """Return the elicitation by its fingerprint, or that the agent takes none.

    Args:
        summary: of a run.
        temperature: whether to name the temperature.
    """
    if not summary.uses_elicitation:
        return NO_ELICITATION
    text = f"elicitation {summary.style} {summary.elicitation}"
    return f"{text}, temperature {summary.temperature:g}" if temperature else text


def error_lines(summary: Summary) -> list[str]:
    """Return the caveats about episodes that ended in errors: how many, whose failures they are, and the commonest reasons."""
    errors = sum(mode.errors for mode in summary.modes.values())
    if not errors:
        return []
    kinds = summary.errors_by_kind
    if kinds.keys() <= {INFRASTRUCTURE}:
        lines = [f"ERRORS: {errors} episodes failed for a reason outside the model and are in no figure"]
    else:
        counted = ", ".join(f"{count.n} {kind}" for kind, count in kinds.items())
        lines = [f"ERRORS: {errors} episodes failed ({counted}) and are in no figure"]
    for kind, count in kinds.items():
        lines.append(f"{kind}, {count.same} of {count.n}: {' '.join(count.reason.split())[:_REASON_CHARS]}")
    return lines


def unplayed_lines(summary: Summary) -> list[str]:
    """Return the caveat about planned episodes that are not recorded; empty where there are none."""
    if not summary.unplayed:
        return []
    return [f"NOT FINISHED: {summary.unplayed} planned episodes were not played and are in no figure"]


def footnotes(summary: Summary) -> list[str]:
    """Return the caveats for comparing these numbers with others."""
    lines = []
    if summary.price is not None and summary.dollars is not None:
        price = summary.price
        cached = "" if price.cached is None else f", cached ${price.cached:g}"
        lines.append(
            f"${summary.dollars:.2f} in all, at ${price.prompt:g} (prompt{cached}) and ${price.completion:g} (completion) per "
            "million tokens"
        )
    if summary.partial:
        lines.append("PARTIAL: games of this split are missing on this machine; not comparable with the whole split")
    if summary.dialect and summary.dialect != (own := env_entry(summary.env).own_dialect):
        lines.append(
            f"DIALECT {summary.dialect!r}: these data spell actions otherwise than those of dialect {own!r}, so a model is "
            "shown other texts than there"
        )
    lines += error_lines(summary)
    dropped = sum(mode.dropped_observations for mode in summary.modes.values())
    if dropped:
        lines.append(f"in {dropped} episodes the oldest observations were dropped to fit the model's context")
    cut = sum(mode.cut_observations for mode in summary.modes.values())
    if cut:
        lines.append(f"in {cut} episodes an observation was longer than is shown to a model, and its middle was left out")
    restarts = sum(mode.restarts for mode in summary.modes.values())
    if restarts:
        lines.append(f"in {restarts} episodes the engine was lost; it was started anew and brought back to where it was")
    for mode, numbers in summary.modes.items():
        kinds = numbers.leniently_judged
        if kinds:
            listed = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
            lines.append(
                f"{NAMES[mode]}: where nothing is to be done, upstream passes what cannot be read as an action, and so does "
                f"this table; the {sum(kinds.values())} right answers there: {listed}"
            )
    return lines


def suite_table(suite: SuiteSummary) -> RenderableType:
    """Return the text that `cotbench run` prints after runs on several environments: a row for each, and their mean."""
    runs = list(suite.runs.values())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("success", no_wrap=True)
    table.add_column("tasks", justify="right")
    modes = list(suite.success)
    for mode in modes:
        table.add_column(NAMES[mode], justify="right", no_wrap=True)
    if suite.gap is not None:
        table.add_column("CoT - prompt", justify="right", no_wrap=True)
        table.add_column("consistency", justify="right", no_wrap=True)
    for run in runs:
        cells = [format_estimate(run.modes[mode].success) if mode in run.modes else "-" for mode in modes]
        compared = [format_estimate(run.gap.success if run.gap else None, signed=True)] if suite.gap is not None else []
        same = [format_estimate(run.consistency.consistency if run.consistency else None)] if suite.gap is not None else []
        table.add_row(*map(Text, (run.env, str(run.tasks), *cells, *compared, *same)))
    means = [format_estimate(suite.success[mode]) for mode in modes]
    last = [format_estimate(suite.gap, signed=True), ""] if suite.gap is not None else []
    table.add_row(*map(Text, ("mean", str(sum(run.tasks for run in runs)), *means, *last)), style="bold")
    first = runs[0]
    title = f"{first.agent} on {len(runs)} environments, {first.scheme}/{first.split}, seed {first.seed}"
    noted = [f"{run.env}: {line}" for run in runs for line in (*unplayed_lines(run), *footnotes(run))]
    elicitations = [f"{run.env}: {elicitation_text(run)}, at most {run.max_steps} steps" for run in runs]
    return Group(Text(title, style="bold"), table, *(Text(line) for line in (_INTERVALS, *elicitations, *noted)))
