"""Client of the process that executes calls. Invariant: a call that takes too long costs its process, never the episode:
what was executed before is executed again in a new process, and the call's result is an error.
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
from typing import IO, Any, cast

from cotbench.child_process import ErrorOutput, block_interrupts, python_command
from cotbench.envs.bfcl.session import TurnVerdict
from cotbench.errors import EngineError

TOO_LONG = "Error during execution: the call takes too long"
SECONDS = 30.0
"""Time by the clock without a reply after which the process is taken for frozen."""

Request = dict[str, Any]


class _EndedError(Exception):
    """Raised when the process has ended.

    Attributes:
        replies: its replies to the request before it ended.
        own_fault: whether the request ended it.
        why: the last line of its error output, where it ended by itself.
    """

    def __init__(self, replies: list[Any], own_fault: bool, why: str = "") -> None:
        super().__init__("the process ended")
        self.replies = replies
        self.own_fault = own_fault
        self.why = why


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
        self.restarts = 0

    def start(self, task: str) -> None:
        """Start a multi-turn task with fresh services. The process prepares them while the caller goes on.

        Args:
            task: the task id.

        Raises:
            EngineError: the process cannot be started, or is lost twice.
        """
        self.restarts = 0
        begin: Request = {"do": "start", "task": task}
        self._done = [(begin, [True])]
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

    def call(self, texts: Sequence[str]) -> list[str]:
        """Return the result of each call, in order; when the time is spent, the rest is not executed.

        Args:
            texts: calls as `CallAnswer.texts` writes them.

        Raises:
            EngineError: the process is lost twice.
        """
        try:
            return self._ask({"do": "call", "texts": list(texts)}, len(texts))
        except _EndedError as error:
            done: list[str] = error.replies
            self._done.append(({"do": "call", "texts": list(texts[: len(done)])}, done))
            late = [TOO_LONG] * (len(texts) - len(done))
            self._done += [({"do": "skip", "result": result}, [True]) for result in late]
            return [*done, *late]

    def possible(self, texts: Sequence[str]) -> list[bool]:
        """Tell of each call whether it would be executed without an error now; nothing is changed by the trial.

        Args:
            texts: calls as `CallAnswer.texts` writes them.

        Raises:
            EngineError: the process is lost twice.
        """
        try:
            return self._ask({"do": "try", "texts": list(texts)}, len(texts), trial=True)
        except _EndedError as error:  # One call took too long: the others are tried in a new process.
            tried: list[bool] = error.replies
            return [*tried, False, *self.possible(texts[len(tried) + 1 :])]

    def end_turn(self) -> TurnVerdict:
        """End the turn and return the verdict of upstream's three checks.

        Raises:
            EngineError: the process is lost twice.
        """
        try:
            valid, why = self._ask({"do": "end turn"})[0]
            return TurnVerdict(valid, why)
        except _EndedError:
            self._done.append(({"do": "drop turn"}, [True]))
            return TurnVerdict(False, "comparing takes too long")

    def judge(self, task: str, text: str) -> TurnVerdict:
        """Return the verdict on the answer to a single-turn task.

        Args:
            task: the task id.
            text: the answer as the model wrote it.

        Raises:
            EngineError: the process is lost twice.
        """
        self._done, self.restarts = [], 0
        try:
            valid, why = self._ask({"do": "judge", "task": task, "text": text})[0]
            return TurnVerdict(valid, why)
        except _EndedError:
            return TurnVerdict(False, "comparing takes too long")

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
            _EndedError: the request ended the process; the next request goes to a new process.
            EngineError: the process was lost twice for another reason.
        """
        why = ""
        for _ in range(2):
            try:
                answered = self._exchange(self._running(), request, replies)
            except _EndedError as error:
                self._drop()
                if error.own_fault:
                    raise
                self.restarts += 1
                why = error.why
                continue
            if not trial:
                self._done.append((request, answered))
            return answered
        raise EngineError(f"the process that executes the calls was lost twice: {why or 'is the machine out of memory?'}")

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, in the state after everything that was executed in this task.

        Raises:
            EngineError: it cannot be started, or repeated calls give other results.
        """
        if self._process is not None:
            return self._process
        with block_interrupts():  # So that an interrupt finds the process stored; the process itself gets none.
            process = self._process = _spawn()
            self._errors = ErrorOutput(cast(IO[bytes], process.stderr), shown=False)
        self._unread, self._owed = b"", 0
        for request, before in self._done:
            try:
                same = self._exchange(process, request, len(before)) == before
            except _EndedError as error:
                self._drop()
                when = "while it repeated them" if len(self._done) > 1 else "at its start"
                why = f": {error.why}" if error.why else ""
                raise EngineError(f"the process that executes the calls was lost {when}{why}") from error
            if not same:
                self._drop()
                raise EngineError("the process that executes the calls was lost, and repeating them gave other results")
        return process

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _exchange(self, process: subprocess.Popen[bytes], request: Request, replies: int) -> list[Any]:
        answered: list[Any] = []
        deadline = time.monotonic() + self._seconds
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
            # These signals end a process for what its own request does; not every system has them.
            raise _EndedError(answered, code in (-signal.SIGPROF, -signal.SIGSEGV), why) from error
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
            TimeoutError: it does not write.
        """
        pipe = cast(IO[bytes], process.stdout)
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            parts.append(os.read(pipe.fileno(), 1 << 16))
            if not parts[-1]:
                raise EOFError
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return line


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
