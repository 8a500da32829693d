"""Tables of a run's summary for the terminal. Invariant: a table is drawn from the summary alone, so programs and people see
the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType

from cotbench.envs.registry import env_entry
from cotbench.failure import INFRASTRUCTURE
from cotbench.paragraph import Paragraph, together
from cotbench.prompting.elicitation import Mode
from cotbench.runs.suite import SuiteSummary
from cotbench.runs.summary import ModeSummary, Revisions, Summary
from cotbench.stats.estimates import Estimate
from cotbench.stats.formatting import estimate_cell, format_estimate
from cotbench.text_table import TableColumn, TextCell, TextTable, table_row

_INTERVALS = "95 % intervals over tasks"
_HOW = (
    "95 % intervals over tasks: Wilson (success), Newcombe paired (gap), MOVER (means over types or environments), bootstrap "
    "(all others; an interval of zero width means that all tasks gave the same value)"
)
NO_ELICITATION = "no elicitation settings (this agent does not use them)"
_REASON_CHARS = 400
"""Characters of an error in a table's footnote."""

NAMES: dict[Mode, str] = {"prompt": "prompt", "cot": "CoT"}


@dataclass(frozen=True, slots=True)
class _SummaryRow:
    """A row of a run's table.

    Attributes:
        values: one for each mode.
        digits: after the point.
        gap: the cell of the difference.
        fixed: whether it is in the table also where it says nothing.
    """

    name: str
    values: tuple[Estimate | int | None, ...]
    digits: int = 2
    gap: TextCell | str = ""
    fixed: bool = False

    @property
    def cells(self) -> tuple[TextCell, ...]:
        """The cells of the modes."""
        return tuple(TextCell(str(one)) if isinstance(one, int) else estimate_cell(one, self.digits) for one in self.values)

    @property
    def constant(self) -> str | None:
        """The value that all episodes share, as text; None where there is none, or it is one mode alone and news."""
        if self.fixed or not all(map(_is_constant, self.values)):
            return None
        texts = [cell.value for cell in self.cells if cell.value != "-"]
        if not texts:
            return "not measured"
        alike = len(set(texts)) == 1 and (len(texts) > 1 or float(texts[0]) in (0, 1))
        return texts[0] if alike else None


def _is_constant(value: Estimate | int | None) -> bool:
    if value is None or isinstance(value, int):
        return True
    return value.mean is None or (value.low in (None, value.mean) and value.high in (None, value.mean))


def run_table(summary: Summary, *, verbose: bool = False) -> RenderableType:
    """Return the text that `cotbench run` prints at its end.

    Args:
        summary: of the run.
        verbose: show the rows too that have one value for all episodes, and how each interval is computed.
    """
    rows = _rows(summary)
    constant = {} if verbose else {row.name: text for row in rows if (text := row.constant) is not None}
    if not verbose and all(mode.score.mean == mode.success.mean for mode in summary.modes.values()):
        constant["score"] = "= success"
    both = summary.gap is not None
    columns = [TableColumn("per episode", "label"), *(TableColumn(NAMES[mode]) for mode in summary.modes)]
    table = TextTable(
        (*columns, *([TableColumn("CoT - prompt")] if both else [])),
        tuple(table_row(row.name, *row.cells, *([row.gap] if both else [])) for row in rows if row.name not in constant),
    )
    return Group(
        Paragraph(_title(summary), "bold"),
        table,
        *map(Paragraph, (*_constant_lines(constant), *_below(summary, verbose=verbose))),
    )


