"""The models of the API's answers, beside an entry. Invariant: the schema says it all, and answers are made of these models."""

from __future__ import annotations

from pydantic import BaseModel, Field

from cotbench.leaderboard.boards.view import Standing
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import Entry, State
from cotbench.leaderboard.store.levels import FIGURES, Checks
from cotbench.paper import Success
from cotbench.prompting.elicitation import Mode


class Refused(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="what is wrong and what to do, in one line")


class Accepted(BaseModel):
    """A submission that was kept."""

    id: str
    state: State
    url: str = Field(description="of the entry's page")


class Entries(BaseModel):
    """Entries, newest first."""

    total: int = Field(description="entries of that state, on all pages")
    entries: tuple[Entry, ...]


class BoardName(BaseModel):
    """A board."""

    slug: str
    env: str = Field(description="an environment, or the name of several")
    envs: tuple[str, ...]
    scheme: str
    split: str
    mode: Mode
    url: str = Field(description="of the board's page; empty where none is served")


class Boards(BaseModel):
    """The boards that have entries."""

    boards: tuple[BoardName, ...]


class BoardRows(BaseModel):
    """A board with its rows, by rank."""

    board: BoardName
    state: State | None = Field(description="of the entries in it; null: all of them")
    figures: dict[str, Checks] = Field(
        FIGURES, description="of each figure, whether a replay recomputes it and whether a rerun of the agent compares it"
    )
    rows: tuple[Standing, ...]
    reported: tuple[Success, ...] = Field(description="what the paper reports: not replayed, and not ranked")


class Health(BaseModel):
    """The server works, and so does its database."""

    status: str


def board_name(board: Board, url: str = "") -> BoardName:
    """Return a board as the API names it."""
    return BoardName(
        slug=board.slug, env=board.env, envs=board.envs, scheme=board.scheme, split=board.split, mode=board.mode, url=url
    )
