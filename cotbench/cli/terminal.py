"""What the commands print. Invariant: nothing is printed to a terminal or a log but through here, and so as `printable` has it;
rich's markup in a text is text.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cotbench.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import TextColumn

_WIDE = 120
_STRICT = ("strict", "surrogateescape")


def echo(text: str = "", *, nl: bool = True) -> None:
    """Print a text to standard output.

    Args:
        text: the text.
        nl: whether a line break follows.
    """
    print(printable(text), end="\n" if nl else "", flush=True)


def echo_json(text: str, *, nl: bool = True) -> None:
    """Print a JSON text to standard output, to be read again by a program.

    Args:
        text: JSON.
        nl: whether a line break follows.
    """
    print(printable_json(text), end="\n" if nl else "", flush=True)


def echo_error(text: str, *, nl: bool = True) -> None:
    """Print a text to standard error.

    Args:
        text: the text.
        nl: whether a line break follows.
    """
    print(printable(text), end="\n" if nl else "", file=sys.stderr, flush=True)


def console(*, stderr: bool = False) -> Console:
    """Return a console of standard output or standard error; wide enough for a table when standard output is no terminal.

    What it is given to print has no markup, whether it is a `str` or stands in a table.
    """
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

    class PrintableConsole(Console):
        """A console that prints printable texts."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    wide = not stderr and not (sys.stdout is not None and sys.stdout.isatty())
    return PrintableConsole(stderr=stderr, width=_WIDE if wide else None, markup=False, emoji=False)


def print_tables(*parts: RenderableType) -> None:
    """Print tables and paragraphs to standard output (`text_table`). No part is cut: an id or a path that is longer than a line
    runs over its end.
    """
    console().print(*parts, crop=False)


def text_column(template: str) -> TextColumn:
    """Return a column of a progress bar that shows a text without markup.

    Args:
        template: with the task's fields, as `TextColumn` takes it.
    """
    from rich.progress import TextColumn

    return TextColumn(template, markup=False)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def open_streams() -> None:
    """Make this process's standard streams fit to be printed to: one that is closed leads nowhere, and no character is too much
    for one's encoding. Warnings of the library are printable too.

    A closed descriptor is taken: else the next file that is opened would get its number, and what a library prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _STRICT:
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_PrintableFormatter())


def flush_streams() -> OSError | None:
    """Write what is still held back of the standard streams; return why that failed. A stream that fails leads nowhere then."""
    failure: OSError | None = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            failure = failure or error
            _close_off(stream)
    return failure


def _close_off(stream: Any) -> None:
    """Let a stream lead nowhere: Python writes what is left of it when it ends, and would complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
