"""Boards and entries in the terminal. Invariant: drawn from what the store holds."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.leaderboard.boards.labels import MODES, minute
from cotbench.leaderboard.boards.view import BoardView, Standing
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import Entry
from cotbench.runs.tables import run_table
from cotbench.stats.formatting import format_estimate

_RANKS = (
    "rank: only of verified, whole entries; shared down to the last one whose paired difference to its leader is not "
    "significant (exact McNemar; over environments an exchange test; Holm, 5 %)"
)


def board_heading(board: Board) -> str:
    """Return a board's heading, by the names that flags take."""
    where = f"mean of {', '.join(board.envs)}" if board.overall else board.env
    return f"{where}, {board.scheme}/{board.split}, {MODES[board.mode]} mode"


def board_table(view: BoardView, rows: Sequence[Standing]) -> RenderableType:
    """Return what `cotbench leaderboard list` prints of a board.

    Args:
        view: the board.
        rows: its rows, sorted.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("entry", no_wrap=True)
    table.add_column("name", min_width=16, overflow="fold")
    for name in ("success", "behind the first", "CoT - prompt"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    for one in view.reported:
        system = f"{one.model + ' ' if one.model else ''}{one.method}"
        table.add_row("", "the paper", system, f"{one.value:.2f}", "", "", "reported", style="italic")
    if not rows and view.board.overall:
        return Group(
            Text(board_heading(view.board), style="bold"),
            Text("no system (a name and a team) has a verified, whole entry of each environment yet"),
            Text(""),
        )
    below = [Text(f"{' '.join(row.entries)} has no rank: {'; '.join(row.unranked)}") for row in rows if row.unranked]
    below.append(Text(_RANKS))
    if view.reported:
        below.append(Text("the paper: as published, not verified; it does not say in which mode success was measured"))
    return Group(Text(board_heading(view.board), style="bold"), table, *below, Text(""))


def _cells(row: Standing) -> tuple[str, ...]:
    return (
        "" if row.rank is None else str(row.rank),
        row.entries[0] if len(row.entries) == 1 else f"{len(row.entries)} entries",
        f"{row.details.name} ({row.details.team})" if row.details.team else row.details.name,
        format_estimate(row.success),
        "" if row.behind is None else format_estimate(row.behind, signed=True),
        format_estimate(row.gap, signed=True),
        row.state,
    )


def entry_page(entry: Entry) -> RenderableType:
    """Return what `cotbench leaderboard show` prints of an entry."""
    details = entry.details
    lines = [f"entry {entry.id}: {details.name}" + (f" ({details.team})" if details.team else "")]
    if details.link:
        lines.append(details.link)
    lines.append(f"submitted {minute(entry.submitted)}; {_state_of(entry)}")
    if entry.unranked:
        lines.append(f"no rank: {', '.join(entry.unranked)}")
    return Group(*map(Text, lines), Text(""), run_table(entry.summary))


def _state_of(entry: Entry) -> str:
    when = f" {minute(entry.settled)}" if entry.settled is not None else ""
    why = f": {entry.difference}" if entry.difference is not None else ""
    return f"{entry.state}{when}{why}"