def _rows(summary: Summary) -> list[_SummaryRow]:
    gap = summary.gap

    def row(name: str, value: Callable[[ModeSummary], Estimate | int | None], digits: int = 2) -> _SummaryRow:
        return _SummaryRow(name, tuple(map(value, summary.modes.values())), digits)

    def fixed(name: str, value: Callable[[ModeSummary], Estimate | int | None], difference: Estimate | None) -> _SummaryRow:
        cell = estimate_cell(difference, signed=True) if gap else TextCell("")
        return _SummaryRow(name, tuple(map(value, summary.modes.values())), gap=cell, fixed=True)

    types = max((len(mode.by_type) for mode in summary.modes.values()), default=0)
    rows = [fixed("success", lambda mode: mode.success, gap.success if gap else None)]
    if any(mode.macro_success is not None for mode in summary.modes.values()):
        rows.append(fixed(f"  mean of {types} types", lambda mode: mode.macro_success, gap.macro_success if gap else None))
    if any(mode.passable_success is not None for mode in summary.modes.values()):
        rows.append(row("  passable tasks", lambda mode: mode.passable_success))
    for k in _shown_ks(summary.samples):
        rows.append(_SummaryRow(f"  pass@{k}", tuple(mode.pass_at.get(k) for mode in summary.modes.values()), fixed=True))
    counts = _SummaryRow(
        "episodes",
        tuple(mode.n for mode in summary.modes.values()),
        gap=TextCell(f"{gap.n} pairs" if gap else ""),
        fixed=True,
    )
    return [
        *rows,
        fixed("score", lambda mode: mode.score, gap.score if gap else None),
        counts,
        row("steps", lambda mode: mode.steps, 1),
        row("invalid actions", lambda mode: mode.invalid_actions, 1),
        row("tokens generated", lambda mode: mode.tokens, 0),
        row("tokens prefilled", lambda mode: mode.prefilled_tokens, 0),
        row("tokens reused", lambda mode: mode.reused_tokens, 0),
        *([row("dollars", lambda mode: mode.dollars, 4)] if summary.price else []),
        row("format kept", lambda mode: mode.format_ok),
        row("trace truncated", lambda mode: mode.trace_truncated),
        _SummaryRow(
            "errors", tuple(mode.errors for mode in summary.modes.values()), fixed=any(m.errors for m in summary.modes.values())
        ),
    ]


def _shown_ks(samples: int) -> list[int]:
    """Return the k of the pass@k that a table shows: powers of two, and the number of samples; pass@1 is the success."""
    powers = (2**power for power in range(1, samples.bit_length()))
    return sorted({*powers, samples} - {1})


def _constant_lines(constant: Mapping[str, str]) -> list[str]:
    """Return the line on the rows that are left out of a table, by their value."""
    if not constant:
        return []
    return ["the same in all episodes: " + ", ".join(together(f"{name.strip()} {text}") for name, text in constant.items())]


def _title(summary: Summary) -> str:
    played = (
        f"{summary.tasks} of {summary.split_tasks} tasks" if summary.tasks < summary.split_tasks else f"{summary.tasks} tasks"
    )
    if summary.samples > 1:
        played += f" x {summary.samples} samples"
    return f"{summary.agent} on {summary.env} {summary.scheme}/{summary.split}: {played}, seed {summary.seed}"


def _below(summary: Summary, *, verbose: bool) -> list[str]:
    lines = []
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    if gap is not None and gap.p is not None:
        test, won = ("McNemar exact", "only") if summary.samples == 1 else ("exchange test", "more often")
        lines.append(
            f"CoT - prompt: {test} p = {gap.p:.3g}; tasks won {won} in prompt mode {gap.prompt_only}, {won} in CoT mode "
            f"{gap.cot_only}"
        )
    if same is not None:
        lines.append(
            f"consistency: prompt action = CoT action at {_unbroken(same.consistency)} of {same.states} states; "
            f"revision rate {_unbroken(same.revision_rate)}"
        )
    if same is not None:
        lines.append(_revisions(same.states, revisions, summary.expert))
    prompt_actions = summary.prompt_actions
    if prompt_actions is not None and prompt_actions.tokens.mean:
        lines.append(
            f"prompt actions at the {prompt_actions.states} states of the CoT episodes: "
            f"{_unbroken(prompt_actions.tokens, 1)} tokens generated and "
            f"{_unbroken(prompt_actions.prefilled_tokens, 1)} prefilled per state, in addition to those of the CoT actions"
        )
    if summary.samples > 1:
        lines.append(
            f"success: mean over tasks of the share of their {summary.samples} samples; pass@k: at least one of k samples "
            "succeeds, without bias (Chen et al. 2021); where samples differ the intervals are bootstraps over tasks, which "
            "keep the samples of a task together"
        )
    lines.append(_HOW if verbose else f"{_INTERVALS} (-v: how they are computed)")
    lines.append(f"{elicitation_text(summary, temperature=True)}, at most {summary.max_steps} steps")
    return lines + unplayed_lines(summary) + footnotes(summary)


