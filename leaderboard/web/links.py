"""The addresses of pages and files. Invariant: a page knows no address but through `Links`, so that a server and a folder of
files can hold the same pages; None is what is not offered there.
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
        """Return the first page."""

    def board(
        self,
        board: Board,
        state: State | None = "replayed",
        sort: str = "rank",
        descending: bool = False,
        page: int = 1,
        name: str = "",
    ) -> str | None:
        """Return a board; `state` None: entries of every state; `name`: those alone that have it in their name or team."""

    def chooser(self) -> str | None:
        """Return where the form that chooses a board is sent by GET."""

    def entry(self, entry: str) -> str:
        """Return an entry, by its id."""

    def asset(self, name: str) -> str:
        """Return a style sheet or a script of `assets`."""

    def submit(self) -> str | None:
        """Return the page to submit on."""

    def docs(self) -> str | None:
        """Return the pages about the API."""

    def schema(self) -> str | None:
        """Return the API's OpenAPI schema."""

    def bundle(self, entry: str) -> str | None:
        """Return the bundle of an entry."""

    def entry_json(self, entry: str) -> str | None:
        """Return an entry for programs."""

    def csv(self, board: Board, state: State | None = "replayed") -> str | None:
        """Return a board for spreadsheets."""

    def json(self, board: Board, state: State | None = "replayed") -> str | None:
        """Return a board for programs."""


@dataclass(frozen=True, slots=True)
class ServerLinks:
    """The addresses of a server.

    Attributes:
        assets: name -> file name with the hash of its content.
    """

    assets: dict[str, str]

    def home(self) -> str:
        """Return the first page."""
        return "/"

    def board(
        self,
        board: Board,
        state: State | None = "replayed",
        sort: str = "rank",
        descending: bool = False,
        page: int = 1,
        name: str = "",
    ) -> str:
        """Return a board's address, without the parameters that have their defaults."""
        query = {"env": board.env, "split": f"{board.scheme}/{board.split}", "mode": board.mode}
        if state != "replayed":
            query["state"] = state or "all"
        if (sort, descending) != ("rank", False):
            query |= {"sort": sort, "order": "descending" if descending else "ascending"}
        if name:
            query["name"] = name
        if page > 1:
            query["page"] = str(page)
        return f"/?{urlencode(query, safe='/')}"

    def chooser(self) -> str:
        """Return the first page, which reads the form."""
        return "/"

    def entry(self, entry: str) -> str:
        """Return an entry's page."""
        return f"/entries/{entry}"

    def asset(self, name: str) -> str:
        """Return its address, with the hash of its content, so that it may be cached for ever."""
        return f"/static/{self.assets[name]}"

    def submit(self) -> str:
        """Return the form."""
        return "/submit"

    def docs(self) -> str:
        """Return the API, to read."""
        return "/api"

    def schema(self) -> str:
        """Return the API, for programs."""
        return "/openapi.json"

    def bundle(self, entry: str) -> str:
        """Return the zip file."""
        return f"/api/entries/{entry}/bundle"

    def entry_json(self, entry: str) -> str:
        """Return the entry, from the API."""
        return f"/api/entries/{entry}"

    def csv(self, board: Board, state: State | None = "replayed") -> str:
        """Return the board as a table."""
        return f"/api/boards/{board.slug}.csv{_state(state)}"

    def json(self, board: Board, state: State | None = "replayed") -> str:
        """Return the board, from the API."""
        return f"/api/boards/{board.slug}{_state(state)}"


def _state(state: State | None) -> str:
    return "" if state == "replayed" else f"?state={state or 'all'}"
