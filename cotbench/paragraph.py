"""Lines and paragraphs of text in a terminal. Invariant: a line ends between words alone; a longer word runs over its
end, so that a path or a command can be copied whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment

from cotbench.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

TOGETHER = "\u00a0"
"""A space at which no line ends; printed as a space."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, as it is drawn."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        yield Segment(self.text, console.get_style(self.style) if self.style else None)
        yield Segment.line()


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A text that is wrapped between words.

    Attributes:
        style: of rich, such as `bold`.
        indent: of all lines but the first.
    """

    text: str
    style: str = ""
    indent: int = 2

    def lines(self, width: int) -> list[Line]:
        """Return the lines of the text.

        Args:
            width: columns of the terminal.
        """
        return [Line(line, self.style) for line in wrapped(printable(self.text), width, self.indent)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Line]:
        yield from self.lines(options.max_width)


def together(text: str) -> str:
    """Return a text in which no line is broken at a space."""
    return text.replace(" ", TOGETHER)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Return the lines of a text, broken between words alone: a word that is longer than a line has one of its own.

    Args:
        text: with line breaks where lines have to end.
        width: columns of a line.
        indent: columns left free before what does not fit into the first line.
    """
    lines = []
    for part in text.split("\n"):
        words = part.split(" ")
        line = words[0]
        for word in words[1:]:
            if line.strip() and cell_len(line) + 1 + cell_len(word) > width:
                lines.append(line.rstrip())
                line = " " * indent + word
            else:
                line = f"{line} {word}"
        lines.append(line.rstrip())
    return [line.replace(TOGETHER, " ") for line in lines]
