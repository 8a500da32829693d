"""Client of the process that executes calls. Invariant: a call that takes too long costs its process, never the episode:
what was executed before is executed again in a new process, and the call's result is an error. What a model's calls do is never
an `EngineError`, and what they return is bounded.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from itertools import takewhile
from typing import IO, Any, cast

from cotbench.child_process import ErrorOutput, block_interrupts, python_command
from cotbench.envs.bfcl.session import TurnVerdict
from cotbench.envs.bfcl.worker import PATIENCE, own_fault
from cotbench.errors import EngineError

TOO_LONG = "Error during execution: the call takes too long"
TOO_LARGE = "Error during execution: the result is too long"
MAX_OBSERVATION, MAX_EPISODE = 1_000_000, 8_000_000
"""Characters of the results of one response, and of one episode, that are passed on. Upstream's verdict needs them all, and has
them. The longest results of a response of the ground truths have 70,000 characters.
"""
_MAX_LINE = 16 << 20
"""Bytes; a character of a result takes up to 12 of them."""
SECONDS = 30.0
"""Time by the clock without a reply after which the process is taken for frozen."""

Request = dict[str, Any]


class _EndedError(Exception):
    """Raised when the process has ended.

    Attributes:
        replies: its replies to the request before it ended.
        own_fault: whether the request ended it.
        killed: whether somebody ended it, as the system does where memory is short.
        why: the last line of its error output, where it ended by itself.
    """

    def __init__(self, replies: list[Any], code: int | None, why: str = "") -> None:
        super().__init__("the process ended")
        self.replies = replies
        self.own_fault = own_fault(code)
        self.killed = code == -signal.SIGKILL
        self.why = why


class _SpoiledError(Exception):
    """Raised when a model's calls, executed before, end the process when they are repeated: the episode cannot go on."""