def _revisions(states: int, revisions: Revisions | None, expert: str) -> str:
    if revisions is None:
        return f"revisions: whether they helped is unknown: the expert's action is known at none of {states} states"
    return (
        f"revisions: {revisions.revised} at the {revisions.states} of {states} states where the action of "
        f"{f'expert {expert!r}' if expert else 'the expert'} is known; {revisions.helped} helped, {revisions.hurt} hurt, "
        f"{revisions.neither} neither; net {_unbroken(revisions.net, signed=True)} per state"
    )


def _unbroken(estimate: Estimate, digits: int = 2, signed: bool = False) -> str:
    return together(format_estimate(estimate, digits, signed))


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
        lines = [f"ERRORS: {errors} episodes failed for a reason outside the model and are excluded from all statistics"]
    else:
        counted = ", ".join(f"{count.n} {kind}" for kind, count in kinds.items())
        lines = [f"ERRORS: {errors} episodes failed ({counted}) and are excluded from all statistics"]
    for kind, count in kinds.items():
        lines.append(f"{kind}, {count.same} of {count.n}: {' '.join(count.reason.split())[:_REASON_CHARS]}")
    return lines


def unplayed_lines(summary: Summary) -> list[str]:
    """Return the caveat about planned episodes that are not recorded; empty where there are none."""
    if not summary.unplayed:
        return []
    return [f"NOT FINISHED: {summary.unplayed} planned episodes were not played and are excluded from all statistics"]


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
        lines.append("PARTIAL: games of this split are missing on this machine: not comparable with results on the whole split")
    if summary.dialect and summary.dialect != (own := env_entry(summary.env).own_dialect):
        lines.append(
            f"DIALECT {summary.dialect!r}: these data spell actions differently from dialect {own!r}, so the model sees "
            "different texts"
        )
    lines += error_lines(summary)
    dropped = sum(mode.dropped_observations for mode in summary.modes.values())
    if dropped:
        lines.append(f"in {dropped} episodes the oldest observations were dropped to fit the model's context")
    cut = sum(mode.cut_observations for mode in summary.modes.values())
    if cut:
        lines.append(f"in {cut} episodes an observation was longer than the limit, and its middle was cut out")
    restarts = sum(mode.restarts for mode in summary.modes.values())
    if restarts:
        lines.append(
            f"in {restarts} episodes the environment process died; it was restarted and brought back to the same state"
        )
    for mode, numbers in summary.modes.items():
        kinds = numbers.leniently_judged
        if kinds:
            listed = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
            lines.append(
                f"{NAMES[mode]}: where the right answer is to do nothing, upstream accepts whatever cannot be parsed as an "
                f"action, and so does this table; the {sum(kinds.values())} right answers there: {listed}"
            )
    return lines


def suite_table(suite: SuiteSummary, *, verbose: bool = False) -> RenderableType:
    """Return the text that `cotbench run` prints after runs on several environments: a row for each, and their mean.

    Args:
        suite: the numbers of the runs.
        verbose: say how each interval is computed.
    """
    runs = list(suite.runs.values())
    modes, both = list(suite.success), suite.gap is not None
    columns = [TableColumn("success", "label"), *(TableColumn(NAMES[mode]) for mode in modes)]
    columns += [TableColumn("CoT - prompt"), TableColumn("consistency")] if both else []
    rows = []
    for run in runs:
        cells = [estimate_cell(run.modes[mode].success if mode in run.modes else None) for mode in modes]
        if both:
            cells += [
                estimate_cell(run.gap.success if run.gap else None, signed=True),
                estimate_cell(run.consistency.consistency if run.consistency else None),
            ]
        rows.append(table_row(run.env, *cells, str(run.tasks)))
    means = [estimate_cell(suite.success[mode]) for mode in modes]
    means += [estimate_cell(suite.gap, signed=True), TextCell("")] if both else []
    rows.append(table_row("mean", *means, str(sum(run.tasks for run in runs)), style="bold"))
    first = runs[0]
    title = f"{first.agent} on {len(runs)} environments, {first.scheme}/{first.split}, seed {first.seed}"
    noted = [f"{run.env}: {line}" for run in runs for line in (*unplayed_lines(run), *footnotes(run))]
    elicitations = [f"{run.env}: {elicitation_text(run)}, at most {run.max_steps} steps" for run in runs]
    return Group(
        Paragraph(title, "bold"),
        TextTable((*columns, TableColumn("tasks")), tuple(rows)),
        *map(Paragraph, (_HOW if verbose else f"{_INTERVALS} (-v: how they are computed)", *elicitations, *noted)),
    )
