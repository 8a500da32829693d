"""A result as Python shows it: a few lines of text, a small table in a notebook, or rows in pandas. Invariant: whatever stands
in it is escaped and printable; its colours are those of the page around it, so that it is readable on a light and a dark one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from cotbench.errors import MissingExtraError
from cotbench.printable import one_line, printable

if TYPE_CHECKING:
    import pandas as pd

_LINE = "border-bottom:1px solid rgba(128,128,128,.4)"
_CELL = "padding:2px 10px 2px 0;background:none;vertical-align:top"
_NUMBER = f"{_CELL};text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"
_LABEL = f"{_CELL};text-align:left"


@dataclass(frozen=True, slots=True)
class Display:
    """What is shown of a result.

    Attributes:
        title: what the result is.
        figures: its main numbers as sentences: the text form has no table.
        columns: heads of the table's columns; the first column holds labels.
        rows: cells of the table, as many as there are columns.
        notes: caveats, and where the result is.
    """

    title: str
    figures: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the title, the figures and the notes, a line each."""
        return "\n".join(map(one_line, (self.title, *self.figures, *self.notes)))

    def html(self) -> str:
        """Return the title, the table and the notes as HTML; the figures too, where there is no table."""
        parts = [f'<div style="font-weight:600">{_text(self.title)}</div>']
        if self.rows:
            parts.append(self._table())
        parts += [f'<div style="max-width:60em">{_text(line)}</div>' for line in (() if self.rows else self.figures)]
        parts += [f'<div style="max-width:60em;opacity:.75;font-size:92%">{_text(line)}</div>' for line in self.notes]
        return f'<div style="overflow-x:auto">{"".join(parts)}</div>'

    def _table(self) -> str:
        head = "".join(_cell("th", name, place, f";{_LINE}") for place, name in enumerate(self.columns))
        rows = ["".join(_cell("td", cell, place) for place, cell in enumerate(row)) for row in self.rows]
        body = "".join(f'<tr style="background:none">{row}</tr>' for row in rows)
        table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        return f'<table style="border-collapse:collapse;margin:4px 0;color:inherit">{table}</table>'


def _text(text: str) -> str:
    return escape(printable(text)).replace("\n", "<br>")


def _cell(tag: str, text: str, place: int, more: str = "") -> str:
    style = (_NUMBER if place else _LABEL) + more
    return f'<{tag} style="{style}">{_text(text)}</{tag}>'


class Displayed:
    """Base of the results that Python and notebooks show as `_display` says."""

    __slots__ = ()

    @abstractmethod
    def _display(self) -> Display:
        """Return what is shown of this result."""

    def __repr__(self) -> str:
        return self._display().text()

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        return self._display().html()


def data_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a pandas table.

    Args:
        rows: column -> value; a column that a row lacks is empty there.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("a table of pandas", "pandas") from error
    return pd.DataFrame(list(rows))
