"""Environments in this process or in worker processes, behind one handle. Invariant: whatever goes wrong inside an environment
comes out as `EngineError` of that environment alone; a dead process costs its environments their episodes and is replaced.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
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
class EnvReply:
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

    def read(self) -> EnvReply:
        """The answer to what was asked last; waits for it. Raises EngineError."""

    def close(self) -> None:
        """Free the environment."""


def _handle(env: TextEnv, command: str, argument: str) -> EnvReply:
    if command == "reset":
        observation, info = env.reset(options={"task": argument})
        return EnvReply(observation, False, False, info)
    observation, _, terminated, truncated, info = env.step(argument)
    return EnvReply(observation, terminated, truncated, info)


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

    def read(self) -> EnvReply:
        """Do what was asked last."""
        try:
            return _handle(self._env, *self._asked)
        except Exception as error:
            raise EngineError(_message(error)) from error

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


class _Worker:
    """A process with some environments, each with a pipe and a thread of its own: a slow one keeps no other waiting."""

    def __init__(self, settings: EnvSettings, count: int) -> None:
        self._settings, self._count = settings, count
        self._process: Any = None
        self.pipes: list[Any] = []
        self.closed: set[int] = set()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process, anew where it died."""
        # Spawned, not forked: the parent may hold a model, threads, a GPU.
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(self._count)]
        self.pipes = [outer for outer, _ in pairs]
        self._process = context.Process(target=_serve, args=([inner for _, inner in pairs], self._settings), daemon=True)
        with block_interrupts():
            self._process.start()
        for _, inner in pairs:
            inner.close()

    def exit_code(self) -> int | None:
        """How the process ended."""
        if self._process is None:
            return None
        self._process.join(timeout=1)
        code: int | None = self._process.exitcode
        return code

    def close(self, index: int) -> None:
        """Give an environment up; the last one ends the process."""
        self.closed.add(index)
        if self.pipes:
            self.pipes[index].close()
        if len(self.closed) == self._count and self._process is not None:
            self._process.join(timeout=10)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()


class WorkerEnv:
    """An environment in a worker process."""

    def __init__(self, worker: _Worker, index: int, name: str) -> None:
        self._worker, self._index, self._name = worker, index, name
        self.pipe: Any = None

    def ask_reset(self, task: str) -> None:
        """Start a task; starts the process when there is none."""
        if not self._worker.alive:
            self._worker.start()
        self.pipe = self._worker.pipes[self._index]
        self._send("reset", task)

    def ask_step(self, action: str) -> None:
        """Execute an action."""
        self._send("step", action)

    def _send(self, command: str, argument: str) -> None:
        # Where the process is gone, `read` says so.
        with suppress(OSError):
            self.pipe.send((command, argument))

    def read(self) -> EnvReply:
        """Wait for the answer to what was asked last."""
        try:
            kind, payload = self.pipe.recv()
        except (EOFError, OSError) as error:
            code = self._worker.exit_code()
            raise EngineError(f"the process of environment {self._name} died (exit code {code})") from error
        if kind == "error":
            raise EngineError(payload)
        reply: EnvReply = payload
        return reply

    def close(self) -> None:
        """Free the environment."""
        self._worker.close(self._index)


def wait_for_replies(envs: Sequence[EnvHandle], timeout: float) -> list[EnvHandle]:
    """The environments that have answered, once one has, or after `timeout` seconds; those in this process always have."""
    pipes = {env.pipe: env for env in envs if isinstance(env, WorkerEnv)}
    here = [env for env in envs if not isinstance(env, WorkerEnv)]
    answered = wait(list(pipes), 0.0 if here else timeout) if pipes else []
    return [*here, *(pipes[pipe] for pipe in answered)]


@contextmanager
def block_interrupts() -> Iterator[None]:
    """A process started here hears no Ctrl-C from its first moment, while it still imports: the parent decides what it means.

    Held back, not ignored: what comes meanwhile is heard by the parent afterwards.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # It is started by the first process, and then lets the signal through.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipes: Sequence[Any], settings: EnvSettings) -> None:
    """A worker process; it ends when the parent closes the pipes or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what Ctrl-C means.
    threads = [threading.Thread(target=_serve_one, args=(pipe, settings)) for pipe in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve_one(pipe: Any, settings: EnvSettings) -> None:
    """The loop of one environment."""
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


def open_envs(settings: EnvSettings, count: int, processes: int) -> list[EnvHandle]:
    """`count` environments, spread over so many worker processes; with none they live in this process."""
    if processes == 0:
        return [LocalEnv(settings) for _ in range(count)]
    envs: list[EnvHandle] = []
    for number in range(processes):
        share = len(range(number, count, processes))
        worker = _Worker(settings, share)
        envs += [WorkerEnv(worker, index, settings.name) for index in range(share)]
    return envs
