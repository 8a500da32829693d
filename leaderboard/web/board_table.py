"""A board as a table of the page, and as CSV. Invariant: a cell shows what the row holds, with its interval; what a replay
recomputes stands apart from what it cannot check; the CSV has every number whole, and no text in it is a formula to a
spreadsheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from cotbench.leaderboard.boards.labels import counted, day
from cotbench.leaderboard.boards.overview import EnvOverview
from cotbench.leaderboard.boards.view import Standing
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.levels import MARKS, Level, head_level
from cotbench.leaderboard.submission.model_facts import size_text
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
        claimed: whether it is self-reported.
    """

    heads: tuple[Head, ...]
    note: str
    number: bool
    claimed: bool

    @property
    def sorted(self) -> str:
        """Return the value of `aria-sort`; empty where the table is not sorted by it."""
        return next((head.sorted for head in self.heads if head.sorted), "")


@dataclass(frozen=True, slots=True)
class ColumnGroup:
    """Neighbouring columns that were checked alike.

    Attributes:
        level: replayed or self-reported; None for what the leaderboard itself says.
        mark: of the level.
        span: how many columns.
    """

    level: Level | None
    mark: str
    span: int


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A standing, written out.

    Attributes:
        level: how far it was checked.
        state: the level, where it was replayed; else why not.
        parts: of an overall board: environment and address of each entry behind it.
        link: the submitter's own; empty where there is none.
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
    claims: tuple[Number, ...]
    link: str
    baseline: bool
    level: Level
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

    groups: tuple[ColumnGroup, ...]
    columns: tuple[Column, ...]
    rows: tuple[BoardRow, ...]
    reported: tuple[Reported, ...]

    @property
    def width(self) -> int:
        """Return how many columns there are."""
        return len(self.columns)


@dataclass(frozen=True, slots=True)
class _Spec:
    """A column: its figure, (words, sorted by; empty for what is not sorted by), note, whether it holds numbers."""

    figure: str
    by: tuple[tuple[str, str], ...] = ()
    note: str = ""
    number: bool = True


BOARD_COLUMNS = (
    _Spec("rank", (("Rank", "rank"),)),
    _Spec("name", (("Entry", "name"), ("team", "team")), number=False),
    _Spec("success", (("Success", "success"),)),
    _Spec("success", number=False),
    _Spec("behind", (("Behind first", ""),)),
    _Spec("score", (("Score", "score"),)),
    _Spec("gap", (("CoT − prompt", "gap"),)),
    _Spec("tasks", (("Tasks", ""),)),
    _Spec("consistency", (("Consistency", "consistency"),)),
    _Spec("tokens", (("Tokens", "tokens"),), "generated"),
    _Spec("computed", (("Tokens", "computed"),), "computed"),
    _Spec("dollars", (("Dollars", "dollars"),), "per episode"),
    _Spec("parameters", (("Model size", "parameters"),), "weights"),
    _Spec("state", (("State", ""),), number=False),
    _Spec("submitted", (("Submitted", "submitted"),), number=False),
)


def board_table(rows: Sequence[Standing], reported: Sequence[Success], query: BoardQuery, links: Links) -> BoardTable:
    """Make the table of a page.

    Args:
        rows: sorted, and no more than belong on the page.
        reported: the paper's rows.
        query: the page.
        links: the addresses.
    """
    # Where no run has prices, dollars are left out.
    priced = query.sort == "dollars" or any(row.dollars is not None for row in rows)
    specs = [spec for spec in BOARD_COLUMNS if priced or spec.figure != "dollars"]
    columns = tuple(
        Column(
            tuple(_head(*by, query, links) for by in spec.by),
            spec.note,
            spec.number,
            spec.number and head_level(spec.figure) == "self-reported",
        )
        for spec in specs
    )
    written = tuple(_row(row, query.board, links, priced) for row in rows)
    return BoardTable(_groups(specs), columns, written, tuple(map(_reported, reported)))


