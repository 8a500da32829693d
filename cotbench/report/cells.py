"""Cells of a table as text, for the page and for its CSV. Invariant: the page shows the same digits as the terminal
(`runs.tables`), with the signs of `typography`; the CSV has every number in full precision, and no text in it is a formula to a
spreadsheet.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cotbench.report.page import Cell, Figure, Table
from cotbench.report.typography import typeset, typeset_name
from cotbench.stats.estimates import Estimate
from cotbench.stats.formatting import format_estimate

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of texts that a spreadsheet would execute."""
_NUMERIC = re.compile(r"[<+-]?\d+(\.\d+)?[%*]?")
"""A text that is a number: a p-value, a share of the training."""
_GROUPED_BY = "split"
"""Name of the column by whose values the rows of a table are grouped."""


@dataclass(frozen=True, slots=True)
class RenderedCell:
    """A cell on the page.

    Attributes:
        value: the number or the text.
        beside: small text after it: the interval, and n where the table does not give it elsewhere.
        number: whether it is aligned to the right.
        bold: whether it is set in bold.
    """

    value: str
    beside: str = ""
    number: bool = False
    bold: bool = False


@dataclass(frozen=True, slots=True)
class RenderedColumn:
    """The head of a column."""

    name: str
    number: bool
    paper: bool


@dataclass(frozen=True, slots=True)
class RenderedTable:
    """A table on the page.

    Attributes:
        named: how many columns, from the first on, name a row.
        groups: heading and number of the rows under it, in their order; one group without heading where rows are not grouped.
        n: of every estimate, where they share it; then it is written once for the table. Where the estimates of each row share
            it, it is written after the first of the row; elsewhere after each.
    """

    name: str
    title: str
    caption: str
    columns: tuple[RenderedColumn, ...]
    rows: tuple[tuple[RenderedCell, ...], ...]
    n: int | None
    named: int = 1
    groups: tuple[tuple[str, int], ...] = ()


def render_table(table: Table) -> RenderedTable:
    """Return the table with its cells as text, the rows grouped by split where there are several.

    Args:
        table: the data.

    Raises:
        ValueError: a row has another length than the columns, or an unknown column has an option.
    """
    _check(table)
    table, groups = _grouped(table)
    found = [{cell.n for cell in row if isinstance(cell, Estimate) and cell.mean is not None} for row in table.rows]
    known = set().union(*found)
    shared = known.pop() if len(known) == 1 else None
    by_row = all(len(some) <= 1 for some in found)
    rows = []
    for row in table.rows:
        places = [place for place, cell in enumerate(row) if isinstance(cell, Estimate) and cell.mean is not None]
        with_n = set() if shared is not None else set(places[:1]) if by_row else set(places)
        rows.append(
            tuple(
                replace(
                    _cell(cell, column in table.signed, table.digits.get(column), place in with_n), bold=column in table.bold
                )
                for place, (column, cell) in enumerate(zip(table.columns, row, strict=True))
            )
        )
    numeric = [any(row[place].number for row in rows) for place in range(len(table.columns))]
    columns = tuple(
        RenderedColumn(typeset_name(name), number, name in table.paper)
        for name, number in zip(table.columns, numeric, strict=True)
    )
    text = typeset(table.title), typeset(table.caption)
    return RenderedTable(table.name, *text, columns, tuple(rows), shared, _named(table), groups)


def _grouped(table: Table) -> tuple[Table, tuple[tuple[str, int], ...]]:
    """Return the table with its rows in the order of their splits and without that column, and the groups."""
    whole = (("", len(table.rows)),) if table.rows else ()
    if table.columns.count(_GROUPED_BY) != 1:
        return table, whole
    place = table.columns.index(_GROUPED_BY)
    values = list(dict.fromkeys(str(row[place]) for row in table.rows))
    if len(values) < 2:
        return table, whole

    def rest(cells: Sequence[Cell]) -> tuple[Cell, ...]:
        return (*cells[:place], *cells[place + 1 :])

    rows = {value: [rest(row) for row in table.rows if str(row[place]) == value] for value in values}
    columns = (*table.columns[:place], *table.columns[place + 1 :])
    ordered = tuple(row for some in rows.values() for row in some)
    return replace(table, columns=columns, rows=ordered), tuple((value, len(some)) for value, some in rows.items())


