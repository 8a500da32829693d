"""Tables in a terminal. Invariant: at any width no cell is left out or cut, and no number, label or id is
broken in the middle; only a word that is itself longer than the line runs over its end.

Where a row needs more room than there is, heads are wrapped, intervals go below their numbers, and long labels go above
theirs; of the layouts that fit, the one with the fewest lines is drawn. Where none fits, each row becomes a block of lines, or
the columns become several tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len

from cotbench.paragraph import TOGETHER, Line, wrapped
from cotbench.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

Kind = Literal["number", "label", "text"]
_SEPARATOR = "  "
_TEXT_WIDTH = 20
"""Columns that a column of running text gets at least, where it has as many."""
_INDENT = 4
"""Columns before what goes below its row."""


@dataclass(frozen=True, slots=True)
class TextCell:
    """A cell of a table.

    Attributes:
        value: a number, a label, an id or a text; printable.
        beside: an interval or an id that stands after the value, or below it where there is no room.
    """

    value: str
    beside: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", printable(self.value).replace("\t", " "))
        object.__setattr__(self, "beside", printable(self.beside).replace("\t", " "))

    def __str__(self) -> str:
        return f"{self.value} {self.beside}".rstrip()


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table.

    Attributes:
        title: its head.
        kind: `number`: to the right; `label`: to the left, and may stand above its row; `text`: wrapped between words.
        beside: the head of what stands beside the values.
    """

    title: str
    kind: Kind = "number"
    beside: str = ""

    @property
    def head(self) -> TextCell:
        """The cell of the head."""
        return TextCell(self.title, self.beside)


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table.

    Attributes:
        cells: one for each column.
        style: of rich, such as `bold`.
    """

    cells: tuple[TextCell, ...]
    style: str = ""


def table_row(*cells: str | TextCell, style: str = "") -> TableRow:
    """Return a row.

    Args:
        cells: one for each column.
        style: of rich, such as `bold`.
    """
    return TableRow(tuple(cell if isinstance(cell, TextCell) else TextCell(cell) for cell in cells), style)


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table for a terminal of any width; rich prints it.

    Attributes:
        columns: at least one.
        rows: each with a cell for every column.
        narrow: where no layout fits: a block of lines for each `row`, or (of numbers) several tables, by `columns`.
    """

    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    narrow: Literal["rows", "columns"] = "rows"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"a row has {len(row.cells)} cells, the table {len(self.columns)} columns")

    def lines(self, width: int, rule: str = "─") -> list[Line]:
        """Return the lines of the table.

        Args:
            width: columns of the terminal.
            rule: the character below the head.
        """
        found = [lines for layout in self._layouts(width) if (lines := layout.lines(rule)) is not None]
        if found:
            return min(found, key=len)
        return self._parts(width, rule) if self.narrow == "columns" and len(self.columns) > 2 else list(self._blocks(width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Line]:
        yield from self.lines(options.max_width, "-" if options.ascii_only else "─")
        yield Line("")

    def _layouts(self, width: int) -> Iterator[_Layout]:
        for below, heads, above in (
            (False, False, False),
            (False, True, False),
            (False, True, True),
            (True, True, False),
            (True, True, True),
        ):
            yield _Layout(self, width, below=below, wrapped_heads=heads, labels_above=above)

    def _parts(self, width: int, rule: str) -> list[Line]:
        """Return the lines of several tables, each with the first column and some of the others."""
        lines: list[Line] = []
        places = list(range(1, len(self.columns)))
        while places:
            taken = len(places)
            while taken > 1 and not any(layout.fits for layout in self._of(places[:taken])._layouts(width)):
                taken -= 1
            lines += [*([Line("")] if lines else []), *self._of(places[:taken]).lines(width, rule)]
            places = places[taken:]
        return lines

    def _of(self, places: Sequence[int]) -> TextTable:
        """Return the table of the first column and those at the places."""
        chosen = [0, *places]
        rows = tuple(TableRow(tuple(row.cells[place] for place in chosen), row.style) for row in self.rows)
        return TextTable(tuple(self.columns[place] for place in chosen), rows)

    def _blocks(self, width: int) -> Iterator[Line]:
        named = next((place for place, column in enumerate(self.columns) if column.kind == "label"), 0)
        others = [place for place in range(len(self.columns)) if place != named]
        titles = [column.title.replace(TOGETHER, " ") for column in self.columns]
        room = max((cell_len(titles[place]) for place in others), default=0)
        for row in self.rows:
            head = _block_cell(row.cells[named], self.columns[named].kind, width)
            yield from (Line(line, row.style or "bold") for line in head)
            for place in others:
                cell, title = row.cells[place], titles[place]
                if not str(cell):
                    continue
                indent = 4 + room + 2
                inside = _block_cell(cell, self.columns[place].kind, width - indent)
                if max(map(cell_len, inside)) + indent > width:  # Below its title there is more room.
                    yield Line(f"    {title}", row.style)
                    inside = _block_cell(cell, self.columns[place].kind, width - 6)
                    yield from (Line(f"      {line}", row.style) for line in inside)
                    continue
                first = f"    {_left(title, room)}  "
                yield from (Line((first if not n else " " * indent) + line, row.style) for n, line in enumerate(inside))


def _block_cell(cell: TextCell, kind: Kind, width: int) -> list[str]:
    return wrapped(str(cell), width) if kind == "text" else _stacked(cell, width)


def _stacked(cell: TextCell, width: int) -> list[str]:
    """Return a cell in one line where that fits, else with what stands beside below."""
    whole = str(cell).replace(TOGETHER, " ").split("\n")
    if max(map(cell_len, whole)) <= width or not cell.beside:
        return whole
    return [part.replace(TOGETHER, " ") for part in (*cell.value.split("\n"), cell.beside)]


class _Layout:
    """One way to lay out a table: whether what stands beside is `below`, heads are wrapped, and long labels stand above."""

    def __init__(self, table: TextTable, width: int, *, below: bool, wrapped_heads: bool, labels_above: bool) -> None:
        self._table, self._width, self._below, self._wrapped_heads = table, width, below, wrapped_heads
        labels = [place for place, column in enumerate(table.columns) if column.kind == "label"]
        self._above = labels[0] if labels_above and labels else None
        self._values = [self._widest(place, lambda cell: cell.value) for place in range(len(table.columns))]
        self.fits = self._above is not None or not labels_above
        self._widths = self._fitted(width)

    def lines(self, rule: str) -> list[Line] | None:
        """Return the lines; None where the table does not fit."""
        if not self.fits:
            return None
        heads = [self._head_lines(place) for place in range(len(self._table.columns))]
        high = max(map(len, heads))
        lines = [Line(self._joined(line), "bold") for line in zip(*(_to_bottom(head, high) for head in heads), strict=True)]
        lines.append(Line(rule * (sum(self._widths) + len(_SEPARATOR) * (len(self._widths) - 1))))
        for row in self._table.rows:
            lines += [Line(line, row.style) for line in self._row(row)]
        return lines

    def _is_below(self, place: int) -> bool:
        return self._below or place == self._above

    def _cells(self, place: int) -> Iterator[TextCell]:
        yield from (row.cells[place] for row in self._table.rows)

    def _widest(self, place: int, part: Callable[[TextCell], str]) -> int:
        return max((_width(part(cell)) for cell in self._cells(place)), default=0)

    def _natural(self, place: int) -> int:
        """Return the width that a column needs for its cells without wrapping them."""
        beside = self._widest(place, lambda cell: cell.beside)
        column, values = self._table.columns[place], self._values[place]
        if not beside or self._is_below(place):
            return max(values, beside)
        if column.kind == "number":
            return self._widest(place, str)
        return values + len(_SEPARATOR) + beside

    def _head_width(self, place: int) -> int:
        column = self._table.columns[place]
        if self._wrapped_heads:
            return max(_width(word) for part in (column.title, column.beside) for word in part.split(" "))
        if column.beside and not self._is_below(place):
            return max(_width(column.title), self._values[place]) + len(_SEPARATOR) + _width(column.beside)
        return max(_width(column.title), _width(column.beside))

    def _fitted(self, width: int) -> list[int]:
        """Return the widths of the columns, and find out whether they fit."""
        columns = self._table.columns
        heads = [self._head_width(place) for place in range(len(columns))]
        natural = [max(self._natural(place), heads[place]) for place in range(len(columns))]
        least = list(natural)
        for place, column in enumerate(columns):
            if column.kind == "text":
                # A last cell with a longer word goes below its row.
                longest = 0 if place == len(columns) - 1 else max(map(_longest_word, self._cells(place)), default=0)
                least[place] = min(natural[place], max(_TEXT_WIDTH, longest, heads[place]))
            elif place == self._above:
                least[place] = max(heads[place], min(natural[place], 8))
        free = width - sum(least) - len(_SEPARATOR) * (len(columns) - 1)
        if free < 0:
            self.fits = False
            return natural
        widths = _shared(least, natural, free)
        if self._above is not None:  # What goes above needs no room beside its numbers.
            needed = (max(_width(cell.value), _width(cell.beside)) for cell in self._cells(self._above))
            inside = [width for width in needed if width <= widths[self._above]]
            widths[self._above] = max([heads[self._above], *inside])
            before = sum(widths[: self._above]) + len(_SEPARATOR) * self._above
            self.fits = self.fits and before + self._values[self._above] <= width
        return widths

    def _head_lines(self, place: int) -> list[str]:
        column = self._table.columns[place]
        width = self._widths[place]
        if not self._wrapped_heads and column.beside and not self._is_below(place):
            return [f"{_left(column.title, self._values[place])}{_SEPARATOR}{column.beside}".replace(TOGETHER, " ")]
        lines = [line for part in (column.title, column.beside) if part for line in wrapped(part, width)]
        return [_right(line, width) if column.kind == "number" else line for line in lines] or [""]

    def _cell_lines(self, place: int, cell: TextCell) -> list[str]:
        column, width = self._table.columns[place], self._widths[place]
        if column.kind == "text":
            return wrapped(str(cell), width)
        if not cell.beside or self._is_below(place):
            lines = [*cell.value.split("\n"), *([cell.beside] if cell.beside else [])]
        elif column.kind == "number":
            lines = str(cell).split("\n")
        else:
            lines = [f"{_left(cell.value, self._values[place])}{_SEPARATOR}{cell.beside}"]
        lines = [line.replace(TOGETHER, " ") for line in lines]
        return [_right(line, width) if column.kind == "number" else line for line in lines]

    def _row(self, row: TableRow) -> Iterator[str]:
        cells, place = [self._cell_lines(place, cell) for place, cell in enumerate(row.cells)], self._above
        below: list[str] = []
        if self._table.columns[-1].kind == "text" and _longest_word(row.cells[-1]) > self._widths[-1]:
            cells[-1], below = [""], [" " * _INDENT + line for line in wrapped(str(row.cells[-1]), self._width - _INDENT)]
        if place is not None and max(map(cell_len, cells[place])) > self._widths[place]:
            before = [lines[0] for lines in cells[:place]]
            yield self._joined([*before, row.cells[place].value.replace(TOGETHER, " ")])
            beside = row.cells[place].beside
            cells = [*(lines[1:] for lines in cells[:place]), [beside], *cells[place + 1 :]]
            if cell_len(beside) > self._widths[place]:
                yield self._joined([*([""] * place), beside])
                cells[place] = [""]
        yield from map(self._joined, zip_longest(*cells, fillvalue=""))
        yield from below

    def _joined(self, cells: Iterable[str]) -> str:
        """Return a line of cells; a number is to the right already."""
        return _SEPARATOR.join(_left(cell, width) for cell, width in zip(cells, self._widths, strict=False)).rstrip()


def _shared(least: Sequence[int], natural: Sequence[int], free: int) -> list[int]:
    """Return widths between the least and the natural ones, with free columns shared by what is missing."""
    widths = list(least)
    missing = sum(natural) - sum(least)
    for place, width in enumerate(least):
        widths[place] += min(natural[place] - width, (natural[place] - width) * free // max(missing, 1))
    return widths


def _longest_word(cell: TextCell) -> int:
    return max(map(cell_len, str(cell).replace("\n", " ").split(" ")))


def _to_bottom(lines: list[str], high: int) -> list[str]:
    return [""] * (high - len(lines)) + lines


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _left(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text
