"""What ends a command: Ctrl-C or SIGTERM. Invariant: the first of them is one KeyboardInterrupt, so that a command ends in the
same way by either; a SIGTERM that follows changes nothing, nor does a Ctrl-C that follows at once; a later one is another
KeyboardInterrupt.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

TERMINATED = 143
"""The exit code after SIGTERM."""

QUICK_SECONDS = 1.0
"""A Ctrl-C so soon after the one before means the same: who presses ten times wants the command to end, not to end badly."""


class Interruption:
    """Turns SIGTERM into a KeyboardInterrupt for a `with` block (`handled`).

    Attributes:
        number: the first signal that came; None while none has come.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._last = float("-inf")

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals, where they have Python's usual handlers and this is the main thread."""
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        here = threading.current_thread() is threading.main_thread()
        before = {number: handler for number, handler in usual.items() if here and signal.getsignal(number) == handler}
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, handler)

    def release(self) -> None:
        """Let a further Ctrl-C end the process at once: the command is over, and Python would print where it was."""
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _handle(self, number: int, frame: Any) -> None:
        before, self._last = self._last, time.monotonic()
        if self.number is None or (number == signal.SIGINT and self._last - before > QUICK_SECONDS):
            self.number = self.number or number
            raise KeyboardInterrupt

    def exit_code(self, code: int) -> int:
        """Return the exit code of the process, given the command's."""
        return TERMINATED if code == INTERRUPTED and self.number == signal.SIGTERM else code