class Host:
    """Executes the calls of one task after another.

    Args:
        seconds: after how much time by the clock without a reply the process is taken for frozen.

    Attributes:
        restarts: how often the process was lost in this task for a reason outside its calls.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: ErrorOutput | None = None
        self._unread = b""
        self._owed = 0  # Replies that were not read yet.
        self._done: list[tuple[Request, list[Any]]] = []
        self._spoiled = False
        self._room = MAX_EPISODE
        self.restarts = 0

    def start(self, task: str) -> None:
        """Start a multi-turn task with fresh services. The process prepares them while the caller goes on.

        Args:
            task: the task id.

        Raises:
            EngineError: the process cannot be started, or is lost twice.
        """
        begin: Request = {"do": "start", "task": task}
        self._forget([(begin, [True])])
        process = self._process
        if process is None:
            self._running()
            return
        try:
            self._send(process, begin)
            self._owed += 1
        except OSError:
            self._drop()  # The next request starts another one.
            self.restarts += 1

    def call(self, texts: Sequence[str], recorded: str | None = None) -> list[str]:
        """Return the results of calls, in order.

        When the time or the memory is spent, the rest is not executed. From the first result on that does not fit into
        `MAX_OBSERVATION`, one error stands for all; where the time is spent too, nothing is executed.

        Args:
            texts: calls as `CallAnswer.texts` writes them.
            recorded: their results in the record of an episode that is repeated: what was not executed then is not executed
                now, and the others are not hurried.

        Raises:
            EngineError: the process is lost twice.
        """
        room = min(MAX_OBSERVATION, self._room)
        late = _late(recorded, len(texts)) if recorded is not None else 0
        request: Request = {"do": "call", "texts": list(texts[: len(texts) - late]), "room": room}
        request["patient"] = recorded is not None
        try:
            results = self._ask(request, len(request["texts"]))
        except _EndedError as error:
            results = error.replies
        except _SpoiledError:
            results = []
        if self._process is None:
            late = len(texts) - len(results)
            if None in results or len(TOO_LONG) * late > room:
                results, late = [], 1
            self._done.append(({**request, "texts": list(texts[: len(results)])}, results))
        elif recorded == TOO_LONG:
            late = 1
        whole = [result for result in results if result is not None]
        results = [*whole, *[TOO_LONG] * late, *[TOO_LARGE] * (len(whole) < len(results))]
        self._room -= sum(len(result) + 1 for result in results)
        return results

    def possible(self, texts: Sequence[str]) -> list[bool]:
        """Tell of each call whether it would be executed without an error now; nothing is changed by the trial.

        Args:
            texts: calls as `CallAnswer.texts` writes them.

        Raises:
            EngineError: the process is lost twice.
        """
        try:
            return self._ask({"do": "try", "texts": list(texts)}, len(texts), trial=True)
        except (_EndedError, _SpoiledError):
            return [False] * len(texts)

    def end_turn(self, *, patient: bool = False) -> TurnVerdict:
        """End the turn and return the verdict of upstream's three checks.

        Args:
            patient: the turn was judged before, and is not hurried.

        Raises:
            EngineError: the process is lost twice.
        """
        try:
            valid, why = self._ask({"do": "end turn", "patient": patient})[0]
            return TurnVerdict(valid, why)
        except (_EndedError, _SpoiledError):
            self._done.append(({"do": "drop turn"}, [True]))
            return TurnVerdict(False, "comparing takes too long")

    def judge(self, task: str, text: str, *, patient: bool = False) -> TurnVerdict:
        """Return the verdict on the answer to a single-turn task.

        Args:
            task: the task id.
            text: the answer as the model wrote it.
            patient: it was judged before, and is not hurried.

        Raises:
            EngineError: the process is lost twice.
        """
        self._forget([])
        try:
            valid, why = self._ask({"do": "judge", "task": task, "text": text, "patient": patient}, trial=True)[0]
            return TurnVerdict(valid, why)
        except _EndedError:
            return TurnVerdict(False, "comparing takes too long")

    def _forget(self, done: list[tuple[Request, list[Any]]]) -> None:
        self._done, self._spoiled, self._room, self.restarts = done, False, MAX_EPISODE, 0

    def close(self) -> None:
        """End the process; another one is started when it is needed."""
        process, self._process = self._process, None
        self._done = []
        if process is not None:
            _end(process)

    def _ask(self, request: Request, replies: int = 1, *, trial: bool = False) -> list[Any]:
        """Return the replies to a request, sent to a new process with the same history where the old one was lost.

        A trial changes nothing, so it is not repeated in a new process.

        Raises:
            _EndedError: the request ended the process, or it was killed twice at this request and not while it repeated the
                others; the next request goes to a new process.
            _SpoiledError: the requests before cannot be repeated.
            EngineError: the process was lost twice for another reason.
        """
        if self._spoiled:
            raise _SpoiledError
        lost: _EndedError | None = None
        for _ in range(2):
            try:
                answered = self._exchange(self._running(), request, replies)
            except _EndedError as error:
                self._drop()
                if error.own_fault or (error.killed and lost is not None and lost.killed):
                    raise
                self.restarts += 1
                lost = error
                continue
            if not trial:
                self._done.append((request, answered))
            return answered
        why = (lost.why if lost is not None else "") or "is the machine out of memory?"
        raise EngineError(f"the process that executes the calls was lost twice: {why}")

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, in the state after everything that was executed in this task.

        Raises:
            _SpoiledError: a repeated call ended it.
            EngineError: it cannot be started in two attempts, or repeated calls give other results.
        """
        if self._process is not None:
            return self._process
        lost: _EndedError | None = None
        for _ in range(2):
            with block_interrupts():  # So that an interrupt finds the process stored; the process itself gets none.
                process = self._process = _spawn()
                self._errors = ErrorOutput(cast(IO[bytes], process.stderr), forwarded=False)
            self._unread, self._owed = b"", 0
            try:
                self._repeat(process)
                return process
            except _EndedError as error:
                self._drop()
                if error.own_fault and len(self._done) > 1:
                    self._spoiled = True
                    raise _SpoiledError from error
                self.restarts += 1
                lost = error
        when = "while it repeated them" if len(self._done) > 1 else "at its start"
        why = f": {lost.why}" if lost is not None and lost.why else ""
        raise EngineError(f"the process that executes the calls was lost {when}, twice{why}") from lost

    def _repeat(self, process: subprocess.Popen[bytes]) -> None:
        for request, before in self._done:
            # Each of them was quick enough once.
            if self._exchange(process, {**request, "patient": True}, len(before)) != before:
                self._drop()
                raise EngineError("the process that executes the calls was lost, and repeating them gave other results")

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _exchange(self, process: subprocess.Popen[bytes], request: Request, replies: int) -> list[Any]:
        answered: list[Any] = []
        deadline = time.monotonic() + self._seconds * (PATIENCE if request.get("patient") else 1)
        try:
            self._send(process, request)
            while self._owed:
                self._line(process, deadline)
                self._owed -= 1
            while len(answered) < replies:
                answered.append(json.loads(self._line(process, deadline)))
        except (OSError, EOFError) as error:
            code = None if isinstance(error, TimeoutError) else process.wait()
            why = self._errors.last_line() if self._errors is not None and (code or 0) > 0 else ""
            raise _EndedError(answered, code, why) from error
        return answered

    @staticmethod
    def _send(process: subprocess.Popen[bytes], request: Request) -> None:
        pipe = cast(IO[bytes], process.stdin)
        pipe.write(json.dumps(request).encode() + b"\n")
        pipe.flush()

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        """Return the next line that the process writes.

        Raises:
            EOFError: there is none: it has ended.
            TimeoutError: it does not write, or writes no line of a reply's length.
        """
        pipe = cast(IO[bytes], process.stdout)
        parts, size = [self._unread], len(self._unread)
        while b"\n" not in parts[-1]:
            if size > _MAX_LINE:
                raise TimeoutError
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            parts.append(os.read(pipe.fileno(), 1 << 16))
            size += len(parts[-1])
            if not parts[-1]:
                raise EOFError
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return line


def _late(recorded: str, count: int) -> int:
    """Return how many of a response's calls, at its end, were not executed when it was recorded."""
    if recorded == TOO_LONG:
        return count
    lines = recorded.split("\n")[-count:]
    return sum(1 for _ in takewhile(lambda line: line == TOO_LONG, reversed(lines)))


def _spawn() -> subprocess.Popen[bytes]:
    """Start a process without the caller's folder on its path, in which time zone and set order are the same everywhere."""
    variables = {**os.environ, "TZ": "UTC", "PYTHONHASHSEED": "0"}
    pipe = subprocess.PIPE
    command = python_command("cotbench.envs.bfcl.worker")
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=variables)
    except OSError as error:
        raise EngineError(f"cannot start the process that executes the calls ({error})") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
