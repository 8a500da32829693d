"""What an address asks of the first page. Invariant: pure; whatever stands in the address, the answer is a board that can exist
and a column that can be sorted by, or an error that names what is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from cotbench.envs.registry import env_entry, env_names
from cotbench.errors import UnknownNameError
from cotbench.leaderboard.boards.view import COLUMNS
from cotbench.leaderboard.store.board import OVERALL, Board
from cotbench.leaderboard.store.entry import STATES, State
from cotbench.leaderboard.submission.check_tasks import TRAIN
from cotbench.prompting.elicitation import MODES

ALL: Final = "all"
ORDERS = ("ascending", "descending")
_DESCENDING = frozenset({"success", "score", "gap", "consistency", "submitted"})
"""Columns that begin with their largest value."""
_KNOWN = ("env", "split", "mode", "state", "sort", "order", "page")
_PAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class BoardQuery:
    """What is to be shown. `state` None: every state; `page` counts from 1."""

    board: Board
    state: State | None = "verified"
    sort: str = "rank"
    descending: bool = False
    page: int = 1


def envs_in_order() -> tuple[str, ...]:
    """The names that a board can have, overall ones first."""
    return (*OVERALL, *env_names())


@cache
def splits_of(env: str) -> tuple[tuple[str, str], ...]:
    """The (scheme, split) that are scored; of an overall board those that all its environments have."""
    found = [
        [(scheme, split) for scheme, splits in env_entry(one).source().schemes().items() for split in splits]
        for one in OVERALL.get(env, (env,))
    ]
    return tuple(each for each in found[0] if each[1] != TRAIN and all(each in others for others in found[1:]))


@cache
def all_boards() -> tuple[Board, ...]:
    """Every board that can exist."""
    return tuple(Board(env, *split, mode) for env in envs_in_order() for split in splits_of(env) for mode in MODES)


def parse_board_query(query: Mapping[str, str], existing: Sequence[Board]) -> BoardQuery:
    """What the address asks for.

    Args:
        query: of the address; what it does not say is chosen so that the board has entries, if one does.
        existing: boards that have entries.

    Raises:
        UnknownNameError: it asks for something that there is not.
    """
    for name in query:
        if name not in _KNOWN:
            raise UnknownNameError("parameter", name[:100], _KNOWN)
    state = _one("state", query.get("state") or "verified", (*STATES, ALL))
    sort = _one("column", query.get("sort") or "rank", COLUMNS)
    order = _one("order", query.get("order") or ORDERS[descends(sort)], ORDERS)
    return BoardQuery(
        board=_board(query, existing),
        state=next((one for one in STATES if one == state), None),
        sort=sort,
        descending=order == "descending",
        page=_page(query.get("page") or "1"),
    )


def descends(column: str) -> bool:
    """Whether a column that is sorted by begins with its largest value."""
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
    if env is not None:
        _one("environment", env, envs_in_order())
    if mode is not None:
        _one("mode", mode, MODES)
    if split is not None:
        where = (env,) if env is not None else envs_in_order()
        known = dict.fromkeys(f"{scheme}/{name}" for one in where for scheme, name in splits_of(one))
        if split not in known:
            raise UnknownNameError("split", split[:100], known, f"of {env}" if env is not None else "")
    fitting = [
        board
        for board in all_boards()
        if (env or board.env, split or f"{board.scheme}/{board.split}", mode or board.mode)
        == (board.env, f"{board.scheme}/{board.split}", board.mode)
    ]
    there = set(existing)
    return min(fitting, key=lambda board: (board not in there, *_preference(board)))


def _preference(board: Board) -> tuple[bool, bool, bool, int]:
    """Overall boards of the whole benchmark first, then those that the paper has; CoT before prompt."""
    return (
        board.scheme != "paper",
        board.split != "ood",
        board.mode != "cot",
        envs_in_order().index(board.env),
    )
