"""ScienceWorld's simulator in a Java process of its own. Invariant: every call ends in bounded time, with an answer or with
`ServerLostError`; `close` leaves no process behind.

The simulator is upstream's jar, called directly: upstream's Python wrapper computes all valid actions at every step, whether
they are used or not, and never gives up on a Java that does not answer.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cotbench.envs.scienceworld.java import START_SECONDS, JavaProcess
from cotbench.errors import EngineError, MissingExtraError

JAVA_OPTIONS = (
    # Upstream iterates over hash sets of objects: with Java's random identity hashes the same actions give other texts.
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
    # 340 MB instead of 1.15 GB, and no slower.
    "-XX:+UseSerialGC",
    "-Xmx256m",
)

STEP_SECONDS = 60.0
GOLD_SECONDS = 180.0


class ServerLostError(EngineError):
    """Raised when the Java process died, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class ServerReply:
    """Result of an action.

    Attributes:
        text: upstream's text.
        score: upstream's score, -100 to 100.
        completed: whether upstream calls the task completed.
    """

    text: str
    score: int
    completed: bool


class Server:
    """One simulator.

    Args:
        seconds: how long a call may take before the server counts as lost.

    Raises:
        MissingExtraError: scienceworld, py4j or Java is missing.
        ServerLostError: it does not start.
    """

    def __init__(self, seconds: float = STEP_SECONDS) -> None:
        for module in ("scienceworld", "py4j"):
            if find_spec(module) is None:
                raise MissingExtraError("ScienceWorld", "scienceworld")
        from py4j.java_gateway import GatewayParameters, JavaGateway, find_jar_path

        _quiet_py4j()
        self._process: JavaProcess | None = None
        self._gateway: Any = None
        jar = _jar()
        try:
            # Not py4j's `launch_gateway`, which waits for the port without a limit.
            self._process = JavaProcess([Path(find_jar_path()), jar], JAVA_OPTIONS, jar.parent)
            parameters = GatewayParameters(auto_field=True, port=self._process.port, read_timeout=START_SECONDS)
            self._gateway = JavaGateway(gateway_parameters=parameters)
            self._simulator = self._gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()
            parameters.read_timeout = seconds
            self._gateway.close()  # Its connections alone: the next call opens one with the other time-out.
        except MissingExtraError:
            raise
        except Exception as error:
            self.close()
            raise ServerLostError(f"ScienceWorld's Java does not start: {_short(error)}") from error

    @property
    def pid(self) -> int:
        """Id of the Java process."""
        if self._process is None:
            raise ServerLostError("ScienceWorld's Java is closed")
        return self._process.pid

    def load(self, task: str, variation: int, simplifications: str = "", gold: bool = False) -> None:
        """Set up a variation of a task.

        Args:
            task: upstream's name of the task type.
            variation: number of the variation.
            simplifications: upstream's names, with commas between them.
            gold: whether the gold path is computed, here and at every later reset.
        """
        self._call("load", task, variation, simplifications, gold)

    def reset(self) -> str:
        """Start the loaded task and return the text of the first look around, which upstream counts as a move."""
        self._call("reset")
        return self.step("look around").text

    def step(self, action: str) -> ServerReply:
        """Execute one action and return its result."""
        text = str(self._call("step", action))
        return ServerReply(text, round(100 * float(self._call("getScore"))), bool(self._call("getCompleted")))

    def description(self) -> str:
        """Return the task in words."""
        return str(self._call("getTaskDescription"))

    def valid_actions(self) -> list[str]:
        """Return the actions that the simulator would accept, sorted and without duplicates."""
        return sorted({str(action) for action in self._call("getValidActionObjectCombinations")})

    def gold_path(self) -> list[str]:
        """Return the gold path of a task that was loaded with `gold`."""
        return [str(action) for action in self._call("getGoldActionSequence")]

    def close(self) -> None:
        """End the process; safe to call twice."""
        gateway, process, self._gateway, self._process = self._gateway, self._process, None, None
        if process is not None:
            # Killed first: a frozen Java does not answer the gateway's request to shut down.
            process.end()
        if gateway is not None:
            with contextlib.suppress(Exception):
                gateway.close()

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._gateway is None:
            raise ServerLostError("ScienceWorld's Java is closed")
        from py4j.protocol import Py4JError, Py4JJavaError

        try:
            return getattr(self._simulator, name)(*arguments)
        except Py4JJavaError as error:
            raise EngineError(f"ScienceWorld failed in {name}: {_short(error.java_exception)}") from error
        except AttributeError as error:
            # py4j stumbles in its own clean-up after Ctrl-C, and so hides it.
            if isinstance(error.__context__, KeyboardInterrupt):
                self.close()
                raise KeyboardInterrupt from error
            raise
        except (Py4JError, OSError) as error:
            code = self._process.exit_code if self._process is not None else None
            reason = f"died (exit code {code})" if code is not None else "does not answer"
            self.close()
            raise ServerLostError(f"ScienceWorld's Java {reason}") from error


def _quiet_py4j() -> None:
    """Keep py4j from printing tracebacks of what is raised as `ServerLostError` anyway.

    It logs to the root logger too.
    """
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    root = logging.getLogger()
    if _not_py4j not in root.filters:
        root.addFilter(_not_py4j)


def _not_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


def _jar() -> Path:
    spec = find_spec("scienceworld")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        jar = Path(folder) / "scienceworld.jar"
        if jar.is_file():
            return jar
    raise MissingExtraError("ScienceWorld (its package lacks scienceworld.jar)", "scienceworld")


def _short(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
