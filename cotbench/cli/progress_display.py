"""How far a piece of work is, on standard error: two lines that stay on a terminal, a line now and then elsewhere.

Invariant: nothing is wider than the screen, where it matters least it is left out; without a terminal no control character is
written, and what a run takes to say of itself does not grow with its episodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from cotbench.cli.terminal import console, echo_error

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_FIRST, _LONGEST = 20.0, 60.0
"""Seconds between two lines where there is no terminal, at the beginning and later."""
_BAR = (8, 40)
"""Columns of the bar, at least and at most."""


def format_duration(seconds: float) -> str:
    """Return a duration in seconds as text, such as `45 s`, `12 min`, `3.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def fitted(parts: Sequence[str], width: int) -> str:
    """Return the parts that fit on a line, most important first; a first part that is too long is cut.

    Args:
        parts: texts, without those that are empty.
        width: columns.
    """
    text = ""
    for part in filter(None, parts):
        longer = f"{text}  {part}" if text else part
        if len(longer) <= width:
            text = longer
    return text or next(filter(None, parts), "")[:width]


class Progress(Protocol):
    """Shows how far a piece of work is."""

    def update(self, done: int, facts: Sequence[str], left: float | None) -> None:
        """Show a state of the work.

        Args:
            done: parts of the work that are done.
            facts: what else to show, most important first.
            left: seconds that the rest takes; None where that is unknown.
        """

    def note(self, text: str) -> None:
        """Print a line that stays."""


class SilentProgress:
    """Shows nothing."""

    def update(self, done: int, facts: Sequence[str], left: float | None) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class LineProgress:
    """Prints a line now and then.

    Args:
        noun: what is counted, such as "episodes".
        total: how many there are.
        clock: returns the time in seconds.
    """

    def __init__(self, noun: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._noun, self._total, self._clock = noun, total, clock
        self._started = self._printed = clock()
        self._state: tuple[int, Sequence[str], float | None] | None = None
        self._lines = 0

    def update(self, done: int, facts: Sequence[str], left: float | None) -> None:
        """Print the state, where the last line is a while ago."""
        self._state = (done, facts, left)
        elapsed = self._clock() - self._started
        if self._clock() - self._printed >= min(_LONGEST, max(_FIRST, elapsed / 10)):
            self._print(self._state)

    def note(self, text: str) -> None:
        """Print a line."""
        echo_error(text)

    def end(self) -> None:
        """Print the last state, where a line was printed before: work that is done at once needs none."""
        if self._state is not None and self._lines:
            self._print(self._state)

    def _print(self, state: tuple[int, Sequence[str], float | None]) -> None:
        done, facts, left = state
        self._state, self._printed, self._lines = None, self._clock(), self._lines + 1
        ending = [] if left is None or done >= self._total else [f"about {format_duration(left)} left"]
        elapsed = format_duration(self._clock() - self._started)
        echo_error(", ".join([f"{self._noun} {done}/{self._total}", *filter(None, facts), f"{elapsed} elapsed", *ending]))


class BarProgress:
    """Draws two lines on a terminal: a bar with the time, and the facts.

    Args:
        noun: what is counted.
        total: how many there are.
        screen: the console of standard error.
    """

    def __init__(self, noun: str, total: int, screen: Console) -> None:
        from rich.live import Live

        self._noun, self._total, self._screen = noun, total, screen
        self._started = time.monotonic()
        self._done, self._facts = 0, tuple[str, ...]()
        self._ends: float | None = None
        self._live = Live(console=screen, get_renderable=self.lines, refresh_per_second=4)

    @property
    def live(self) -> Live:
        """The area of the screen that is drawn anew."""
        return self._live

    def update(self, done: int, facts: Sequence[str], left: float | None) -> None:
        """Take a state; it is drawn a few times a second."""
        self._done, self._facts = done, tuple(facts)
        self._ends = None if left is None else time.monotonic() + left

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._screen.print(text, highlight=False, markup=False)

    def lines(self) -> Text:
        """Return what is drawn."""
        from rich.text import Text

        now, width = time.monotonic(), self._screen.width - 1
        head = f"{self._noun} {self._done}/{self._total} "
        times = [f"{format_duration(now - self._started)} elapsed"]
        if self._ends is not None and self._done < self._total:
            times.insert(0, f"about {format_duration(max(0.0, self._ends - now))} left")
        bar = min(_BAR[1], width - len(head) - len(f" {times[0]}"))
        behind = fitted(times, max(0, width - len(head) - min(bar, 24) - 1))
        bar = min(_BAR[1], width - len(head) - len(behind) - 1)
        text = Text(head, no_wrap=True, overflow="crop")
        if bar >= _BAR[0]:
            full = bar * min(self._done, self._total) // self._total if self._total else bar
            solid, rest = ("━", "━") if self._screen.encoding.startswith("utf") else ("#", "-")
            text.append(solid * full, "bar.complete").append(rest * (bar - full), "bar.back").append(" ")
        text.append(behind)
        if len(text) > width:
            text.truncate(width)
        facts = fitted(self._facts, width)
        return text.append(f"\n{facts}") if facts else text


@contextmanager
def shown_progress(noun: str, total: int, *, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress of a `with` block.

    Args:
        noun: what is counted, such as "episodes".
        total: how many there are.
        quiet: show nothing.
    """
    if quiet:
        yield SilentProgress()
    elif sys.stderr.isatty():
        bar = BarProgress(noun, total, console(stderr=True))
        with bar.live:
            yield bar
    else:
        lines = LineProgress(noun, total)
        yield lines
        lines.end()  # Not after an exception: what failed is said by others.
