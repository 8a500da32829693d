"""Tables of a comparison for the terminal. Invariant: a table is drawn from the `Comparison` alone, so programs and people see
the same numbers.
"""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.paper import SOURCE
from cotbench.prompting.elicitation import Mode
from cotbench.runs.comparison import Comparison, EnvComparison, Paired, Side, name_of_test
from cotbench.stats.formatting import format_estimate

_NAMES: dict[Mode, str] = {"prompt": "prompt", "cot": "CoT"}
_INTERVALS = (
    "95 % intervals over tasks, not over seeds: Wilson (success), Newcombe paired (its differences, and CoT - prompt), "
    "bootstrap (the rest; an interval of no width means that all tasks gave the same value)"
)


def comparison_table(comparison: Comparison, *, tasks: bool = False, paper: bool = False) -> RenderableType:
    """Return the text that `cotbench compare` prints.

    Args:
        comparison: the comparison.
        tasks: list the tasks that were won by one run alone.
        paper: add the numbers that the paper reports.
    """
    parts: list[RenderableType] = []
    for one in comparison.envs.values():
        parts += [_title(one), *_sides(one), _table(one, comparison), *_below(one, tasks, paper)]
    return Group(*parts, *map(Text, _last(comparison)))


def _title(one: EnvComparison) -> Text:
    return Text(f"{one.env}: {_tasks(one.tasks)} in common", style="bold")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _sides(one: EnvComparison) -> list[Text]:
    return [
        Text(f"{letter}: {side.agent} on {side.scheme}/{side.split}, seed {side.seed} ({side.folder})", overflow="fold")
        for letter, side in _lettered(one)
    ]


def _lettered(one: EnvComparison) -> tuple[tuple[str, Side], tuple[str, Side]]:
    return ("A", one.first), ("B", one.second)


def _table(one: EnvComparison, comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("on the same tasks", overflow="fold")
    for name in ("A", "B", "B - A", "p", "Holm"):
        table.add_column(name, justify="right", no_wrap=True)
    if one.reported:
        table.add_column("paper", no_wrap=True)

    def add(name: str, paired: Paired, test: str | None = None, digits: int = 2, signed: bool = False, cell: str = "") -> None:
        found = comparison.family.get(test) if test is not None else None
        p_values = [_p(found.p), _p(found.adjusted)] if found is not None else ["", ""]
        cells = [format_estimate(paired.first, digits, signed), format_estimate(paired.second, digits, signed)]
        cells += [format_estimate(paired.difference, digits, signed=True), *p_values, *([cell] if one.reported else [])]
        table.add_row(*map(Text, (name, *cells)))

    for mode, played in one.modes.items():
        reported = _reported(one) if mode == "cot" else ""
        add(f"success, {_NAMES[mode]}", played.success, name_of_test(one.env, "success", mode), cell=reported)
    if one.gap is not None:
        add("CoT - prompt", one.gap, name_of_test(one.env, "gap"), signed=True)
    if one.consistency is not None:
        add("consistency", one.consistency, name_of_test(one.env, "consistency"))
    for mode, played in one.modes.items():
        if played.score.p is not None:
            add(f"score, {_NAMES[mode]}", played.score, name_of_test(one.env, "score", mode))
    for mode, played in one.modes.items():
        add(f"steps, {_NAMES[mode]}", played.steps, digits=1)
        add(f"tokens, {_NAMES[mode]}", played.tokens, digits=0)
    for mode, played in one.modes.items():
        for name, paired in played.by_type.items() if len(played.by_type) > 1 else ():
            add(f"{name}, {_NAMES[mode]}, n={paired.difference.n}", paired)
    return table


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _reported(one: EnvComparison) -> str:
    """Return the paper's numbers, one method a line; by model where the two runs have different models."""
    several = len({row.model for row in one.reported}) > 1
    return "\n".join(f"{f'{row.model} ' if several else ''}{row.method} {row.value:.2f}" for row in one.reported)


def _below(one: EnvComparison, tasks: bool, paper: bool) -> list[Text]:
    lines = []
    for mode, played in one.modes.items():
        alone = f"won by A alone {len(played.first_only)}, by B alone {len(played.second_only)}"
        lines.append(f"{_NAMES[mode]}: of {_tasks(played.n)} {alone}")
        for letter, ids in (("A", played.first_only), ("B", played.second_only)) if tasks else ():
            lines += [f"  {letter} alone: {task}" for task in ids]
    if paper:
        lines.append(_paper_line(one))
    return [Text(line, overflow="fold") for line in (*lines, *_remarks(one), "")]


def _paper_line(one: EnvComparison) -> str:
    if one.reported:
        models = " and ".join(dict.fromkeys(str(row.model) for row in one.reported))
        return f"paper: {models} ({SOURCE}); no mode, n or interval is given, and it stands beside CoT"
    models = " and ".join(dict.fromkeys(side.model or side.agent for _, side in _lettered(one)))
    return f"paper: reports no success of {models} on {one.env} {one.first.scheme}/{one.first.split}"


def _remarks(one: EnvComparison) -> list[str]:
    """Return the caveats of a comparison: errors, missing games, differences in elicitation."""
    lines = [f"WARNING, asked otherwise: {difference}" for difference in one.asked_otherwise]
    for letter, side in _lettered(one):
        if side.left_out:
            lines.append(
                f"left out: {side.left_out} of the {_tasks(side.tasks)} of {letter}, which the other run does not have"
            )
        if side.episodes < side.planned:
            lines.append(f"NOT FINISHED: {letter} has {side.episodes} of {side.planned} episodes")
        if side.errors:
            lines.append(f"ERRORS: {side.errors} episodes of {letter} failed for a reason outside the model")
        if side.samples > 1:
            lines.append(
                f"{letter} has {side.samples} samples of each task: its numbers are means over tasks of the means of their "
                "samples, intervals and the p of success are over tasks (bootstrap, exchange test)"
            )
        if side.partial:
            lines.append(f"PARTIAL: games of the split of {letter} were missing")
    failed = {mode: played.errors for mode, played in one.modes.items() if played.errors}
    if failed:
        counted = ", ".join(f"{count} in mode {mode}" for mode, count in failed.items())
        lines.append(f"left out for an error in either run: tasks {counted}")
    if any(played.n == 1 for played in one.modes.values()):
        lines.append("one task alone: no test, and no interval but those of Wilson and Newcombe")
    return lines


def _last(comparison: Comparison) -> list[str]:
    lines = [_INTERVALS]
    if comparison.family:
        lines.append(
            "p, two-sided: exact McNemar (success), exchange of A and B within each task (the rest); Holm over the "
            f"{len(comparison.family)} tests shown; task types are not tested"
        )
    if comparison.left_out:
        lines.append(f"environments that only one has played, left out: {', '.join(comparison.left_out)}")
    return lines
