"""What ends a command: Ctrl-C or SIGTERM. Invariant: the first of them is one KeyboardInterrupt, so that a command ends in the
same way by either; a SIGTERM that follows changes nothing, another Ctrl-C is another KeyboardInterrupt.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

TERMINATED = 143
"""The exit code after SIGTERM."""


class Interruption:
    """Turns SIGTERM into a KeyboardInterrupt for a `with` block (`handled`).

    Attributes:
        number: the first signal that came; None while none has come.
    """

    def __init__(self) -> None:
        self.number: int | None = None

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
                signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self.number is None or number == signal.SIGINT:
            self.number = self.number or number
            raise KeyboardInterrupt

    def exit_code(self, code: int) -> int:
        """Return the exit code of the process, given the command's."""
        return TERMINATED if code == INTERRUPTED and self.number == signal.SIGTERM else code
