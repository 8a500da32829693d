"""A Python process of cotbench that serves a function over pipes. Invariant: neither the user's script nor the current
directory matters to it; it hears no Ctrl-C, tells why it did not start, and ends with its parent, also when that is killed.

`multiprocessing` starts processes too, but imports the user's `__main__` in each: a script without a guard, standard input and
a notebook cannot use it. Its pipes are used here.
"""

from __future__ import annotations

import codecs
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from cotbench.errors import EngineError
from cotbench.plugins import loaded_plugins
from cotbench.printable import printable

START_SECONDS = 120.0
"""After that much time a process that has not begun to serve is killed. Plugins count, a slow network drive too."""

STALL_SECONDS = 120.0
"""After that much time in the middle of a message a pipe fails with an `OSError`: who should read or write it is stopped."""

STARTED = b"started"
"""What a process says once its function is about to be called."""

_TAIL_BYTES, _LINE = 4000, 400
_LOOK_SECONDS = 5.0


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module in another interpreter.

    With `-P` the current directory is not searched for modules: a checkout's `cotbench/` would shadow the installed package.

    Args:
        module: a dotted name.
        arguments: of the module.

    Raises:
        EngineError: nobody knows where the interpreter is, as in a program that embeds Python.
    """
    if not sys.executable:
        raise EngineError("cannot start a process: sys.executable does not name a Python interpreter; use no worker processes")
    return [sys.executable, "-P", "-m", module, *arguments]


def ending_with_parent(command: Sequence[str], number: int) -> list[str]:
    """Return the command line that runs a program which ends with this process where the system can do that, else the same.

    The thread that starts it must stay.

    Args:
        command: the program and its arguments.
        number: the signal that it gets.
    """
    if sys.platform != "linux":
        return list(command)
    return python_command("cotbench.parent_death", str(os.getpid()), str(int(number)), *command)


def started_in_lasting_thread(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start a process in a thread that ends after it: the system may end a process with the thread that has started it.

    Args:
        start: starts the process.

    Raises:
        OSError: it cannot be started.
    """
    found: SimpleQueue[subprocess.Popen[bytes] | OSError] = SimpleQueue()

    def keep() -> None:
        try:
            process = start()
        except OSError as error:
            found.put(error)
            return
        found.put(process)
        process.wait()

    threading.Thread(target=keep, daemon=True, name="parent of a process").start()
    process = found.get()
    if isinstance(process, OSError):
        raise process
    return process


