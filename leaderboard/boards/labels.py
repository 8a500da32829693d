"""Titles and counts as the pages and the terminal show them. Invariant: one word for one thing, that of the command line where
it has one.
"""

from __future__ import annotations

from datetime import datetime

from cotbench.envs import groups
from cotbench.errors import UnknownNameError
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import State
from cotbench.runs.tables import NAMES

MODES = NAMES


def env_title(env: str) -> str:
    """Return what pages call an environment, or the environments of an overall board: "ALFWorld, ScienceWorld and BFCL".

    An entry's environment need not be registered in this process; its name is its title then.
    """
    try:
        return groups.env_title(env)
    except UnknownNameError:
        return env


def board_title(board: Board) -> str:
    """Return a board's heading."""
    return f"{env_title(board.env)}, {board.scheme}/{board.split}, {MODES[board.mode]} mode"


def state_adjective(state: State | None) -> str:
    """Return a state as it stands before a noun, with a space: `replayed `; nothing for all states."""
    return f"{state} " if state is not None else ""


def counted(n: int, noun: str, state: State | None = None) -> str:
    """Return a number of things in words: `1 replayed entry`, `no entry`, `12 entries`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{f'{n:,}' if n else 'no'} {state_adjective(state)}{noun if n < 2 else many}"


def day(moment: datetime) -> str:
    """Return the day of a moment, which is in UTC."""
    return f"{moment:%Y-%m-%d}"


def minute(moment: datetime) -> str:
    """Return the minute of a moment, which is in UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
