"""Ctrl-C and SIGTERM during a training. Invariant: the first of them is held back until the training has saved its state, and
then has its usual effect; it is never lost.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cotbench.baselines.training.recipe_card import first_process

_NOTICE = b"\ninterrupted: the step is finished and the state saved first; Ctrl-C ends at once\n"


class SignalHold:
    """Holds Ctrl-C and SIGTERM back for a `with` block (`held`).

    A second Ctrl-C interrupts at once. SIGTERM does not: a cluster and a launcher may each send one for the same reason.

    Attributes:
        number: the signal that is held back; None while none has come.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back; one that came is raised again at the end. Signals that are ignored stay ignored.

        Only the main thread can do so: in another one, nothing is held back.
        """
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, self._hold)
        try:
            yield
        finally:
            for held, handler in before.items():
                signal.signal(held, handler)
        if self.number is not None:
            signal.raise_signal(self.number)

    def _hold(self, number: int, frame: Any) -> None:
        if self.number is None:
            self.number = number
            if first_process():
                os.write(2, _NOTICE)  # Not by print, which a signal may have interrupted.
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
