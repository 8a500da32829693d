"""Titles and counts as the pages and the terminal show them. Invariant: one word for one thing, that of the command line where
it has one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cotbench.leaderboard.store.board import Board, overall_groups
from cotbench.leaderboard.store.entry import State
from cotbench.runs.tables import NAMES

MODES = NAMES
_TITLES: Final = {
    "alfworld": "ALFWorld",
    "alfworld-gen": "ALFWorld (generated)",
    "scienceworld": "ScienceWorld",
    "bfcl": "BFCL",
}


def env_title(env: str) -> str:
    """Return what pages call an environment, or the environments of an overall board: "ALFWorld, ScienceWorld and BFCL"."""
    *first, last = map(_title, overall_groups().get(env, (env,)))
    return f"{', '.join(first)} and {last}" if first else last


def _title(env: str) -> str:
    """Return an environment's title; its name where it has none, or is not registered in this process."""
    return _TITLES.get(env, env)


def board_title(board: Board) -> str:
    """Return a board's heading."""
    return f"{env_title(board.env)}, {board.scheme}/{board.split}, {MODES[board.mode]} mode"


def state_adjective(state: State | None) -> str:
    """Return a state as it stands before a noun, with a space: `verified `; nothing for all states."""
    return f"{state} " if state is not None else ""


def counted(n: int, noun: str, state: State | None = None) -> str:
    """Return a number of things in words: `1 verified entry`, `no entry`, `12 entries`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{f'{n:,}' if n else 'no'} {state_adjective(state)}{noun if n < 2 else many}"


def day(moment: datetime) -> str:
    """Return the day of a moment, which is in UTC."""
    return f"{moment:%Y-%m-%d}"


def minute(moment: datetime) -> str:
    """Return the minute of a moment, which is in UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
