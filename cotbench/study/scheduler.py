"""The scheduler of a study's stages. Invariant: a stage that is done is never run again; a stage that was killed is resumed,
which every command supports: once by itself, then when the study is started again.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cotbench.errors import CotbenchError
from cotbench.study.executor import LOG_HEADER, Executor, Finished, Job, Slot
from cotbench.study.folder import command_of, is_done, log_of, write_mark
from cotbench.study.plan import StudyPlan
from cotbench.study.stage import Stage

_TAIL = 4000
_WAIT = 0.2
"""Seconds between two calls of the observer."""


class StudyObserver(Protocol):
    """An observer of a study's progress."""

    def began(self, stage: Stage) -> None:
        """Handle the submission of a stage to the executor."""

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """Handle the end of a stage; `error` is the reason of a failure."""

    def moment(self) -> None:
        """Handle the passing of a little time."""


@dataclass(frozen=True, slots=True)
class StageFailure:
    """A stage that failed.

    Attributes:
        message: the last error in its log, or the log's last line.
        log: the whole log.
    """

    stage: Stage
    message: str
    log: Path


def run_study(study: Path, plan: StudyPlan, executor: Executor, observer: StudyObserver) -> list[StageFailure]:
    """Run the stages that are not done yet, as many at a time as the executor has slots.

    A stage that fails prevents only those that use its output.

    Args:
        study: the study's folder.
        plan: its stages.
        executor: runs their commands; it is not closed.
        observer: receives the progress.

    Returns:
        The stages that failed.

    Raises:
        KeyboardInterrupt: after the executor was told to cancel; finished work stays.
    """
    work = _Work(study, plan, observer, [stage for stage in plan.stages if not is_done(study, stage)])
    try:
        while work.begin(executor) or work.running:
            for finished in executor.wait(_WAIT):
                work.end(finished)
            observer.moment()
    except BaseException:
        executor.cancel()
        raise
    return work.failures


@dataclass(slots=True)
class _Work:
    """The state of a study that is being run.

    Attributes:
        todo: stages that have not been submitted.
        missing: names of stages that are not done; `lost`: those of them that cannot be done because a stage failed.
        running: the stages in the executor, by name, with the time when each began.
        again: names of stages that were begun again after their process was killed.
    """

    study: Path
    plan: StudyPlan
    observer: StudyObserver
    todo: list[Stage]
    missing: set[str] = field(init=False)
    lost: set[str] = field(default_factory=set)
    running: dict[str, tuple[Stage, float]] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    failures: list[StageFailure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = {stage.name for stage in self.todo}

    def begin(self, executor: Executor) -> bool:
        """Submit stages to the free slots; return whether any was submitted."""
        begun = False
        for slot in executor.free_slots():
            stage = self._next(slot)
            if stage is None:
                break
            begun = True
            self.todo.remove(stage)
            self.observer.began(stage)
            try:
                command = command_of(self.study, self.plan, stage)
                executor.submit(Job(stage.name, tuple(command), log_of(self.study, stage), stage.agent), slot)
            except CotbenchError as error:
                self._failed(stage, str(error), 0.0)
                continue
            self.running[stage.name] = (stage, time.monotonic())
        return begun

    def _next(self, slot: Slot) -> Stage | None:
        """Choose trainings first, the longest first; then stages of the agent that the slot already holds."""
        for stage in self.todo:  # In the plan's order: each stage after those that it uses.
            if self.lost.intersection(stage.uses):
                self.lost.add(stage.name)
        self.todo = [stage for stage in self.todo if stage.name not in self.lost]
        ready = (stage for stage in self.todo if not self.missing.intersection(stage.uses))
        return min(
            ready, key=lambda one: (not one.trained, -one.tokens if one.trained else one.agent != slot.holds), default=None
        )

    def end(self, finished: Finished) -> None:
        """Record the end of a stage; one whose process was killed is begun again, once."""
        stage, started = self.running.pop(finished.job.name)
        took = time.monotonic() - started
        if finished.exit_code < 0 and stage.name not in self.again:
            self.again.add(stage.name)
            self.todo.insert(0, stage)
            return
        if finished.exit_code != 0:
            self._failed(stage, last_error(log_of(self.study, stage), finished.exit_code, finished.message), took)
            return
        write_mark(self.study, stage, took)
        self.missing.discard(stage.name)
        self.observer.ended(stage, took, None)

    def _failed(self, stage: Stage, message: str, took: float) -> None:
        self.failures.append(StageFailure(stage, message, log_of(self.study, stage)))
        self.lost.add(stage.name)
        self.observer.ended(stage, took, message)


def last_error(log: Path, code: int, message: str = "") -> str:
    """Return the reason of a stage's failure: the last line that its process wrote outside of the log, the last error in the
    log, or the last line of the log.

    Args:
        log: of the stage; lines before its last command belong to an earlier attempt.
        code: exit code; a negative one is a signal.
        message: see `Finished`.
    """
    if message:
        return message
    try:
        tail = log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    except OSError:
        tail = ""
    lines = [line for line in tail.rpartition(LOG_HEADER)[2].splitlines() if line.strip()]
    if code < 0:
        return f"its process was ended by {_signal_name(-code)}"
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    return lines[-1] if lines else f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
