"""How things are called on the pages. Invariant: one word for one thing, that of the command line where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import State
from cotbench.runs.tables import NAMES

MODES = NAMES
ENVS: Mapping[str, str] = {
    "all": "ALFWorld, ScienceWorld and BFCL",
    "all-gen": "ALFWorld (generated), ScienceWorld and BFCL",
    "alfworld": "ALFWorld",
    "alfworld-gen": "ALFWorld (generated)",
    "scienceworld": "ScienceWorld",
    "bfcl": "BFCL",
}


def env_title(env: str) -> str:
    """An environment, or an overall board's environments."""
    return ENVS.get(env, env)


def board_title(board: Board) -> str:
    """A board's heading."""
    return f"{env_title(board.env)}, {board.scheme}/{board.split}, {MODES[board.mode]} mode"


def of_state(state: State | None) -> str:
    """What the entries of a state are called before their noun: `verified `, or nothing for all."""
    return f"{state} " if state is not None else ""


def counted(n: int, noun: str, state: State | None = None) -> str:
    """`1 verified entry`, `no entry`, `12 entries`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{f'{n:,}' if n else 'no'} {of_state(state)}{noun if n < 2 else many}"


def day(moment: datetime) -> str:
    """The day, UTC."""
    return f"{moment:%Y-%m-%d}"


def minute(moment: datetime) -> str:
    """The minute, UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
