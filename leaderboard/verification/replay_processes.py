"""Episodes replayed in several processes. Invariant: the outcome is that of replaying them one by one in order, whichever
process is faster, dies or stops; none is left behind, also after Ctrl-C.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from cotbench.child_process import ChildProcess, Patience, block_interrupts
from cotbench.errors import CotbenchError, EngineError
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.replay import EPISODE_SECONDS, Replayer
from cotbench.runs.env_workers import REPLY_SECONDS, EnvSettings
from cotbench.runs.episode import Episode

ANSWER_SECONDS = EPISODE_SECONDS + REPLY_SECONDS
"""After that much time by the clock without an answer about an episode a process is killed: it is stopped."""

_POLL_SECONDS = 1.0

Group = Sequence[tuple[int, Episode]]
"""Episodes of one task, each with its place in the run."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The outcome of the replay of one episode: a difference, why it failed, or neither."""

    difference: Difference | None = None
    failure: str | None = None

    @property
    def agrees(self) -> bool:
        return self.difference is None and self.failure is None


def _serve(pipes: Sequence[Any], settings: EnvSettings) -> None:
    """Answer each line of an episode that comes, in a process of its own, until the pipe is closed or the parent dies."""
    (pipe,) = pipes
    replayer = Replayer(settings)
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
        return _Answer(replayer.difference(Episode.model_validate_json(line)))
    except Exception as error:
        return _Answer(failure=str(error) if isinstance(error, CotbenchError) else f"{type(error).__name__}: {error}")


class _Process:
    """One process and its episodes.

    Attributes:
        owed: the episodes that it has not answered yet, in order.
        pipe: to it.
        ending: how the last process that died ended.
    """

    def __init__(self, settings: EnvSettings) -> None:
        self._settings = settings
        self._process: ChildProcess | None = None
        self.pipe: Any = None
        self.ending = ""
        self._patience = Patience(ANSWER_SECONDS)
        self.owed: deque[tuple[int, Episode]] = deque()

    def give(self, group: Group) -> None:
        """Send episodes to be replayed; starts the process when there is none.

        Raises:
            EngineError: it cannot be started.
        """
        if self._process is None:
            self._start()
        self.owed.extend(group)
        self._patience = Patience(ANSWER_SECONDS)
        # Where the process is gone, `take` says so.
        with suppress(OSError):
            self.pipe.send([episode.model_dump_json() for _, episode in group])

    def _start(self) -> None:
        try:
            with block_interrupts():  # It is held before an interrupt is heard.
                self._process = ChildProcess(_serve, (self._settings,), plugins=self._settings.plugins)
        except EngineError as error:
            raise EngineError(f"{error}: use fewer --jobs") from error
        (self.pipe,) = self._process.pipes

    def overdue(self) -> bool:
        """Return whether the next answer is so late that the process counts as dead."""
        return self._patience.spent()

    def take(self) -> _Answer | None:
        """Return the answer about the first episode that it owes; None where it died instead, or does not answer."""
        if not self.pipe.poll():
            self.ending = f"did not answer within {self._patience.seconds:g} s"
            self.end()
            return None
        self._patience = Patience(ANSWER_SECONDS)
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


def replay_in_processes(
    settings: EnvSettings, groups: Sequence[Group], jobs: int, finished: Callable[[], None]
) -> Difference | None:
    """Return the first difference in the order of the run.

    A process that dies is replaced, and its episodes are replayed again.

    Args:
        settings: of the environment.
        groups: the episodes, those of one task together.
        jobs: how many processes, at most.
        finished: called for every episode that agrees.

    Raises:
        EngineError: before any difference, an episode cannot be replayed, or its process died twice.
    """
    replaying = _Replaying(settings, groups, jobs, finished)
    try:
        return replaying.outcome()
    finally:
        replaying.end()


class _Replaying:
    """The processes, what waits for them, and the first episode that does not agree, as far as is known."""

    def __init__(self, settings: EnvSettings, groups: Sequence[Group], jobs: int, finished: Callable[[], None]) -> None:
        self._waiting = deque(groups)
        self._processes = [_Process(settings) for _ in range(min(jobs, len(groups)))]
        self._finished = finished
        self._died: set[int] = set()
        self._first: tuple[int, _Answer] | None = None

    def outcome(self) -> Difference | None:
        """Replay until everything agrees, or everything before the first that does not."""
        while busy := self._busy():
            answered = wait([process.pipe for process in busy], _POLL_SECONDS)
            for process in busy:
                if (process.pipe in answered or process.overdue()) and self._matters(process.owed[0][0]):
                    self._take(process)
        if self._first is None:
            for process in self._processes:
                process.end(patience=10.0)
            return None
        _, answer = self._first
        if answer.failure is not None:
            raise EngineError(answer.failure)
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
            self._finished()
            return
        process.owed.clear()
        self._first = place, answer
        self._waiting = deque(group for group in self._waiting if self._matters(group[0][0]))

    def end(self) -> None:
        """End all processes at once."""
        for process in self._processes:
            process.end()
