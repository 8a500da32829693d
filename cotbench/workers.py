"""Environments in this process or in processes of their own, behind one handle. Invariant: whatever goes wrong inside an
environment comes out as `EngineError` of that environment alone; a dead process is replaced by a fresh one.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from cotbench.envs.base import TextEnv
from cotbench.envs.registry import env_entry
from cotbench.errors import CotbenchError, EngineError


@dataclass(frozen=True, slots=True)
class EnvSettings:
    """Which environment to make: its name and the arguments of its class. Picklable."""

    name: str
    kwargs: Mapping[str, Any]

    def make(self) -> TextEnv:
        """A new environment."""
        return env_entry(self.name).make(**self.kwargs)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an environment answered to `reset` or `step`."""

    observation: str
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class EnvHandle(Protocol):
    """An environment that is asked first and read later, so that several can work at once."""

    def ask_reset(self, task: str) -> None:
        """Start a task."""

    def ask_step(self, action: str) -> None:
        """Execute an action."""

    def read(self) -> Reply:
        """The answer to what was asked last. Raises EngineError."""

    def close(self) -> None:
        """Free the environment."""


def _handle(env: TextEnv, command: str, argument: str) -> Reply:
    if command == "reset":
        observation, info = env.reset(options={"task": argument})
        return Reply(observation, False, False, info)
    observation, _, terminated, truncated, info = env.step(argument)
    return Reply(observation, terminated, truncated, info)


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, CotbenchError) else f"{type(error).__name__}: {error}"


class LocalEnv:
    """An environment in this process."""

    def __init__(self, settings: EnvSettings) -> None:
        self._env = settings.make()
        self._asked = ("", "")

    def ask_reset(self, task: str) -> None:
        """Start a task."""
        self._asked = ("reset", task)

    def ask_step(self, action: str) -> None:
        """Execute an action."""
        self._asked = ("step", action)

    def read(self) -> Reply:
        """Do what was asked last."""
        try:
            return _handle(self._env, *self._asked)
        except Exception as error:
            raise EngineError(_message(error)) from error

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


class ProcessEnv:
    """An environment in a process of its own."""

    def __init__(self, settings: EnvSettings) -> None:
        self._settings = settings
        self._process: Any = None
        self._pipe: Any = None

    def ask_reset(self, task: str) -> None:
        """Start a task; starts the process when there is none."""
        if self._process is None:
            # Spawned, not forked: the parent may hold a model, threads, a GPU.
            context = multiprocessing.get_context("spawn")
            self._pipe, inner = context.Pipe()
            self._process = context.Process(target=_serve, args=(inner, self._settings), daemon=True)
            with _deaf_to_interrupts():
                self._process.start()
            inner.close()
        self._send("reset", task)

    def ask_step(self, action: str) -> None:
        """Execute an action."""
        self._send("step", action)

    def _send(self, command: str, argument: str) -> None:
        try:
            self._pipe.send((command, argument))
        except (OSError, AttributeError):
            self.close()  # `read` says that it is gone.

    def read(self) -> Reply:
        """Wait for the answer to what was asked last."""
        try:
            kind, payload = self._pipe.recv()
        except (EOFError, OSError, AttributeError) as error:
            code = None
            if self._process is not None:
                self._process.join(timeout=1)
                code = self._process.exitcode
            self.close()
            raise EngineError(f"the process of environment {self._settings.name} died (exit code {code})") from error
        if kind == "error":
            raise EngineError(payload)
        reply: Reply = payload
        return reply

    def close(self) -> None:
        """End the process."""
        pipe, process, self._pipe, self._process = self._pipe, self._process, None, None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process started here ignores Ctrl-C from its first moment, while it still imports: the parent decides what it means."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Any, settings: EnvSettings) -> None:
    """The loop of an environment process; it ends when the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what Ctrl-C means.
    env: TextEnv | None = None
    try:
        while True:
            command, argument = pipe.recv()
            try:
                env = env or settings.make()
                answer: tuple[str, Any] = ("reply", _handle(env, command, argument))
            except Exception as error:
                answer = ("error", _message(error))
            pipe.send(answer)
    except (EOFError, OSError):
        return
    finally:
        if env is not None:
            env.close()


def open_envs(settings: EnvSettings, workers: int) -> list[EnvHandle]:
    """`workers` environments: one lives in this process, several in processes of their own."""
    if workers == 1:
        return [LocalEnv(settings)]
    return [ProcessEnv(settings) for _ in range(workers)]
