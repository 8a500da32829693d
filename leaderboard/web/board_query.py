"""The board that an address asks for, and the boards that exist. Invariant: whatever stands in the address, the result is a
board that can exist and a column that can be sorted by, or an error that names what is known; environments that are registered
later have boards, too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cotbench.envs.groups import overall_groups
from cotbench.envs.registry import env_entry, env_names
from cotbench.errors import CotbenchError, UnknownNameError
from cotbench.leaderboard.boards.view import COLUMNS
from cotbench.leaderboard.store.board import Board, boards_of
from cotbench.leaderboard.store.entry import STATES, State
from cotbench.leaderboard.submission.check_tasks import UNSCORED
from cotbench.prompting.elicitation import MODES

_LOG = logging.getLogger(__name__)
ALL: Final = "all"
ORDERS = ("ascending", "descending")
_DESCENDING = frozenset({"success", "score", "gap", "consistency", "submitted"})
"""Columns that begin with their largest value."""
_KNOWN = ("env", "split", "mode", "state", "sort", "order", "page", "name")
_NAME = 100
"""Characters of a name that is looked for."""
_PAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class BoardQuery:
    """A page of a board.

    Attributes:
        state: of the entries; None: every state.
        sort: the column to sort by.
        page: counted from 1.
        name: a text that the names of the rows, or their teams, have in them; empty: all rows.
    """

    board: Board
    state: State | None = "replayed"
    sort: str = "rank"
    descending: bool = False
    page: int = 1
    name: str = ""


def envs_in_order() -> tuple[str, ...]:
    """Return the names that a board can have, overall ones first."""
    return (*overall_groups(), *env_names())


def all_boards() -> tuple[Board, ...]:
    """Return every board of the environments that are registered now, overall ones first."""
    groups = overall_groups()
    return _all_boards(tuple(groups.items()), tuple(env_names()))


@lru_cache(maxsize=8)
def _all_boards(groups: tuple[tuple[str, tuple[str, ...]], ...], envs: tuple[str, ...]) -> tuple[Board, ...]:
    behind = [*groups, *((env, (env,)) for env in envs)]
    return tuple(Board(name, *split, mode) for name, some in behind for split in _common_splits(some) for mode in MODES)


def _common_splits(envs: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (scheme, split) that are scored in each of the environments."""
    first, *others = map(_splits_of, envs)
    return [each for each in first if all(each in other for other in others)]


def _splits_of(env: str) -> list[tuple[str, str]]:
    """Return the (scheme, split) of an environment that are scored; none where its package cannot be loaded here."""
    try:
        schemes = env_entry(env).source().schemes()
    except CotbenchError as error:
        _LOG.warning("%s has no boards here: %s", env, error)
        return []
    return [(scheme, split) for scheme, splits in schemes.items() for split in splits if split not in UNSCORED]


def known_boards(existing: Iterable[Board]) -> tuple[Board, ...]:
    """Return every board of a registered environment, then those of others.

    Args:
        existing: boards that have entries; their environments need not be registered in this process.
    """
    found = dict.fromkeys(all_boards())
    for board in existing:
        found |= dict.fromkeys(boards_of(board.env, board.scheme, board.split))
    return tuple(found)


def parse_board_query(query: Mapping[str, str], existing: Sequence[Board]) -> BoardQuery:
    """Return the page of a board that an address asks for.

    Args:
        query: the address's parameters; what they leave out is chosen so that the board has entries, if one does.
        existing: boards that have entries.

    Raises:
        UnknownNameError: a parameter or a value that is not known.
    """
    for name in query:
        if name not in _KNOWN:
            raise UnknownNameError("parameter", name[:100], _KNOWN)
    state = _one("state", query.get("state") or "replayed", (*STATES, ALL))
    sort = _one("column", query.get("sort") or "rank", COLUMNS)
    order = _one("order", query.get("order") or ORDERS[descends(sort)], ORDERS)
    return BoardQuery(
        board=_board(query, existing),
        state=next((one for one in STATES if one == state), None),
        sort=sort,
        descending=order == "descending",
        page=_page(query.get("page") or "1"),
        name=(query.get("name") or "").strip()[:_NAME],
    )


def descends(column: str) -> bool:
    """Return whether a column, when it is sorted by, begins with its largest value."""
    return column in _DESCENDING


def _one(kind: str, given: str, known: Sequence[str]) -> str:
    if given not in known:
        raise UnknownNameError(kind, given[:100], known)
    return given


def _page(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _PAGES and len(text) < 9):
        raise UnknownNameError("page", text[:100], ())
    return int(text)


def _board(query: Mapping[str, str], existing: Sequence[Board]) -> Board:
    env, split, mode = (query.get(name) or None for name in ("env", "split", "mode"))
    boards = known_boards(existing)
    envs = tuple(dict.fromkeys(board.env for board in boards))
    if env is not None:
        _one("environment", env, envs)
    if mode is not None:
        _one("mode", mode, MODES)
    fitting = [board for board in boards if env in (None, board.env) and mode in (None, board.mode)]
    if split is not None:
        known = tuple(dict.fromkeys(_split_name(board) for board in fitting))
        if split not in known:
            raise UnknownNameError("split", split[:100], known, f"of {env}" if env is not None else "")
        fitting = [board for board in fitting if _split_name(board) == split]
    non_empty = set(existing)
    return min(fitting, key=lambda board: (board not in non_empty, *_preference(board), envs.index(board.env)))


def _split_name(board: Board) -> str:
    return f"{board.scheme}/{board.split}"


def _preference(board: Board) -> tuple[bool, bool, bool]:
    """Return a key that puts boards of the paper's splits first, and CoT before prompt."""
    return board.scheme != "paper", board.split != "ood", board.mode != "cot"
