"""The leaderboard as a folder of files, for any web server. Invariant: the pages are the server's own, every link in them is
relative and leads to a file that is there; bundles lie beside the entries, so that anyone can verify them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cotbench.leaderboard.boards.overview import env_overview
from cotbench.leaderboard.boards.view import board_view
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import State
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.submission.bundle import unpack
from cotbench.leaderboard.web.assets import assets
from cotbench.leaderboard.web.board_query import BoardQuery, known_boards, parse_board_query
from cotbench.leaderboard.web.board_table import board_csv
from cotbench.leaderboard.web.entry_sections import entry_episodes
from cotbench.leaderboard.web.models import BoardRows, Boards, board_name
from cotbench.leaderboard.web.pages import board_page, entry_page
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.folder import make_folder

INDEX = "index.html"
_STATES: tuple[State | None, ...] = ("replayed", None)
"""A page each: what counts, and all there is."""


@dataclass(frozen=True, slots=True)
class SiteLinks:
    """The addresses of a folder of files.

    Attributes:
        up: from the page to the top of the folder: "" or "../".
    """

    up: str

    def home(self) -> str:
        """Return the first board."""
        return f"{self.up}{INDEX}"

    def board(
        self,
        board: Board,
        state: State | None = "replayed",
        sort: str = "rank",
        descending: bool = False,
        page: int = 1,
        name: str = "",
    ) -> str | None:
        """Return a whole board by rank; None for another order. What was not replayed stands on the page of all."""
        return (
            f"{self.up}boards/{_stem(board, state)}.html" if (sort, descending, page, name) == ("rank", False, 1, "") else None
        )

    def chooser(self) -> None:
        """Return nothing: a form needs a server."""

    def entry(self, entry: str) -> str:
        """Return an entry's page."""
        return f"{self.up}entries/{entry}.html"

    def asset(self, name: str) -> str:
        """Return a style sheet or a script."""
        return f"{self.up}static/{assets()[name].filename}"

    def submit(self) -> None:
        """Return nothing: submitting needs a server."""

    def docs(self) -> None:
        """Return nothing: files have no API."""

    def schema(self) -> None:
        """Return nothing: files have no API."""

    def bundle(self, entry: str) -> str:
        """Return the bundle of an entry."""
        return f"{self.up}entries/{entry}.zip"

    def entry_json(self, entry: str) -> str:
        """Return an entry for programs."""
        return f"{self.up}entries/{entry}.json"

    def csv(self, board: Board, state: State | None = "replayed") -> str:
        """Return a board for spreadsheets."""
        return f"{self.up}boards/{_stem(board, state)}.csv"

    def json(self, board: Board, state: State | None = "replayed") -> str:
        """Return a board for programs."""
        return f"{self.up}boards/{_stem(board, state)}.json"


def _stem(board: Board, state: State | None) -> str:
    """Return the name of a board's files, without ending."""
    return board.slug if state == "replayed" else f"{board.slug}.all"


def write_site(store: Store, folder: Path) -> Path:
    """Write the site into a new or empty folder.

    Returns:
        Its first page.

    Raises:
        RunFolderError: the folder holds something, or cannot be made.
    """
    make_folder(folder, f"choose another folder, not {folder}", "folder of the site")
    for name in ("boards", "entries", "static"):
        (folder / name).mkdir(exist_ok=True)
    for asset in assets().values():
        write_atomically(folder / "static" / asset.filename, [asset.content])
    boards = store.boards()
    names = tuple(board_name(board, f"boards/{board.slug}.html") for board in boards)
    write_atomically(folder / "boards.json", [Boards(boards=names).model_dump_json(indent=2) + "\n"])
    for path, text in (*_boards(store, boards), *_entries(store)):
        write_atomically(folder / path, [text])
    for entry in store.entries():
        write_atomically(folder / "entries" / f"{entry.id}.zip", [store.bundle(entry.id)])
    view = parse_board_query({}, boards)
    overview = env_overview(store, known_boards(boards), boards)
    page = board_page(board_view(store, view.board, view.state), view, boards, SiteLinks(""), size=None, overview=overview)
    write_atomically(folder / INDEX, [page])  # Last: a site that has it is whole.
    return folder / INDEX


def _boards(store: Store, boards: list[Board]) -> Iterator[tuple[str, str]]:
    for board in boards:
        for state in _STATES:
            view, stem = board_view(store, board, state), _stem(board, state)
            yield f"boards/{stem}.html", board_page(view, BoardQuery(board, state), boards, SiteLinks("../"), size=None)
            yield f"boards/{stem}.csv", board_csv(view.rows)
            name = board_name(board, f"{stem}.html")
            rows = BoardRows(board=name, state=state, rows=view.rows, reported=view.reported)
            yield f"boards/{stem}.json", rows.model_dump_json(indent=2) + "\n"


def _entries(store: Store) -> Iterator[tuple[str, str]]:
    for entry in store.entries():
        yield f"entries/{entry.id}.html", entry_page(entry, entry_episodes(unpack(store.bundle(entry.id))), SiteLinks("../"))
        yield f"entries/{entry.id}.json", entry.model_dump_json(indent=2) + "\n"