def _groups(specs: Sequence[_Spec]) -> tuple[ColumnGroup, ...]:
    runs = [(level, len(list(some))) for level, some in groupby(specs, key=lambda spec: head_level(spec.figure))]
    return tuple(ColumnGroup(level, MARKS[level] if level is not None else "", span) for level, span in runs)


def _head(title: str, column: str, query: BoardQuery, links: Links) -> Head:
    if not column:
        return Head(title, None, "")
    here = query.sort == column
    # A second time the other way round.
    descending = not query.descending if here else descends(column)
    order = ("descending" if query.descending else "ascending") if here else ""
    return Head(title, links.board(query.board, query.state, column, descending, name=query.name), order)


def _row(row: Standing, board: Board, links: Links, priced: bool) -> BoardRow:
    several = len(row.entries) > 1
    dollars = (number_of(row.dollars, digits=4),) if priced else ()
    size = Number(size_text(row.parameters), row.weights, row.parameters is not None)
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
        ),
        tasks=f"{row.tasks:,}",
        claims=(number_of(row.consistency), number_of(row.tokens), number_of(row.computed), *dollars, size),
        # Details that were stored once are not checked again.
        link=row.details.link if row.details.link.startswith(("https://", "http://")) else "",
        baseline=row.baseline,
        level=row.level,
        state=row.level if row.state == "replayed" else row.state,
        unranked=row.unranked,
        submitted=day(row.submitted),
    )


def _reported(one: Success) -> Reported:
    name = f"{one.model}, {one.method}" if one.model is not None else f"{one.method} (model not named)"
    return Reported(name, f"{one.value:.2f}", mark_of(Estimate(n=0, mean=one.value, low=None, high=None)))


@dataclass(frozen=True, slots=True)
class OverviewCell:
    """A board in the overview.

    Attributes:
        address: of the board; None where it has no entry.
        about: how many entries it has.
    """

    address: str | None
    success: Number
    leader: str
    about: str


def overview_rows(overview: Sequence[EnvOverview], links: Links) -> list[tuple[str, list[OverviewCell]]]:
    """Return the rows of the overview: title of the environment, a cell for each split.

    Args:
        overview: of all environments.
        links: the addresses.
    """
    found = []
    for one in overview:
        cells = []
        for leader in one.leaders:
            best = leader.best
            about = "no entry yet" if leader.board is None else counted(leader.entries, "entry", "replayed")
            address = None if leader.board is None else links.board(leader.board)
            name = best.details.name if best else ""
            cells.append(OverviewCell(address, number_of(best.success if best else None), name, about))
        found.append((one.title, cells))
    return found


CSV_COLUMNS = {
    "rank": "rank",
    "name": "name",
    "team": "team",
    "link": "link",
    "agent": "agent",
    "entries": "entries",
    "state": "state",
    "level": "level",
    "baseline": "baseline",
    "unranked": "unranked",
    "tasks": "tasks",
    "elicitation": "fingerprint",
    "submitted": "submitted",
    "success": "success",
    "behind first": "behind",
    "score": "score",
    "CoT - prompt": "gap",
    "consistency": "consistency",
    "tokens": "tokens",
    "tokens computed": "computed",
    "dollars": "dollars",
    "parameters": "parameters",
    "weights": "weights",
}
"""From a column's title to its figure."""


def board_csv(rows: Sequence[Standing]) -> str:
    """Return the rows as CSV (RFC 4180); the paper's rows, which were not replayed, are not in it.

    The title of a column that no replay can check says so; of the others, `level` says whether one has.
    """
    titles = tuple(
        f"{title} (self-reported)" if head_level(figure) == "self-reported" else title for title, figure in CSV_COLUMNS.items()
    )
    return csv_text(Table("board", "", "", titles, tuple(map(_csv_row, rows))))


def _csv_row(row: Standing) -> tuple[Cell, ...]:
    return (
        row.rank,
        row.details.name,
        row.details.team,
        row.details.link,
        row.agent,
        " ".join(row.entries),
        row.state,
        row.level,
        "yes" if row.baseline else "no",
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
        row.dollars,
        row.parameters,
        row.weights,
    )
