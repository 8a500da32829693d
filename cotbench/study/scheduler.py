"""Doing the stages of a study. Invariant: what is done is never done again; what was killed on the way goes on where it
was, for every command can.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cotbench.errors import CotbenchError, UsageError
from cotbench.study.folder import command_of, is_done, log_of, write_mark
from cotbench.study.local_executor import LOG_HEADER, Pool, pool_of
from cotbench.study.plan import StudyPlan
from cotbench.study.stage import Stage

_TAIL = 4000


class StudyObserver(Protocol):
    """Who wants to know how far a study is."""

    def began(self, stage: Stage) -> None:
        """A stage was given to a worker."""

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """A stage ended; `error` says why it failed."""

    def moment(self) -> None:
        """Some time went by."""


@dataclass(frozen=True, slots=True)
class StageFailure:
    """A stage that failed: what was said last, and where all of it is."""

    stage: Stage
    said: str
    log: Path


def run_study(study: Path, plan: StudyPlan, *, jobs: int, watcher: StudyObserver) -> list[StageFailure]:
    """Carry out what is not done yet, `jobs` stages at a time.

    A stage that fails costs those that use it and no other.

    Raises:
        KeyboardInterrupt: after the workers were told too; what they did is kept.
    """
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: give at least 1")
    work = _Work(study, plan, watcher, [stage for stage in plan.stages if not is_done(study, stage)])
    with pool_of(min(jobs, max(1, len(work.todo))), plan.config.threads) as pool:
        while work.begin(pool) or work.running:
            for worker, code in pool.answers():
                work.end(worker, code)
            watcher.moment()
    return work.failures


@dataclass(slots=True)
class _Work:
    """What is left of a study.

    Attributes:
        todo: stages that nobody has begun.
        missing: names of stages that are not done; `lost` are those of them that cannot be.
        running: who carries out what, since when.
    """

    study: Path
    plan: StudyPlan
    watcher: StudyObserver
    todo: list[Stage]
    missing: set[str] = field(init=False)
    lost: set[str] = field(default_factory=set)
    running: dict[int, tuple[Stage, float]] = field(default_factory=dict)
    failures: list[StageFailure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = {stage.name for stage in self.todo}

    def begin(self, pool: Pool) -> bool:
        """Give idle workers what can be begun; whether anything was."""
        begun = False
        for number in list(pool.idle):
            stage = self._next(pool.last[number])
            if stage is None:
                break
            begun = True
            self.todo.remove(stage)
            self.watcher.began(stage)
            try:
                pool.give(number, command_of(self.study, self.plan, stage), log_of(self.study, stage))
            except CotbenchError as error:
                self._failed(stage, str(error), 0.0)
                continue
            pool.last[number] = stage.agent
            self.running[number] = (stage, time.monotonic())
        return begun

    def _next(self, agent: str | None) -> Stage | None:
        """Trainings first, the longest first; then what is of the agent that a worker already holds."""
        for stage in self.todo:  # Each after those that it uses.
            if self.lost.intersection(stage.uses):
                self.lost.add(stage.name)
        self.todo = [stage for stage in self.todo if stage.name not in self.lost]
        ready = (stage for stage in self.todo if not self.missing.intersection(stage.uses))
        return min(ready, key=lambda one: (not one.trained, -one.tokens if one.trained else one.agent != agent), default=None)

    def end(self, worker: int, code: int) -> None:
        """Take in how a stage ended."""
        stage, started = self.running.pop(worker)
        took = time.monotonic() - started
        if code != 0:
            self._failed(stage, _last_words(log_of(self.study, stage), code), took)
            return
        write_mark(self.study, stage, took)
        self.missing.discard(stage.name)
        self.watcher.ended(stage, took, None)

    def _failed(self, stage: Stage, said: str, took: float) -> None:
        self.failures.append(StageFailure(stage, said, log_of(self.study, stage)))
        self.lost.add(stage.name)
        self.watcher.ended(stage, took, said)


def _last_words(log: Path, code: int) -> str:
    """What a command said last that is an error."""
    try:
        said = log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
    except OSError:
        said = ""
    lines = said.rpartition(LOG_HEADER)[2].splitlines()  # Not what was said in an earlier sitting.
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
