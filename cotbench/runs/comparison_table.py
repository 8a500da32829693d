"""Tables of a comparison for the terminal. Invariant: a table is drawn from the `Comparison` alone, so programs and people see
the same numbers.
"""

from __future__ import annotations

from rich.console import Group, RenderableType

from cotbench.paper import SOURCE
from cotbench.paragraph import Paragraph, together
from cotbench.runs.comparison import Comparison, EnvComparison, Paired, Side, name_of_test
from cotbench.runs.tables import NAMES
from cotbench.stats.estimates import Estimate
from cotbench.stats.formatting import estimate_cell
from cotbench.text_table import TableColumn, TableRow, TextCell, TextTable, table_row

_INTERVALS = "95 % intervals over tasks, not over seeds"
_HOW = (
    "95 % intervals over tasks, not over seeds: Wilson (success), Newcombe paired (its differences, and CoT - prompt), "
    "bootstrap (all others; an interval of zero width means that all tasks gave the same value)"
)


def comparison_table(
    comparison: Comparison, *, tasks: bool = False, paper: bool = False, verbose: bool = False
) -> RenderableType:
    """Return the text that `cotbench compare` prints.

    Args:
        comparison: the comparison.
        tasks: list the tasks that were won by one run alone.
        paper: add the numbers that the paper reports.
        verbose: show the rows too that have one value for all episodes of both runs, and how each interval is computed.
    """
    parts: list[RenderableType] = []
    for one in comparison.envs.values():
        rows, constant = _rows(one, comparison, verbose=verbose)
        parts += [_title(one), *_sides(one), _table(one, rows), *map(Paragraph, (*constant, *_below(one, tasks, paper), ""))]
    return Group(*parts, *map(Paragraph, _last(comparison, verbose=verbose)))


def _title(one: EnvComparison) -> Paragraph:
    return Paragraph(f"{one.env}: {_tasks(one.tasks)} in common", "bold")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _sides(one: EnvComparison) -> list[Paragraph]:
    return [
        Paragraph(f"{letter}: {side.agent} on {side.scheme}/{side.split}, seed {side.seed} ({side.folder})")
        for letter, side in _lettered(one)
    ]


def _lettered(one: EnvComparison) -> tuple[tuple[str, Side], tuple[str, Side]]:
    return ("A", one.first), ("B", one.second)


def _table(one: EnvComparison, rows: tuple[TableRow, ...]) -> TextTable:
    columns = [TableColumn("on the same tasks", "label"), *map(TableColumn, ("A", "B", "B - A", "p", "Holm"))]
    columns += [TableColumn("paper", "label")] if one.reported else []
    return TextTable(tuple(columns), rows)


def _rows(one: EnvComparison, comparison: Comparison, *, verbose: bool) -> tuple[tuple[TableRow, ...], list[str]]:
    """Return the rows, and a line on those that are left out because all episodes of both runs have one value."""
    rows: list[TableRow] = []
    constant: list[str] = []

    def add(name: str, paired: Paired, test: str | None = None, digits: int = 2, signed: bool = False, cell: str = "") -> None:
        found = comparison.family.get(test) if test is not None else None
        first, second = (estimate_cell(side, digits, signed) for side in (paired.first, paired.second))
        if not verbose and found is None and first.value == second.value and _is_constant(paired.difference):
            constant.append(together(f"{name} {first.value}"))
            return
        p_values = [_p(found.p), _p(found.adjusted)] if found is not None else ["", ""]
        cells: list[str | TextCell] = [first, second, estimate_cell(paired.difference, digits, signed=True), *p_values]
        rows.append(table_row(name, *cells, *([cell] if one.reported else [])))

    for mode, played in one.modes.items():
        reported = _reported(one) if mode == "cot" else ""
        add(f"success, {NAMES[mode]}", played.success, name_of_test(one.env, "success", mode), cell=reported)
    if one.gap is not None:
        add("CoT - prompt", one.gap, name_of_test(one.env, "gap"), signed=True)
    if one.consistency is not None:
        add("consistency", one.consistency, name_of_test(one.env, "consistency"))
    for mode, played in one.modes.items():
        if played.score.p is not None:
            add(f"score, {NAMES[mode]}", played.score, name_of_test(one.env, "score", mode))
    for mode, played in one.modes.items():
        add(f"steps, {NAMES[mode]}", played.steps, digits=1)
        add(f"tokens, {NAMES[mode]}", played.tokens, digits=0)
    for mode, played in one.modes.items():
        for name, paired in played.by_type.items() if len(played.by_type) > 1 else ():
            add(f"{name}, {NAMES[mode]}, n={paired.difference.n}", paired)
    return tuple(rows), [f"the same in all episodes of A and B: {', '.join(constant)}"] if constant else []


