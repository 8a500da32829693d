"""The progress of a study in a notebook. Invariant: a stage that failed is not counted as done."""

from __future__ import annotations

import time

from cotbench.status_line import StatusLine
from cotbench.study.stage import Stage


class StudyStatus:
    """An observer that shows the finished and the running stages in a line.

    Args:
        line: the line.
        total: stages of the study.
        done: stages that were done before.
    """

    def __init__(self, line: StatusLine, total: int, done: int) -> None:
        self._line, self._total, self._done, self._failed = line, total, done, 0
        self._running: dict[str, float] = {}

    def began(self, stage: Stage) -> None:
        """Show a stage as running."""
        self._running[stage.name] = time.monotonic()
        self.moment()

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """Count a stage that ended."""
        self._running.pop(stage.name, None)
        self._done += error is None
        self._failed += error is not None
        self._line.show(self.text(), last=not self._running)

    def moment(self) -> None:
        """Show how long each stage has been running."""
        self._line.show(self.text())

    def text(self) -> str:
        """Return the line."""
        now = time.monotonic()
        running = [f"{name} {now - since:.0f} s" for name, since in self._running.items()]
        at_work = [f"running: {'; '.join(running)}"] if running else []
        failed = [f"{self._failed} failed"] if self._failed else []
        return ", ".join([f"{self._done}/{self._total} stages", *failed, *at_work])
