"""The progress of a long call in a notebook: one line in the cell's output, replaced in place. Invariant: nothing is shown
outside of a notebook, and no control character is ever written.
"""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from cotbench.printable import one_line

_SECONDS = 0.5
"""The least time between two changes of the line."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class StatusLine:
    """A line of text in the output of the running cell.

    Args:
        visible: show it, where there is a notebook.
    """

    def __init__(self, *, visible: bool = True) -> None:
        self._visible = visible and in_notebook()
        self._handle: Any = None
        self._changed = float("-inf")
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the line was made."""
        return time.monotonic() - self._started

    def show(self, text: str, *, last: bool = False) -> None:
        """Replace the line's text; a change too soon after the one before is left out.

        Args:
            text: the text.
            last: show it in any case.
        """
        now = time.monotonic()
        if not self._visible or (not last and now - self._changed < _SECONDS):
            return
        self._changed = now
        line = one_line(text)
        content = {"text/plain": line, "text/html": f'<div style="opacity:.75">{escape(line)}</div>'}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
