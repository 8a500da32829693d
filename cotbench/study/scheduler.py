"""Doing the stages of a study. Invariant: what is done is never done again; what was killed on the way goes on where it
was, for every command can.
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
"""Seconds between two looks at how far a study is."""


class StudyObserver(Protocol):
    """Is told how far a study is."""

    def began(self, stage: Stage) -> None:
        """Take note that a stage was given to the executor."""

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """Take note that a stage ended; `error` says why it failed."""

    def moment(self) -> None:
        """Take note that some time went by."""


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
    """Carry out what is not done yet, as many stages at a time as the executor has slots.

    A stage that fails costs those that use it and no other.

    Args:
        study: the study's folder.
        plan: its stages.
        executor: carries out their commands; it is not closed.
        observer: is told how far it is.

    Returns:
        The stages that failed.

    Raises:
        KeyboardInterrupt: after the executor was told to cancel; what was done is kept.
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
    """What is left of a study.

    Attributes:
        todo: stages that nobody has begun.
        missing: names of stages that are not done; `lost` are those of them that cannot be.
        running: the stages that are being carried out, by name, with the moment when each began.
    """

    study: Path
    plan: StudyPlan
    observer: StudyObserver
    todo: list[Stage]
    missing: set[str] = field(init=False)
    lost: set[str] = field(default_factory=set)
    running: dict[str, tuple[Stage, float]] = field(default_factory=dict)
    failures: list[StageFailure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = {stage.name for stage in self.todo}

    def begin(self, executor: Executor) -> bool:
        """Give free slots what can be begun; returns whether anything was."""
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
        """Choose trainings first, the longest first; then what is of the agent that the slot already holds."""
        for stage in self.todo:  # Each after those that it uses.
            if self.lost.intersection(stage.uses):
                self.lost.add(stage.name)
        self.todo = [stage for stage in self.todo if stage.name not in self.lost]
        ready = (stage for stage in self.todo if not self.missing.intersection(stage.uses))
        return min(
            ready, key=lambda one: (not one.trained, -one.tokens if one.trained else one.agent != slot.holds), default=None
        )

    def end(self, finished: Finished) -> None:
        """Take in how a stage ended."""
        stage, started = self.running.pop(finished.job.name)
        took = time.monotonic() - started
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
    """Return why a stage failed: what its process wrote last outside of the log, the last error in the log, or its last line.

    Args:
        log: of the stage; what stands before its last command is of an earlier sitting.
        code: how it ended; a negative one is a signal.
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
