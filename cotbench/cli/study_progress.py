"""Progress of a study, on standard error: its stages, the running ones, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from cotbench.cli.progress_display import Progress, format_duration
from cotbench.cli.terminal import echo_error
from cotbench.runs.forecast import SmoothedEnd
from cotbench.study.folder import seconds_of
from cotbench.study.plan import StudyPlan
from cotbench.study.stage import Stage
from cotbench.study.time_left import seconds_left


class StudyProgress:
    """Observes a study and shows how far it is.

    Args:
        shown: where it is shown.
        plan: its stages.
        target: its folder.
        done: names of the stages that are done already.
        lines: print a line for each stage that ends, and let nothing else be shown.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        shown: Progress,
        plan: StudyPlan,
        target: Path,
        done: Collection[str],
        *,
        lines: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shown, self._stages, self._lines, self._clock = shown, plan.stages, lines, clock
        self._took = {
            stage.name: took for stage in plan.stages if stage.name in done and (took := seconds_of(target, stage)) is not None
        }
        self._done = set(done)
        self._running: dict[str, float] = {}
        self._jobs = 1
        self._end = SmoothedEnd()
        if lines and done:
            echo_error(f"{len(done)} of {len(plan.stages)} stages are done already")

    def began(self, stage: Stage) -> None:
        """Handle the beginning of a stage."""
        self._running[stage.name] = self._clock()
        self._jobs = max(self._jobs, len(self._running))
        self.moment()

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """Handle the end of a stage."""
        self._running.pop(stage.name, None)
        if error is None:
            self._done.add(stage.name)
            self._took[stage.name] = seconds
        self.moment()
        ending = "done" if error is None else f"FAILED: {error}"
        if self._lines:
            left = self._end.left(self._clock())
            more = "" if left is None or len(self._done) == len(self._stages) else f", about {format_duration(left)} left"
            echo_error(f"{len(self._done)}/{len(self._stages)} {stage.name}: {ending}, {format_duration(seconds)}{more}")
        elif error is not None:
            self._shown.note(f"{stage.name} {ending}")

    def moment(self) -> None:
        """Show how long each stage has been running."""
        now = self._clock()
        running = {name: now - since for name, since in self._running.items()}
        self._end.update(now, seconds_left(self._stages, self._took, running, self._jobs))
        facts = [f"{name} {format_duration(took)}" for name, took in running.items()]
        if not self._lines:
            self._shown.update(len(self._done), facts, self._end.left(now))
