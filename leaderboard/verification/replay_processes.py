"""Episodes replayed in several processes. Invariant: the outcome is that of replaying them one by one in order, whichever
process is faster, dies or stops; none is left behind, also after Ctrl-C.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from cotbench.child_process import ChildProcess, Patience, block_interrupts
from cotbench.errors import CotbenchError, EngineError, ReplayTimeoutError
from cotbench.leaderboard.verification.budget import Budget
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.replay import ExpertSteps, Replayer
from cotbench.runs.env_workers import REPLY_SECONDS, EnvSettings
from cotbench.runs.episode import Episode

_POLL_SECONDS = 1.0

Group = Sequence[tuple[int, Episode]]
"""Episodes of one task, each with its place in the run."""
Finished = Callable[[Episode, ExpertSteps], None]
"""Takes an episode that agrees, and its steps."""
_GRACE = 2.0
"""Seconds after the end of an entry's time in which its processes can say that they are late."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The outcome of the replay of one episode: a difference, why it failed, or neither.

    Attributes:
        late: it failed because its time was over.
        expert: the steps that agree, and the expert's among them.
    """

    difference: Difference | None = None
    failure: str | None = None
    late: bool = False
    expert: ExpertSteps = field(default_factory=ExpertSteps)

    @property
    def agrees(self) -> bool:
        return self.difference is None and self.failure is None


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """What every process needs.

    Attributes:
        env: of the environment.
        recorded: whether the run recorded the expert's actions.
        budget: the time that episodes and the entry may take.
    """

    env: EnvSettings
    recorded: bool
    budget: Budget

    def replayer(self) -> Replayer:
        """Return a replayer with these settings."""
        return Replayer(self.env, self.recorded, self.budget)


def _serve(pipes: Sequence[Any], settings: ReplaySettings) -> None:
    """Answer each line of an episode that comes, in a process of its own, until the pipe is closed or the parent dies."""
    (pipe,) = pipes
    replayer = settings.replayer()
    try:
        while True:
            for line in pipe.recv():
                answer = _answer(replayer, line)
                pipe.send(answer)
                if not answer.agrees:
                    break
    except (EOFError, OSError):
        return
    finally:
        replayer.close()


def _answer(replayer: Replayer, line: str) -> _Answer:
    try:
        return _Answer(replayer.difference(Episode.model_validate_json(line)), expert=replayer.expert)
    except Exception as error:
        failure = str(error) if isinstance(error, CotbenchError) else f"{type(error).__name__}: {error}"
        return _Answer(failure=failure, late=isinstance(error, ReplayTimeoutError))


class _Process:
    """One process and its episodes.

    Attributes:
        owed: the episodes that it has not answered yet, in order.
        pipe: to it.
        ending: how the last process that died ended.
    """

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self._process: ChildProcess | None = None
        self.pipe: Any = None
        self.ending = ""
        self._patience = Patience(REPLY_SECONDS)
        self.owed: deque[tuple[int, Episode]] = deque()

    def give(self, group: Group) -> None:
        """Send episodes to be replayed; starts the process when there is none.

        Raises:
            EngineError: it cannot be started.
        """
        if self._process is None:
            self._start()
        self.owed.extend(group)
        self._await(0)
        # Where the process is gone, `take` says so.
        with suppress(OSError):
            self.pipe.send([episode.model_dump_json() for _, episode in group])

    def _start(self) -> None:
        try:
            with block_interrupts():  # It is held before an interrupt is heard.
                self._process = ChildProcess(_serve, (self._settings,), plugins=self._settings.env.plugins)
        except EngineError as error:
            raise EngineError(f"{error}: use fewer --jobs") from error
        (self.pipe,) = self._process.pipes

    def _await(self, place: int) -> None:
        """Begin to wait for the answer about one of the episodes that it owes: as long as that may take, and a reply."""
        if place < len(self.owed):
            _, episode = self.owed[place]
            self._patience = Patience(self._settings.budget.seconds_of(episode) + REPLY_SECONDS)

    def overdue(self) -> bool:
        """Return whether the next answer is so late that the process counts as dead."""
        return self._patience.spent()

    def take(self) -> _Answer | None:
        """Return the answer about the first episode that it owes; None where it died instead, or does not answer."""
        if not self.pipe.poll():
            self.ending = f"did not answer within {self._patience.seconds:g} s"
            self.end()
            return None
        self._await(1)
        try:
            answer: _Answer = self.pipe.recv()
        except (EOFError, OSError):
            if self._process is not None:
                self.ending = self._process.ending()
            self.end()
            return None
        return answer

    def end(self, patience: float = 0.0) -> None:
        """End the process; what it has started ends with it, for it reads from it. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.close(patience)


