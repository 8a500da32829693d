"""Runs and comparisons as Python and notebooks show them. Invariant: they are drawn from the summary or the `Comparison` alone,
as the tables of the terminal are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cotbench.notebook import Display
from cotbench.prompting.elicitation import Mode
from cotbench.runs.comparison import Comparison, EnvComparison, Paired, name_of_test
from cotbench.runs.summary import ModeSummary, Summary
from cotbench.stats.estimates import Estimate
from cotbench.stats.formatting import format_estimate

_NAMES: dict[Mode, str] = {"prompt": "prompt", "cot": "CoT"}
_INTERVALS = "95 % intervals over tasks"


def summary_display(summary: Summary) -> Display:
    """Return what is shown of a run's summary: the modes side by side, and their difference."""
    played = f"{summary.tasks} of {summary.split_tasks}" if summary.tasks < summary.split_tasks else str(summary.tasks)
    place = f"{summary.agent} on {summary.env} {summary.scheme}/{summary.split}"
    gap, modes = summary.gap, summary.modes

    def row(name: str, cell: Callable[[ModeSummary], str], difference: str = "") -> tuple[str, ...]:
        return (name, *map(cell, modes.values()), *([difference] if gap is not None else []))

    rows = [
        row("episodes", lambda one: str(one.n), f"{gap.n} pairs" if gap else ""),
        row("success", lambda one: format_estimate(one.success), _signed(gap.success if gap else None)),
    ]
    if any(one.score.mean != one.success.mean for one in modes.values()):
        rows.append(row("score", lambda one: format_estimate(one.score), _signed(gap.score if gap else None)))
    rows.append(row("steps", lambda one: format_estimate(one.steps, 1)))
    if any(one.tokens.mean for one in modes.values()):
        rows.append(row("tokens generated", lambda one: format_estimate(one.tokens, 0)))
    columns = ("per episode", *(_NAMES[mode] for mode in modes), *(["CoT - prompt"] if gap is not None else []))
    return Display(
        f"{place}: {played} tasks, seed {summary.seed}",
        figures=tuple(_figures(summary)),
        columns=columns,
        rows=tuple(rows) if modes else (),
        notes=tuple(_summary_notes(summary)),
    )


def _signed(estimate: Estimate | None) -> str:
    return format_estimate(estimate, signed=True)


def _figures(summary: Summary) -> Iterable[str]:
    if not summary.modes:
        yield "no episode was played to its end yet"
        return
    rates = [f"{_NAMES[mode]} {format_estimate(one.success)} (n={one.n})" for mode, one in summary.modes.items()]
    yield f"success: {', '.join(rates)}"
    if summary.gap is not None:
        yield f"CoT - prompt: {_signed(summary.gap.success)} ({summary.gap.n} pairs)"


def _summary_notes(summary: Summary) -> Iterable[str]:
    gap, same = summary.gap, summary.consistency
    if gap is not None and gap.p is not None:
        test, won = ("McNemar exact", "only") if summary.samples == 1 else ("exchange test", "more often")
        yield f"{test} p = {gap.p:.3g}; tasks won {won} in prompt mode {gap.prompt_only}, {won} in CoT mode {gap.cot_only}"
    if same is not None and same.consistency.mean is not None:
        yield f"consistency: {format_estimate(same.consistency)} of {same.states} states"
    if summary.modes:
        yield _INTERVALS
    errors = sum(one.errors for one in summary.modes.values())
    if errors:
        yield f"ERRORS: {errors} episodes failed and are excluded from all statistics"
    if summary.partial:
        yield "PARTIAL: games of this split are missing on this machine"


def comparison_display(comparison: Comparison) -> Display:
    """Return what is shown of a comparison: both runs side by side, and their difference."""
    several = len(comparison.envs) > 1
    rows: list[tuple[str, ...]] = []
    figures: list[str] = []
    notes: list[str] = []
    for one in comparison.envs.values():
        before = f"{one.env}: " if several else ""
        for name, test, paired, signed in _quantities(one):
            found = comparison.family.get(test)
            p_values = ("", "") if found is None else (_p(found.p), _p(found.adjusted))
            sides = [format_estimate(side, signed=signed) for side in (paired.first, paired.second)]
            cells = (*sides, _signed(paired.difference))
            rows.append((before + name, *cells, *p_values))
            figures.append(f"{before}{name}: {cells[2]} (n={paired.difference.n})" + (f", p = {p_values[0]}" if found else ""))
        notes += [f"{before}{line}" for line in _comparison_notes(one)]
    notes.append(f"{_INTERVALS}, B - A on the same tasks; Holm over {len(comparison.family)} tests")
    if comparison.left_out:
        notes.append(f"left out, played by one only: {', '.join(comparison.left_out)}")
    title = "; ".join(
        f"B - A on {one.env}, {one.tasks} task{'s' * (one.tasks != 1)} in common" for one in comparison.envs.values()
    )
    return Display(title, tuple(figures), ("on the same tasks", "A", "B", "B - A", "p", "Holm"), tuple(rows), tuple(notes))


def _quantities(one: EnvComparison) -> Iterable[tuple[str, str, Paired, bool]]:
    """Yield name, test, numbers, and whether those of either run are differences."""
    for mode, played in one.modes.items():
        yield f"success, {_NAMES[mode]}", name_of_test(one.env, "success", mode), played.success, False
    if one.gap is not None:
        yield "CoT - prompt", name_of_test(one.env, "gap"), one.gap, True
    if one.consistency is not None:
        yield "consistency", name_of_test(one.env, "consistency"), one.consistency, False


def _comparison_notes(one: EnvComparison) -> Iterable[str]:
    for letter, side in (("A", one.first), ("B", one.second)):
        yield f"{letter}: {side.agent} on {side.scheme}/{side.split}, seed {side.seed} ({side.folder})"
        if side.episodes < side.planned:
            yield f"NOT FINISHED: {letter} has {side.episodes} of {side.planned} episodes"
        if side.errors:
            yield f"ERRORS: {side.errors} episodes of {letter} failed and are excluded from all statistics"
    yield from (f"WARNING, different settings: {difference}" for difference in one.asked_otherwise)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
