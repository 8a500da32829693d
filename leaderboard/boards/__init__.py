"""Boards: rows, ranks and their tests, and boards in the terminal. Begin with `view`."""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.leaderboard.boards.labels import env_title
    from cotbench.leaderboard.boards.ranking import ranks
    from cotbench.leaderboard.boards.view import BoardView, Standing, board_view, parse_board, sorted_rows

_HOMES = {
    "BoardView": "view",
    "Standing": "view",
    "board_view": "view",
    "env_title": "labels",
    "parse_board": "view",
    "ranks": "ranking",
    "sorted_rows": "view",
}

__all__ = [
    "BoardView",
    "Standing",
    "board_view",
    "env_title",
    "parse_board",
    "ranks",
    "sorted_rows",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
