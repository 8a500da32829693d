"""Boards and entries in the terminal. Invariant: drawn from what the store holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.leaderboard.boards.labels import MODES, minute
from cotbench.leaderboard.boards.view import BoardView, Standing
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import Entry
from cotbench.leaderboard.store.levels import LEGEND, LEVELS, MARKS, Level, head_level
from cotbench.runs.tables import run_table
from cotbench.stats.formatting import format_estimate

_RANKS = (
    "rank: only of a model's own replayed, whole entries; shared down to the last one whose paired difference to its leader is "
    "not significant (exact McNemar; over environments an exchange test; Holm, 5 %)"
)


TERMINAL_COLUMNS = {
    "rank": "rank",
    "entries": "entry",
    "name": "name",
    "success": "success",
    "behind": "behind the first",
    "gap": "CoT - prompt",
    "state": "state",
}
"""From a figure to the head of its column."""
_SHORT = {"behind": "behind"}
"""Heads where there is little room."""


def _legend(levels: Sequence[Level]) -> Text:
    return Text("; ".join(f"{MARKS[level]} {level}: {LEGEND[level]}" for level in levels))


def board_heading(board: Board) -> str:
    """Return a board's heading, by the names that flags take."""
    where = f"mean of {', '.join(board.envs)}" if board.overall else board.env
    return f"{where}, {board.scheme}/{board.split}, {MODES[board.mode]} mode"


_WIDE = 112
"""Columns of a terminal in which a row of a board takes one line; in fewer, ids and intervals stand below."""


def board_table(view: BoardView, rows: Sequence[Standing], width: int = _WIDE) -> RenderableType:
    """Return what `cotbench leaderboard list` prints of a board.

    Args:
        view: the board.
        rows: its rows, sorted.
        width: columns of the terminal.
    """
    narrow = width < _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    number: dict[str, Any] = {"justify": "right", "no_wrap": True}
    layout = {
        "rank": number,
        "name": {"min_width": 14 if narrow else 16, "overflow": "fold"},
        **dict.fromkeys(("success", "behind", "gap"), number),
    }
    titles = {**TERMINAL_COLUMNS, **(_SHORT if narrow else {})}
    for figure, title in titles.items():
        level = head_level(figure)
        if narrow and figure == "entries":
            continue
        table.add_column(f"{title} {MARKS[level]}" if level is not None else title, **layout.get(figure, {"no_wrap": True}))
    for row in rows:
        table.add_row(*map(Text, _stacked(_cells(row)) if narrow else _cells(row)))
    for one in view.reported:
        system = f"{one.model + ' ' if one.model else ''}{one.method}"
        cells = ("", "the paper", system, f"{one.value:.2f}", "", "", "reported")
        table.add_row(*(_stacked(cells) if narrow else cells), style="italic")
    if not rows and view.board.overall:
        return Group(
            Text(board_heading(view.board), style="bold"),
            Text("no system (a name and a team) has a replayed, whole entry of each environment yet"),
            Text(""),
        )
    below = [Text(f"{' '.join(row.entries)} has no rank: {'; '.join(row.unranked)}") for row in rows if row.unranked]
    below += [_legend(("replayed", "self-reported")), Text(_RANKS)]
    if view.reported:
        below.append(Text("the paper: as published, not replayed; it does not say in which mode success was measured"))
    return Group(Text(board_heading(view.board), style="bold"), table, *below, Text(""))


def _cells(row: Standing) -> tuple[str, ...]:
    return (
        "" if row.rank is None else str(row.rank),
        row.entries[0] if len(row.entries) == 1 else f"{len(row.entries)} entries",
        f"{row.details.name} ({row.details.team})" if row.details.team else row.details.name,
        format_estimate(row.success),
        "" if row.behind is None else format_estimate(row.behind, signed=True),
        format_estimate(row.gap, signed=True),
        row.level if row.state == "replayed" else row.state,
    )


def _stacked(cells: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cells of a row for a narrow terminal: the id below the name, an interval below its mean."""
    rank, entry, name, *numbers, state = cells
    return rank, f"{name}\n{entry}", *(number.replace(" [", "\n[") for number in numbers), state


def entry_page(entry: Entry) -> RenderableType:
    """Return what `cotbench leaderboard show` prints of an entry."""
    details = entry.details
    lines = [f"entry {entry.id}: {details.name}" + (f" ({details.team})" if details.team else "")]
    if details.link:
        lines.append(details.link)
    lines.append(f"submitted {minute(entry.submitted)}; {_state_of(entry)}")
    if entry.unranked:
        lines.append(f"no rank: {', '.join(entry.unranked)}")
    lines += entry.notes
    return Group(*map(Text, lines), Text(""), run_table(entry.summary), Text(""), *map(Text, _checked(entry)))


def _checked(entry: Entry) -> list[str]:
    """Return what was checked of an entry's numbers, and what was not."""
    by_level = {level: [name for name, found in entry.figures.items() if found == level] for level in reversed(LEVELS)}
    lines = [
        f"{MARKS[level]} {level} ({LEGEND[level]}): {', '.join(names).replace('_', ' ')}"
        for level, names in by_level.items()
        if names
    ]
    found = entry.reproduction
    if found is not None:
        lines.append(
            f"played again on {found.tasks} of {found.of} tasks, {minute(found.when)}: {found.decisions_agreeing:,} of "
            f"{found.decisions:,} decisions the same, episodes the same {format_estimate(found.episodes_agreeing)}"
        )
    return lines


def _state_of(entry: Entry) -> str:
    when = f" {minute(entry.settled)}" if entry.settled is not None else ""
    why = f": {entry.difference}" if entry.difference is not None else f": {entry.unchecked}" if entry.unchecked else ""
    return f"{entry.level if entry.state == 'replayed' else entry.state}{when}{why}"
