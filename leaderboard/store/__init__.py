"""The store: entries, their results and the tokens that allow to submit, in SQLite or PostgreSQL. Begin with `store`."""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.leaderboard.store.board import Board
    from cotbench.leaderboard.store.database import default_path
    from cotbench.leaderboard.store.entry import Entry, Result
    from cotbench.leaderboard.store.store import Store, accept_submission

_HOMES = {
    "Board": "board",
    "Entry": "entry",
    "Result": "entry",
    "Store": "store",
    "accept_submission": "store",
    "default_path": "database",
}

__all__ = [
    "Board",
    "Entry",
    "Result",
    "Store",
    "accept_submission",
    "default_path",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