def _is_constant(difference: Estimate) -> bool:
    return difference.mean == 0 and difference.low in (None, 0) and difference.high in (None, 0)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _reported(one: EnvComparison) -> str:
    """Return the paper's numbers, one method a line; by model where the two runs have different models."""
    several = len({row.model for row in one.reported}) > 1
    return "\n".join(f"{f'{row.model} ' if several else ''}{row.method} {row.value:.2f}" for row in one.reported)


def _below(one: EnvComparison, tasks: bool, paper: bool) -> list[str]:
    lines = []
    for mode, played in one.modes.items():
        alone = f"won only by A {len(played.first_only)}, only by B {len(played.second_only)}"
        lines.append(f"{NAMES[mode]}: of {_tasks(played.n)} {alone}")
        for letter, ids in (("A", played.first_only), ("B", played.second_only)) if tasks else ():
            lines += [f"  only {letter}: {task}" for task in ids]
    if paper:
        lines.append(_paper_line(one))
    return [*lines, *_remarks(one)]


def _paper_line(one: EnvComparison) -> str:
    if one.reported:
        models = " and ".join(dict.fromkeys(str(row.model) for row in one.reported))
        return f"paper: {models} ({SOURCE}); it gives no mode, n or interval; shown beside CoT"
    models = " and ".join(dict.fromkeys(side.model or side.agent for _, side in _lettered(one)))
    return f"paper: reports no success rate of {models} on {one.env} {one.first.scheme}/{one.first.split}"


def _remarks(one: EnvComparison) -> list[str]:
    """Return the caveats of a comparison: errors, missing games, differences in elicitation."""
    lines = [f"WARNING, different settings: {difference}" for difference in one.asked_otherwise]
    for letter, side in _lettered(one):
        if side.left_out:
            lines.append(
                f"left out: {side.left_out} of the {_tasks(side.tasks)} of {letter}, which the other run has not played"
            )
        if side.episodes < side.planned:
            lines.append(f"NOT FINISHED: {letter} has {side.episodes} of {side.planned} episodes")
        if side.errors:
            lines.append(
                f"ERRORS: {side.errors} episodes of {letter} failed for a reason outside the model and are excluded from all "
                "statistics"
            )
        if side.samples > 1:
            lines.append(
                f"{letter} has {side.samples} samples of each task: its numbers are means over tasks of the means of their "
                "samples, intervals and the p of success are over tasks (bootstrap, exchange test)"
            )
        if side.partial:
            lines.append(f"PARTIAL: games of the split of {letter} were missing on the machine that played it")
    failed = {mode: played.errors for mode, played in one.modes.items() if played.errors}
    if failed:
        counted = ", ".join(f"{count} in mode {mode}" for mode, count in failed.items())
        lines.append(f"tasks left out because of an error in either run: {counted}")
    if any(played.n == 1 for played in one.modes.values()):
        lines.append("only one task: no test, and no intervals except those of Wilson and Newcombe")
    return lines


def _last(comparison: Comparison, *, verbose: bool) -> list[str]:
    lines = [_HOW if verbose else f"{_INTERVALS} (-v: how they are computed)"]
    tests = len(comparison.family)
    if tests and verbose:
        lines.append(
            "p, two-sided: exact McNemar (success), exchange of A and B within each task (all others); Holm: corrected for the "
            f"{tests} tests in the table; task types are not tested"
        )
    elif tests:
        lines.append(f"p: two-sided, over tasks; Holm: corrected for the {tests} tests in the table")
    if comparison.left_out:
        lines.append(f"left out, played by one side only: {', '.join(comparison.left_out)}")
    return lines
