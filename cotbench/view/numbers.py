"""The numbers of a run, and of two runs beside each other, as tables of a page. Invariant: every number is from the run's
summary or from the comparison, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

from cotbench.prompting.elicitation import MODES
from cotbench.report.page import Cell, Table
from cotbench.runs.comparison import Comparison, EnvComparison, Paired, Side, name_of_test
from cotbench.runs.summary import ModeSummary, Summary
from cotbench.runs.tables import NAMES
from cotbench.stats.estimates import Estimate

_ROWS: tuple[tuple[str, Callable[[ModeSummary], Estimate | None]], ...] = (
    ("Success", lambda mode: mode.success),
    ("Score", lambda mode: mode.score),
    ("Steps", lambda mode: mode.steps),
    ("Invalid actions", lambda mode: mode.invalid_actions),
    ("Tokens generated", lambda mode: mode.tokens),
    ("Format kept", lambda mode: mode.format_ok),
    ("Trace truncated", lambda mode: mode.trace_truncated),
)


def run_table(summary: Summary) -> Table:
    """Return the numbers of a run.

    Args:
        summary: of the episodes so far.
    """
    modes = [mode for mode in MODES if mode in summary.modes]
    gap = summary.gap
    columns = ("per episode", *(NAMES[mode] for mode in modes), *(["CoT − prompt"] if gap else []))
    beside: dict[str, Estimate] = {} if gap is None else {"Success": gap.success, "Score": gap.score}
    same = all(summary.modes[mode].score == summary.modes[mode].success for mode in modes)
    rows: list[tuple[Cell, ...]] = [
        (name, *(get(summary.modes[mode]) for mode in modes), *([beside.get(name, "")] if gap else []))
        for name, get in _ROWS
        if any(get(summary.modes[mode]) is not None for mode in modes) and not (name == "Score" and same)
    ]
    caption = (
        "95 % intervals are over tasks (success: Wilson; its difference: Newcombe, paired; the rest: bootstrap)."
        if summary.samples == 1
        else f"95 % intervals are over tasks, the {summary.samples} samples of each together (bootstrap where samples differ)."
    )
    return Table("numbers", "Numbers", caption, columns, tuple(rows), signed=frozenset({"CoT − prompt"}))


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Return what a run says of the modes together: name and words.

    Args:
        summary: of the episodes so far.
    """
    found = []
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    if gap is not None and gap.p is not None:
        name, test = ("Won by one mode alone", "exact McNemar") if summary.samples == 1 else ("Won more often", "exchange test")
        found.append((name, f"by CoT {gap.cot_only}, by prompt {gap.prompt_only}, of {gap.n} tasks ({test} p = {gap.p:.2g})"))
    if same is not None and same.consistency.mean is not None:
        found.append(("Same action in both modes", f"at {same.consistency.mean:.0%} of {same.states} states"))
    if revisions is not None:
        found.append(
            (
                "Revisions",
                f"{revisions.helped} helped, {revisions.hurt} hurt, {revisions.neither} neither, at {revisions.states} states "
                "with a known expert action",
            )
        )
    return found


def comparison_table(env: EnvComparison, comparison: Comparison) -> Table:
    """Return the table of two runs on one environment: A, B, B minus A.

    Args:
        env: the comparison of that environment.
        comparison: the whole one, with the family of tests.
    """
    rows: list[tuple[Cell, ...]] = []

    def add(name: str, paired: Paired | None, test: str | None = None) -> None:
        if paired is not None:
            found = comparison.family.get(test) if test is not None else None
            tested = ("", "") if found is None else (_p(found.p), _p(found.adjusted))
            rows.append((name, paired.first, paired.second, paired.difference, *tested))

    for mode, one in env.modes.items():
        add(f"Success, {NAMES[mode]}", one.success, name_of_test(env.env, "success", mode))
    add("CoT − prompt", env.gap, name_of_test(env.env, "gap"))
    add("Consistency", env.consistency, name_of_test(env.env, "consistency"))
    for mode, one in env.modes.items():
        if one.score.p is not None:
            add(f"Score, {NAMES[mode]}", one.score, name_of_test(env.env, "score", mode))
        add(f"Steps, {NAMES[mode]}", one.steps)
        add(f"Tokens generated, {NAMES[mode]}", one.tokens)
    single = env.first.samples == env.second.samples == 1
    tests = (
        "exact McNemar (success), exchange of A and B within each task (the rest)"
        if single
        else "exchange of A and B within each task"
    )
    caption = (
        f"On the {env.tasks} tasks that both have. 95 % intervals are over tasks. p, two-sided: {tests}; "
        f"Holm over the {len(comparison.family)} tests."
    )
    columns = ("on the same tasks", "A", "B", "B − A", "p", "Holm")
    return Table("comparison", "Comparison", caption, columns, tuple(rows), signed=frozenset({"B − A"}))


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def remarks(env: EnvComparison) -> list[str]:
    """Return the caveats of a comparison.

    Args:
        env: the comparison of an environment.
    """
    lines = [f"Not the same elicitation: {difference}." for difference in env.asked_otherwise]
    for letter, side in (("A", env.first), ("B", env.second)):
        lines += [f"{letter} {words}." for words in _of_side(side)]
    return lines


def _of_side(side: Side) -> list[str]:
    found = []
    if side.episodes < side.planned:
        found.append(f"is not finished: {side.episodes} of {side.planned} episodes")
    if side.errors:
        found.append(f"has {side.errors} episodes that ended in an error; they are excluded")
    if side.left_out:
        found.append(f"has {side.left_out} tasks of {side.tasks} that the other has not; they are excluded")
    if side.partial:
        found.append("is partial: games of its split were missing")
    return found