def _named(table: Table) -> int:
    """Return how many columns, from the first on, hold texts alone."""
    texts = [all(isinstance(row[place], str) for row in table.rows) for place in range(len(table.columns))]
    return max(1, texts.index(False) if False in texts else 1)


def _check(table: Table) -> None:
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(f"table {table.name} has {len(table.columns)} columns and a row of {len(row)} cells: {row}")
    unknown = sorted((table.signed | table.paper | table.bold | set(table.digits)) - set(table.columns))
    if unknown:
        raise ValueError(f"table {table.name} has no column {unknown[0]!r}")


def _cell(cell: Cell, signed: bool, digits: int | None, with_n: bool) -> RenderedCell:
    if isinstance(cell, str):
        number = _NUMERIC.fullmatch(cell) is not None
        return RenderedCell("–", number=True) if cell == "-" else RenderedCell(typeset(cell), number=number)
    if cell is None:
        return RenderedCell("–", number=True)
    if isinstance(cell, Estimate):
        value, _, interval = estimate_text(cell, signed, digits).partition(" ")
        n = f"n={cell.n}" if with_n and cell.mean is not None and "[n=" not in interval else ""
        beside = typeset(" ".join(filter(None, (interval, n))))
        return RenderedCell("–" if value == "-" else typeset(value), beside, number=True)
    if isinstance(cell, int):
        return RenderedCell(typeset(f"{cell:{'+' if signed else ''}d}"), number=True)
    form = f".{digits}f" if digits is not None else ".3g"
    return RenderedCell(typeset(f"{cell:{'+' if signed else ''}{form}}"), number=True)


def estimate_text(estimate: Estimate, signed: bool = False, digits: int | None = None) -> str:
    """Return an estimate as text, such as `0.25 [0.05, 0.70]`.

    Args:
        estimate: the estimate.
        signed: show the sign of a positive number.
        digits: after the point; None: two, fewer for large numbers.
    """
    if digits is None:
        size = max((abs(value) for value in (estimate.mean, estimate.low, estimate.high) if value is not None), default=0.0)
        digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return format_estimate(estimate, digits, signed)


def numbers_of(figure: Figure) -> Table:
    """Return the numbers of a figure as a table."""
    rows: list[tuple[Cell, ...]] = []
    dotted = any(dots for panel in figure.panels for line in panel.lines for dots in line.dots)
    for panel in figure.panels:
        for line in panel.lines:
            for place, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
                where = panel.labels[int(x)] if panel.labels else f"{x:g}"
                dots = " ".join(f"{dot:.3g}" for dot in line.dots[place]) if line.dots else ""
                rows.append((panel.title, line.label, where, y, *([dots] if dotted else [])))
    columns = ("panel", "line", figure.x or "x", figure.y or "y", *(["dots"] if dotted else []))
    return Table(figure.name, figure.title, "", columns, tuple(rows))


def csv_text(table: Table) -> str:
    """Return the table as CSV (RFC 4180); a column of estimates becomes four: its name, and with `low`, `high`, `n` after
    it.
    """
    _check(table)
    wide = [any(isinstance(row[place], Estimate) for row in table.rows) for place in range(len(table.columns))]
    head = [
        part
        for name, four in zip(table.columns, wide, strict=True)
        for part in ((name, f"{name} low", f"{name} high", f"{name} n") if four else (name,))
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(map(_plain, head))
    for row in table.rows:
        parts: list[str | int | float | None] = []
        for cell, four in zip(row, wide, strict=True):
            if isinstance(cell, Estimate):
                parts += [cell.mean, cell.low, cell.high, cell.n]
            else:
                parts += [cell, None, None, None] if four else [cell]
        writer.writerow(map(_plain, parts))
    return out.getvalue()


def _plain(cell: str | int | float | None) -> str | int | float | None:
    """Return a cell's text; one that a spreadsheet would execute gets an apostrophe before it."""
    if isinstance(cell, str) and cell.startswith(_FORMULA):
        return f"'{cell}"
    return cell
