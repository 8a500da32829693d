"""Where things are. Invariant: a page knows no address but through `Links`, so that a server and a folder of files can hold the
same pages; None is what is not offered there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import State


class Links(Protocol):
    """The addresses that pages need."""

    def home(self) -> str:
        """The first page."""

    def board(
        self, board: Board, state: State | None = "verified", sort: str = "rank", descending: bool = False, page: int = 1
    ) -> str | None:
        """A board; `state` None: entries of every state."""

    def chooser(self) -> str | None:
        """Where the form that chooses a board is sent by GET."""

    def entry(self, entry: str) -> str:
        """An entry, by its id."""

    def asset(self, name: str) -> str:
        """A style sheet or a script of `assets`."""

    def submit(self) -> str | None:
        """The page to submit on."""

    def docs(self) -> str | None:
        """The pages about the API."""

    def schema(self) -> str | None:
        """The API's OpenAPI schema."""

    def bundle(self, entry: str) -> str | None:
        """What was submitted."""

    def entry_json(self, entry: str) -> str | None:
        """An entry for programs."""

    def csv(self, board: Board, state: State | None = "verified") -> str | None:
        """A board for spreadsheets."""

    def json(self, board: Board, state: State | None = "verified") -> str | None:
        """A board for programs."""


@dataclass(frozen=True, slots=True)
class ServerLinks:
    """The addresses of a server.

    Attributes:
        assets: name -> file name with the hash of its content.
    """

    assets: dict[str, str]

    def home(self) -> str:
        """The first page."""
        return "/"

    def board(
        self, board: Board, state: State | None = "verified", sort: str = "rank", descending: bool = False, page: int = 1
    ) -> str:
        """A board; what is as usual does not stand in its address."""
        asked = {"env": board.env, "split": f"{board.scheme}/{board.split}", "mode": board.mode}
        if state != "verified":
            asked["state"] = state or "all"
        if (sort, descending) != ("rank", False):
            asked |= {"sort": sort, "order": "descending" if descending else "ascending"}
        if page > 1:
            asked["page"] = str(page)
        return f"/?{urlencode(asked, safe='/')}"

    def chooser(self) -> str:
        """The first page reads the form."""
        return "/"

    def entry(self, entry: str) -> str:
        """An entry's page."""
        return f"/entries/{entry}"

    def asset(self, name: str) -> str:
        """By its hash, so that it may be kept for ever."""
        return f"/static/{self.assets[name]}"

    def submit(self) -> str:
        """The form."""
        return "/submit"

    def docs(self) -> str:
        """The API, to read."""
        return "/api"

    def schema(self) -> str:
        """The API, for programs."""
        return "/openapi.json"

    def bundle(self, entry: str) -> str:
        """The zip file."""
        return f"/api/entries/{entry}/bundle"

    def entry_json(self, entry: str) -> str:
        """The entry, from the API."""
        return f"/api/entries/{entry}"

    def csv(self, board: Board, state: State | None = "verified") -> str:
        """The board as a table."""
        return f"/api/boards/{board.slug}.csv{_state(state)}"

    def json(self, board: Board, state: State | None = "verified") -> str:
        """The board, from the API."""
        return f"/api/boards/{board.slug}{_state(state)}"


def _state(state: State | None) -> str:
    return "" if state == "verified" else f"?state={state or 'all'}"
