"""All environments at a glance: who leads in domain and out of it. Invariant: what it shows of a board is what the board shows;
an environment without entries is there, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cotbench.leaderboard.boards.labels import env_title
from cotbench.leaderboard.boards.view import Standing, board_view
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.store import Store

SPLITS = {"id": "In domain", "ood": "Out of domain"}
"""The splits of the paper's scheme that are shown, each with its title."""


@dataclass(frozen=True, slots=True)
class Leader:
    """A board in one cell.

    Attributes:
        board: the board; None where it has no entry.
        best: its first ranked entry; None where no entry has a rank yet.
        entries: how many replayed entries it has.
    """

    board: Board | None = None
    best: Standing | None = None
    entries: int = 0


@dataclass(frozen=True, slots=True)
class EnvOverview:
    """An environment, or a mean over several, with the leaders of its splits (`SPLITS`)."""

    title: str
    leaders: tuple[Leader, ...]


def env_overview(store: Store, known: Iterable[Board], existing: Sequence[Board]) -> tuple[EnvOverview, ...]:
    """Return a row for each environment, in CoT mode.

    Args:
        store: holds the entries.
        known: every board that can exist, in the order of the rows.
        existing: those that have entries.
    """
    boards = [board for board in known if board.scheme == "paper" and board.mode == "cot"]
    by_split = {(board.env, board.split): board for board in boards}
    rows = []
    for env in dict.fromkeys(board.env for board in boards):
        some = [by_split.get((env, split)) for split in SPLITS]
        if any(some):
            rows.append(EnvOverview(env_title(env), tuple(_leader(store, board, existing) for board in some)))
    return tuple(rows)


def _leader(store: Store, board: Board | None, existing: Sequence[Board]) -> Leader:
    if board is None or board not in existing:
        return Leader()
    rows = board_view(store, board).rows
    return Leader(board, next((row for row in rows if row.rank is not None), None), len(rows))