@contextmanager
def block_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from a process started here from its first moment, while it still imports: the parent decides what it means.

    Held back, not ignored: what comes meanwhile is heard by the parent afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ErrorOutput:
    """Reads what a process writes to its standard error, and keeps the last of it.

    Args:
        pipe: from the process; closed when the process has closed its side.
        forwarded: pass everything on to this process's standard error, in printable form.
    """

    def __init__(self, pipe: IO[bytes], *, forwarded: bool) -> None:
        self._pipe, self._forwarded = pipe, forwarded
        self._tail = b""
        self._thread = threading.Thread(target=self._read, daemon=True, name="standard error of a child process")
        self._thread.start()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 1 << 16):
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
                if self._forwarded:
                    with suppress(OSError):
                        os.write(2, printable(decoder.decode(chunk)).encode())

    def last_line(self) -> str:
        """Return the last line that is not blank, cut and printable, or "" without any; for a process that has ended."""
        self._thread.join(timeout=1)  # Something that the process has started may still hold the pipe.
        lines = self._tail.decode("utf-8", "replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return printable(last)[:_LINE]


class ChildProcess:
    """A process that calls `function(pipes, *arguments)` and ends when that returns.

    It runs `cotbench.child_main`. On Linux the system ends it with the thread that has started it: that thread must stay.

    Args:
        function: of an importable module, not of the user's script.
        arguments: for it; pickled.
        pipes: how many pipes to open.
        plugins: what the process imports first; None for what this one has imported.
        forwarded: pass on what it writes to its standard error.

    Attributes:
        pipes: this process's ends, in order; the function has the others.

    Raises:
        EngineError: it cannot be started.
    """

    def __init__(
        self,
        function: Callable[..., None],
        arguments: Sequence[Any] = (),
        *,
        pipes: int = 1,
        plugins: Sequence[str] | None = None,
        forwarded: bool = True,
    ) -> None:
        if sys.platform == "win32":
            raise EngineError("processes of cotbench need Linux or macOS: on Windows use no worker processes (--workers 0)")
        first = pickle.dumps((_search_path(), tuple(loaded_plugins() if plugins is None else plugins)))
        call = pickle.dumps((function, tuple(arguments)))
        pairs: list[tuple[Connection[Any, Any], Connection[Any, Any]]] = []
        try:
            pairs.extend(Pipe() for _ in range(pipes + 1))
            inner = [end.fileno() for _, end in pairs]
            command = python_command("cotbench.child_main", str(os.getpid()), *map(str, inner))
            with block_interrupts():  # Its threads and those here that serve it do not hear Ctrl-C either.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=inner, bufsize=0
                )
                self._watch(pairs[0][0], forwarded)
        except OSError as error:
            for outer, _ in pairs:
                outer.close()
            raise EngineError(f"cannot start a process ({error})") from error
        finally:
            for _, end in pairs:
                end.close()
        for outer, _ in pairs:
            _limit_stalls(outer)
        self.pipes = [outer for outer, _ in pairs[1:]]
        with suppress(OSError):  # Where it is gone already, `ending` says so.
            self._control.send_bytes(first)
            self._control.send_bytes(call)

    def _watch(self, control: Connection[Any, Any], forwarded: bool) -> None:
        self._control = control
        self._started, self._late = False, threading.Event()
        self._seconds = START_SECONDS
        if self._process.stderr is None:
            raise EngineError("a process was started without standard error")
        self._errors = ErrorOutput(self._process.stderr, forwarded=forwarded)
        # These threads do not hold the pipes: where nobody does any more, the process ends.
        self._timer = threading.Timer(self._seconds, _kill_if_not_started, (self._process, control, self._late))
        self._timer.daemon = True
        self._timer.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def ending(self) -> str:
        """Return how the process ended, in words that follow "the process"; for one that has closed its pipes or was killed.

        Returns:
            "died (exit code -9)", "ended while it started (exit code 1): last line of its standard error", ...
        """
        try:
            code: int | None = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            code = None
        if self._late.is_set():
            return _with_reason(f"did not start within {self._seconds:g} s", self._errors.last_line())
        if code is None:
            return "does not answer"
        if not self._has_started():
            return _with_reason(f"ended while it started (exit code {code})", self._errors.last_line())
        # After a signal, the last line is about something else.
        return _with_reason(f"died (exit code {code})", self._errors.last_line() if code > 0 else "")

    @property
    def last_line(self) -> str:
        """The last line of its standard error so far."""
        return self._errors.last_line()

    @property
    def failed_by_itself(self) -> bool:
        """Whether it has ended with an exit code of its own: another process would end in the same way.

        Not so where a signal has ended it, or it did not start in time.
        """
        return not self._late.is_set() and (self._process.poll() or 0) > 0

    def kill(self) -> None:
        """End the process at once, whatever it is doing; its pipes are closed on its side then."""
        self._process.kill()
        self._process.wait()

    def _has_started(self) -> bool:
        if not self._started:
            with suppress(EOFError, OSError):
                self._started = self._control.poll() and self._control.recv_bytes() == STARTED
        return self._started

    def close(self, patience: float = 0.0) -> None:
        """End the process: close the pipes, and kill it where it does not end by itself. Safe to call twice.

        Args:
            patience: seconds to wait before it is killed.
        """
        for pipe in self.pipes:
            pipe.close()
        self._timer.cancel()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience)
        self._process.kill()
        self._process.wait()
        self._control.close()


class Patience:
    """Counts the time that something has been awaited, up to a limit.

    Of a longer time between two looks only `_LOOK_SECONDS` count: the waiting process may have been stopped (Ctrl-Z) or busy.

    Args:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._left = seconds
        self._last = time.monotonic()

    def spent(self) -> bool:
        """Return whether the limit is reached; to be called every now and then, at least every `_LOOK_SECONDS`."""
        now = time.monotonic()
        self._left -= min(now - self._last, _LOOK_SECONDS)
        self._last = now
        return self._left <= 0


def _limit_stalls(pipe: Connection[Any, Any]) -> None:
    """Let no read or write of a pipe take longer than `STALL_SECONDS`; whoever waits for a message polls first."""
    whole, part = divmod(STALL_SECONDS, 1)
    limit = struct.pack("@ll", int(whole), int(part * 1_000_000))
    with socket.socket(fileno=os.dup(pipe.fileno())) as same:
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            same.setsockopt(socket.SOL_SOCKET, direction, limit)


def _with_reason(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what


def _kill_if_not_started(process: subprocess.Popen[bytes], control: Connection[Any, Any], late: threading.Event) -> None:
    with suppress(OSError):  # Closed meanwhile.
        if not control.poll():
            late.set()
            process.kill()


def _search_path() -> list[str]:
    """Where this process finds modules; plugins may lie there."""
    return [folder or str(Path.cwd()) for folder in sys.path]