def replay_in_processes(settings: ReplaySettings, groups: Sequence[Group], jobs: int, finished: Finished) -> Difference | None:
    """Return the first difference in the order of the run.

    A process that dies is replaced, and its episodes are replayed again.

    Args:
        settings: of the environment and the time.
        groups: the episodes, those of one task together.
        jobs: how many processes, at most.
        finished: called for every episode that agrees.

    Raises:
        EngineError: before any difference, an episode cannot be replayed, or its process died twice.
        ReplayTimeoutError: before any difference, the time of an episode or of the entry is over.
    """
    replaying = _Replaying(settings, groups, jobs, finished)
    try:
        return replaying.outcome()
    finally:
        replaying.end()


class _Replaying:
    """The processes, what waits for them, and the first episode that does not agree, as far as is known."""

    def __init__(self, settings: ReplaySettings, groups: Sequence[Group], jobs: int, finished: Finished) -> None:
        self._budget = settings.budget
        self._waiting = deque(groups)
        self._processes = [_Process(settings) for _ in range(min(jobs, len(groups)))]
        self._finished = finished
        self._died: set[int] = set()
        self._first: tuple[int, _Answer] | None = None

    def outcome(self) -> Difference | None:
        """Replay until everything agrees, or everything before the first that does not."""
        while busy := self._busy():
            left = self._budget.end + _GRACE - time.monotonic()
            answered = wait([process.pipe for process in busy], min(_POLL_SECONDS, left))
            if not answered and time.monotonic() > self._budget.end + _GRACE:
                # It does not come back from a step, so it cannot say itself that it is late.
                key = min((process.owed[0] for process in busy), key=lambda owed: owed[0])[1].key
                raise ReplayTimeoutError(f"{key} cannot be replayed: it took too long")
            for process in busy:
                if (process.pipe in answered or process.overdue()) and self._matters(process.owed[0][0]):
                    self._take(process)
        if self._first is None:
            for process in self._processes:
                process.end(patience=10.0)
            return None
        _, answer = self._first
        if answer.failure is not None:
            raise (ReplayTimeoutError if answer.late else EngineError)(answer.failure)
        return answer.difference

    def _matters(self, place: int) -> bool:
        return self._first is None or place < self._first[0]

    def _busy(self) -> list[_Process]:
        """Give idle processes work and return those whose next answer matters."""
        for process in self._processes:
            if not process.owed and self._waiting:
                process.give(self._waiting.popleft())
        return [process for process in self._processes if process.owed and self._matters(process.owed[0][0])]

    def _take(self, process: _Process) -> None:
        place, episode = process.owed[0]
        answer = process.take()
        if answer is None and place not in self._died:
            self._died.add(place)
            self._waiting.appendleft(tuple(process.owed))
            process.owed.clear()
            return
        if answer is None:
            answer = _Answer(failure=f"{episode.key} cannot be replayed: its process died twice; the second {process.ending}")
        if answer.agrees:
            process.owed.popleft()
            self._finished(episode, answer.expert)
            return
        process.owed.clear()
        self._first = place, answer
        self._waiting = deque(group for group in self._waiting if self._matters(group[0][0]))

    def end(self) -> None:
        """End all processes at once."""
        for process in self._processes:
            process.end()
