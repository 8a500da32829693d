"""Boards and entries in the terminal. Invariant: drawn from what the store holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType

from cotbench.leaderboard.boards.labels import MODES, minute
from cotbench.leaderboard.boards.view import BoardView, Standing
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import Entry
from cotbench.leaderboard.store.levels import LEGEND, LEVELS, MARKS, Level, head_level
from cotbench.paragraph import Line, Paragraph, together
from cotbench.runs.tables import run_table
from cotbench.stats.formatting import estimate_cell, format_estimate
from cotbench.text_table import TableColumn, TextCell, TextTable, table_row

_RANKS = (
    "rank: only for entries that were replayed, played the whole split and are no baseline; entries whose paired difference "
    "from the leader of their rank is not significant share it (exact McNemar; over environments an exchange test; Holm, 5 %)"
)

TERMINAL_COLUMNS = {
    "rank": "rank",
    "name": "name",
    "entries": "entry",
    "success": "success",
    "gap": "CoT - prompt",
    "behind": "behind the first",
    "state": "state",
}
"""From a figure to the head of its column; the entry's id stands beside the name, or below it."""


def _legend(levels: Sequence[Level]) -> str:
    return "; ".join(f"{MARKS[level]} {level}: {LEGEND[level]}" for level in levels)


def board_heading(board: Board) -> str:
    """Return a board's heading, by the names that flags take."""
    where = f"mean of {', '.join(board.envs)}" if board.overall else board.env
    return f"{where}, {board.scheme}/{board.split}, {MODES[board.mode]} mode"


def board_tables(boards: Iterable[tuple[BoardView, Sequence[Standing]]], *, verbose: bool = False) -> RenderableType:
    """Return what `cotbench leaderboard list` prints: each board, and below the last what the marks mean.

    Args:
        boards: boards with their rows, sorted.
        verbose: say how ranks are given.
    """
    listed = list(boards)
    parts = [part for view, rows in listed for part in (board_table(view, rows), Line(""))]
    levels: tuple[Level, ...] = ("replayed", "self-reported")
    below = [_legend(levels), _RANKS] if verbose else [f"{_legend(levels)}; -v: how ranks are given"]
    if any(view.reported for view, _ in listed):
        below.append("the paper: as published, not replayed; it does not say in which mode success was measured")
    return Group(*parts, *map(Paragraph, below))


def board_table(view: BoardView, rows: Sequence[Standing]) -> RenderableType:
    """Return a board with its rows.

    Args:
        view: the board.
        rows: its rows, sorted.
    """
    heading = Paragraph(board_heading(view.board), "bold")
    if not rows and view.board.overall:
        return Group(heading, Paragraph("no system (a name and a team) has a replayed, whole entry in each environment yet"))
    heads = {figure: _head(figure, title) for figure, title in TERMINAL_COLUMNS.items()}
    columns = (
        TableColumn(heads["rank"]),
        TableColumn(heads["name"], "label", heads["entries"]),
        *(TableColumn(heads[figure]) for figure in ("success", "gap", "behind")),
        TableColumn(heads["state"], "label"),
    )
    reported = [
        table_row(
            "",
            TextCell(f"{one.model + ' ' if one.model else ''}{one.method}", "the paper"),
            f"{one.value:.2f}",
            "",
            "",
            "reported",
            style="italic",
        )
        for one in view.reported
    ]
    table = TextTable(columns, (*(table_row(*_cells(row)) for row in rows), *reported))
    below = [f"{' '.join(row.entries)} has no rank: {'; '.join(row.unranked)}" for row in rows if row.unranked]
    return Group(heading, table, *map(Paragraph, below))


def _head(figure: str, title: str) -> str:
    level = head_level(figure)
    return title if level is None else title + together(f" {MARKS[level]}")


def _cells(row: Standing) -> tuple[str | TextCell, ...]:
    name = f"{row.details.name} ({row.details.team})" if row.details.team else row.details.name
    return (
        "" if row.rank is None else str(row.rank),
        TextCell(name, row.entries[0] if len(row.entries) == 1 else f"{len(row.entries)} entries"),
        estimate_cell(row.success),
        estimate_cell(row.gap, signed=True),
        "" if row.behind is None else estimate_cell(row.behind, signed=True),
        row.level if row.state == "replayed" else row.state,
    )


def entry_page(entry: Entry, *, verbose: bool = False) -> RenderableType:
    """Return what `cotbench leaderboard show` prints of an entry.

    Args:
        entry: the entry.
        verbose: show all rows of its numbers, and how each interval is computed.
    """
    details = entry.details
    lines = [f"entry {entry.id}: {details.name}" + (f" ({details.team})" if details.team else "")]
    if details.link:
        lines.append(details.link)
    lines.append(f"submitted {minute(entry.submitted)}; {_state_of(entry)}")
    if entry.unranked:
        lines.append(f"no rank: {', '.join(entry.unranked)}")
    lines += entry.notes
    numbers = run_table(entry.summary, verbose=verbose)
    return Group(*map(Paragraph, lines), Line(""), numbers, Line(""), *map(Paragraph, _checked(entry)))


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
            f"{found.decisions:,} decisions are the same, identical episodes {format_estimate(found.episodes_agreeing)}"
        )
    return lines


def _state_of(entry: Entry) -> str:
    when = f" {minute(entry.settled)}" if entry.settled is not None else ""
    why = f": {entry.difference}" if entry.difference is not None else f": {entry.unchecked}" if entry.unchecked else ""
    return f"{entry.level if entry.state == 'replayed' else entry.state}{when}{why}"
