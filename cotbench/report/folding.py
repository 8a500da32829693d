"""Wide tables folded: the columns that a page has room for, and the others below, on demand. Invariant: every column of a table
is in exactly one part, and each part begins with the columns that name its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cotbench.report.cells import RenderedCell, RenderedTable

PAGE_WIDTH = 1088
"""Of the page's tables in CSS pixels, as `page.css` sets it (68 rem)."""
_VALUE, _BESIDE, _HEAD, _PADDING = 7.6, 6.0, 8.4, 19.2
"""Widths of a character of a number, of the small text beside it and of a column's head, and of a column's padding."""
_WRAPPED = 22
"""Characters at which a text wraps."""


@dataclass(frozen=True, slots=True)
class FoldedTable:
    """A table in parts.

    Attributes:
        head: what is shown at once.
        more: the other columns, each part no wider than the page.
        left: how many columns are in `more`.
    """

    head: RenderedTable
    more: tuple[RenderedTable, ...]
    left: int


def fold_table(table: RenderedTable, width: float = PAGE_WIDTH) -> FoldedTable:
    """Return a table in parts that fit a width.

    Args:
        table: whole.
        width: in CSS pixels.
    """
    widths = [_width(table, place) for place in range(len(table.columns))]
    names = list(range(table.named))
    parts: list[list[int]] = [[]]
    for place in range(table.named, len(table.columns)):
        taken = sum(widths[each] for each in (*names, *parts[-1]))
        if parts[-1] and taken + widths[place] > width:
            parts.append([])
        parts[-1].append(place)
    first, *others = parts
    more = [
        replace(_part(table, (*names, *some)), name=f"{table.name}-{number}", caption="", n=None)
        for number, some in enumerate(others, 2)
    ]
    return FoldedTable(_part(table, (*names, *first)), tuple(more), sum(map(len, others)))


def _part(table: RenderedTable, places: Sequence[int]) -> RenderedTable:
    return replace(
        table,
        columns=tuple(table.columns[place] for place in places),
        rows=tuple(tuple(row[place] for place in places) for row in table.rows),
    )


def _width(table: RenderedTable, place: int) -> float:
    """Return about how wide a column is, in CSS pixels."""
    head = max((len(word) for word in table.columns[place].name.split()), default=0) * _HEAD
    cells = [_cell_width(row[place]) for row in table.rows]
    return max([head, *cells]) + _PADDING


def _cell_width(cell: RenderedCell) -> float:
    value = len(cell.value) if cell.number else min(len(cell.value), _WRAPPED)
    return value * _VALUE + (len(cell.beside) + 1) * _BESIDE * bool(cell.beside)
