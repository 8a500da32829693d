"""A board as a table of the page, and as CSV. Invariant: a cell shows what the row holds, with its interval; the CSV has every
number whole, and no text in it is a formula to a spreadsheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cotbench.leaderboard.boards.labels import day
from cotbench.leaderboard.boards.view import Standing
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.web.board_query import BoardQuery, descends
from cotbench.leaderboard.web.links import Links
from cotbench.leaderboard.web.marks import Mark, Number, mark_of, number_of
from cotbench.paper import Success
from cotbench.report.cells import csv_text
from cotbench.report.page import Cell, Table
from cotbench.stats.estimates import Estimate


@dataclass(frozen=True, slots=True)
class Head:
    """A sortable part of a column's head.

    Attributes:
        title: the words.
        address: sorts by it; None where that is not offered.
        sorted: `ascending`, `descending`, or empty where the rows are sorted by something else.
    """

    title: str
    address: str | None
    sorted: str


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column.

    Attributes:
        heads: what can be sorted by; mostly one, none over what is drawn.
        note: in small letters under it.
    """

    heads: tuple[Head, ...]
    note: str
    number: bool

    @property
    def sorted(self) -> str:
        """Return the value of `aria-sort`; empty where the table is not sorted by it."""
        return next((head.sorted for head in self.heads if head.sorted), "")


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A standing, written out.

    Attributes:
        parts: of an overall board: environment and address of each entry behind it.
        address: of the entry; None where there are several.
    """

    rank: str
    name: str
    team: str
    address: str | None
    parts: tuple[tuple[str, str], ...]
    success: Number
    mark: Mark | None
    numbers: tuple[Number, ...]
    tasks: str
    state: str
    unranked: tuple[str, ...]
    submitted: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A row of the paper's."""

    name: str
    success: str
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class BoardTable:
    """A page of a board."""

    columns: tuple[Column, ...]
    rows: tuple[BoardRow, ...]
    reported: tuple[Reported, ...]

    @property
    def width(self) -> int:
        """Return how many columns there are."""
        return len(self.columns)


@dataclass(frozen=True, slots=True)
class _Spec:
    """A column: (words, sorted by; empty for what is not sorted by), note, whether it holds numbers."""

    by: tuple[tuple[str, str], ...] = ()
    note: str = ""
    number: bool = True


_COLUMNS = (
    _Spec((("Rank", "rank"),)),
    _Spec((("Entry", "name"), ("team", "team")), number=False),
    _Spec((("Success", "success"),)),
    _Spec(number=False),
    _Spec((("Behind first", ""),)),
    _Spec((("Score", "score"),)),
    _Spec((("CoT − prompt", "gap"),)),
    _Spec((("Consistency", "consistency"),)),
    _Spec((("Tokens", "tokens"),), "generated"),
    _Spec((("Tokens", "computed"),), "computed"),
    _Spec((("Tasks", ""),)),
    _Spec((("State", ""),), number=False),
    _Spec((("Submitted", "submitted"),), number=False),
)


def board_table(rows: Sequence[Standing], reported: Sequence[Success], query: BoardQuery, links: Links) -> BoardTable:
    """Make the table of a page.

    Args:
        rows: sorted, and no more than belong on the page.
        reported: the paper's rows.
        query: the page.
        links: the addresses.
    """
    columns = tuple(Column(tuple(_head(*by, query, links) for by in spec.by), spec.note, spec.number) for spec in _COLUMNS)
    return BoardTable(columns, tuple(_row(row, query.board, links) for row in rows), tuple(map(_reported, reported)))


def _head(title: str, column: str, query: BoardQuery, links: Links) -> Head:
    if not column:
        return Head(title, None, "")
    here = query.sort == column
    # A second time the other way round.
    descending = not query.descending if here else descends(column)
    order = ("descending" if query.descending else "ascending") if here else ""
    return Head(title, links.board(query.board, query.state, column, descending), order)


def _row(row: Standing, board: Board, links: Links) -> BoardRow:
    several = len(row.entries) > 1
    return BoardRow(
        rank=str(row.rank) if row.rank is not None else "–",
        name=row.details.name,
        team=row.details.team,
        address=None if several else links.entry(row.entries[0]),
        parts=tuple((env, links.entry(entry)) for env, entry in zip(board.envs, row.entries, strict=True)) if several else (),
        success=number_of(row.success),
        mark=mark_of(row.success),
        numbers=(
            number_of(row.behind, plus=True),
            number_of(row.score),
            number_of(row.gap, plus=True),
            number_of(row.consistency),
            number_of(row.tokens),
            number_of(row.computed),
        ),
        tasks=f"{row.tasks:,}",
        state=row.state,
        unranked=row.unranked,
        submitted=day(row.submitted),
    )


def _reported(one: Success) -> Reported:
    name = f"{one.model}, {one.method}" if one.model is not None else f"{one.method} (model not named)"
    return Reported(name, f"{one.value:.2f}", mark_of(Estimate(n=0, mean=one.value, low=None, high=None)))


_CSV_COLUMNS = (
    "rank",
    "name",
    "team",
    "link",
    "agent",
    "entries",
    "state",
    "unranked",
    "tasks",
    "elicitation",
    "submitted",
    "success",
    "behind first",
    "score",
    "CoT - prompt",
    "consistency",
    "tokens",
    "tokens computed",
)


def board_csv(rows: Sequence[Standing]) -> str:
    """Return the rows as CSV (RFC 4180); the paper's rows, which are not verified, are not in it."""
    return csv_text(Table("board", "", "", _CSV_COLUMNS, tuple(map(_csv_row, rows))))


def _csv_row(row: Standing) -> tuple[Cell, ...]:
    return (
        row.rank,
        row.details.name,
        row.details.team,
        row.details.link,
        row.agent,
        " ".join(row.entries),
        row.state,
        "; ".join(row.unranked),
        row.tasks,
        row.fingerprint,
        row.submitted.isoformat(),
        row.success,
        row.behind,
        row.score,
        row.gap,
        row.consistency,
        row.tokens,
        row.computed,
    )
