"""Progress of a study, on standard error: a bar with the running stages on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from cotbench.cli.terminal import console, echo_error, text_column
from cotbench.study.folder import seconds_of
from cotbench.study.plan import StudyPlan
from cotbench.study.stage import Stage


def format_duration(seconds: float) -> str:
    """Return a duration in seconds as text, such as `45 s`, `12 min`, `3.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Lines:
    """Prints a line for each stage that ends."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._count = total, done
        if done:
            echo_error(f"{done} of {total} stages are done already")

    def began(self, stage: Stage) -> None:
        """Do nothing."""

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """Print a line for a stage that ended."""
        self._count += error is None
        ending = "done" if error is None else f"FAILED: {error}"
        echo_error(f"{self._count}/{self._total} {stage.name}: {ending}, {format_duration(seconds)}")

    def moment(self) -> None:
        """Do nothing."""


class Bar:
    """Draws a bar, and the running stages."""

    def __init__(self, plan: StudyPlan, done: int, target: Path) -> None:
        columns = (
            text_column("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            text_column("{task.fields[running]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=console(stderr=True))
        self._task: Any = self._bar.add_task("stages", total=len(plan.stages), completed=done, running="")
        self._running: dict[str, float] = {}
        self._took = [duration for stage in plan.stages if (duration := seconds_of(target, stage)) is not None]

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def began(self, stage: Stage) -> None:
        """Show a stage as running."""
        self._running[stage.name] = time.monotonic()
        self.moment()

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """Count a stage that ended; print its error where it failed."""
        self._running.pop(stage.name, None)
        if error is not None:
            self._bar.console.print(f"{stage.name} FAILED: {error}", highlight=False, markup=False)
        else:
            self._bar.update(self._task, advance=1)
        self.moment()

    def moment(self) -> None:
        """Show how long each stage has been running."""
        now = time.monotonic()
        texts = [f"{name} {format_duration(now - since)}" for name, since in self._running.items()]
        self._bar.update(self._task, running=", ".join(texts))
