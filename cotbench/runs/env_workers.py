"""Environments in this process or in worker processes, behind one handle. Invariant: any failure inside an environment is
raised as an `EngineError` of that environment alone (a bug of its own code as an `EnvBugError`); a worker process that dies or
does not answer fails its environments with a `WorkerLostError` and is replaced.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any, Protocol

from cotbench.bounds import ERROR_CHARS, OBSERVATIONS_CHARS, TextBudget, bounded
from cotbench.child_process import ChildProcess, Patience, block_interrupts
from cotbench.envs.base import TextEnv
from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.errors import CotbenchError, EngineError, EnvBugError, UnknownNameError, WorkerLostError
from cotbench.failure import exception_line, modules_of, registered_code
from cotbench.json_text import replace_surrogates
from cotbench.plugins import load_plugins, loaded_plugins

_log = logging.getLogger(__name__)

REPLY_SECONDS = 600.0
"""After that much time by the clock without a reply a worker process is killed. An environment that is slow itself has limits
of its own, which are shorter also when they follow each other: a lost simulator, a new one, its gold path.
"""

_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class EnvSettings:
    """The class and the arguments of an environment, to make it in this or in another process. Picklable.

    Attributes:
        name: the environment's registered name.
        kwargs: the arguments of its class.
        plugins: modules to import first, as `load_plugins` takes them; by default those that this process has imported.
        dialect: of the environment's data (`EnvEntry.dialects`); empty: the environment's own.
    """

    name: str
    kwargs: Mapping[str, Any]
    plugins: tuple[str, ...] = field(default_factory=loaded_plugins)
    dialect: str = ""

    @property
    def entry(self) -> EnvEntry:
        """The environment, in its dialect."""
        return env_entry(self.name).in_dialect(self.dialect)

    def make(self) -> TextEnv:
        """Return a new environment.

        Raises:
            EnvBugError: its constructor fails.
        """
        load_plugins(self.plugins)
        entry = self.entry
        with registered_code(f"environment {self.name}", entry.loaded_class(), EnvBugError):
            return entry.make(**self.kwargs)


@dataclass(frozen=True, slots=True)
class EnvReply:
    """The reply of an environment to `reset` or `step`, in bounded texts that can be written to a file."""

    observation: str
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class EnvHandle(Protocol):
    """An environment with separate request and reply, so that several can work at the same time."""

    def ask_reset(self, task: str) -> None:
        """Start a task."""

    def ask_step(self, action: str) -> None:
        """Execute an action."""

    def read(self) -> EnvReply:
        """Return the reply to the last request; wait for it.

        Raises:
            WorkerLostError: its process was lost; the environment can be reset in another one.
            EngineError: the environment failed.
        """

    def close(self) -> None:
        """Free the environment."""


class _Engine:
    """An environment that carries out requests, with the budget of its episode's texts."""

    def __init__(self, env: TextEnv, name: str) -> None:
        self._env, self._name = env, name
        self._texts = TextBudget(OBSERVATIONS_CHARS)

    def handle(self, command: str, argument: str) -> EnvReply:
        """Carry out a request, check the reply, replace what no file can hold in its texts, and bound them.

        Raises:
            EnvBugError: the environment's code fails, or returns something else than it has to.
        """
        env = self._env
        with registered_code(f"environment {self._name}", env, EnvBugError):
            if command == "reset":
                self._texts = TextBudget(OBSERVATIONS_CHARS)
                observation, info = env.reset(options={"task": argument})
                reply = EnvReply(observation, False, False, info)
            else:
                observation, _, terminated, truncated, info = env.step(argument)
                reply = EnvReply(observation, terminated, truncated, info)
            _check_reply(self._name, reply)
            return self._writable(reply)

    def expect(self, observation: str) -> None:
        """Note what the next action returned when the episode was recorded."""
        self._env.expect(observation)

    def _writable(self, reply: EnvReply) -> EnvReply:
        info = {name: bounded(value) if isinstance(value, str) else value for name, value in reply.info.items()}
        if info["invalid_action"] is not None:
            info["invalid_action"] = self._texts.take(info["invalid_action"])
        observation = self._texts.take(reply.observation)
        return replace(reply, observation=replace_surrogates(observation), info=replace_surrogates(info))

    def close(self) -> None:
        """Free the environment. Where its `close` fails, what was played stays valid: that is a warning."""
        try:
            self._env.close()
        except Exception as error:
            where = exception_line(error, modules_of(self._env))
            _log.warning("environment %s failed while it was closed: %s", self._name, where)


def _check_reply(name: str, reply: EnvReply) -> None:
    def require(fits: bool, field: str, value: object, wanted: str) -> None:
        if not fits:
            raise EnvBugError(f"environment {name} returned {value!r:.80} as {field}, not {wanted}")

    info = reply.info
    score, raw = info["score"], info["raw_score"]
    require(isinstance(reply.observation, str), "observation", reply.observation, "a text")
    require(isinstance(info["goal"], str), "goal", info["goal"], "a text")
    require(isinstance(score, int | float) and 0 <= score <= 1, "score", score, "a number in [0, 1]")
    require(isinstance(raw, int | float) and math.isfinite(raw), "raw_score", raw, "a finite number")
    require(isinstance(reply.terminated, bool), "terminated", reply.terminated, "True or False")
    require(isinstance(info["success"], bool), "success", info["success"], "True or False")
    require(isinstance(info["invalid_action"], str | None), "invalid_action", info["invalid_action"], "a text or None")
    expert, admissible = info.get("expert_action"), info.get("admissible_actions", ())
    require(isinstance(expert, str | None), "expert_action", expert, "a text or None")
    texts = isinstance(admissible, list | tuple) and all(isinstance(action, str) for action in admissible)
    require(texts, "admissible_actions", admissible, "a list of texts")


def _message(error: BaseException) -> str:
    text = str(error) if isinstance(error, CotbenchError) else f"{type(error).__name__}: {error}"
    return str(replace_surrogates(bounded(text, ERROR_CHARS)))


class LocalEnv:
    """An environment in this process."""

    def __init__(self, settings: EnvSettings) -> None:
        self._engine = _Engine(settings.make(), settings.name)
        self._request = ("", "")

    def ask_reset(self, task: str) -> None:
        """Start a task."""
        self._request = ("reset", task)

    def ask_step(self, action: str) -> None:
        """Execute an action."""
        self._request = ("step", action)

    def expect(self, observation: str) -> None:
        """Note what the next action returned when the episode was recorded."""
        self._engine.expect(observation)

    def read(self) -> EnvReply:
        """Carry out the last request and return the reply."""
        try:
            return self._engine.handle(*self._request)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(_message(error)) from error

    def close(self) -> None:
        """Free the environment."""
        self._engine.close()


class _Worker:
    """A process with several environments, each with its own pipe and thread, so that a slow one does not delay the others."""

    def __init__(self, settings: EnvSettings, count: int) -> None:
        self._settings, self._count = settings, count
        self.process: ChildProcess | None = None
        self.closed: set[int] = set()

    def running(self) -> ChildProcess:
        """Return the process; start it where there is none or it has died.

        Raises:
            EngineError: it cannot be started.
        """
        if self.process is None or not self.process.alive:
            with block_interrupts():  # The process is stored before an interrupt can be handled.
                self.process = ChildProcess(_serve, (self._settings,), pipes=self._count, plugins=self._settings.plugins)
        return self.process

    def close(self, index: int) -> None:
        """Release an environment; end the process after the last one."""
        self.closed.add(index)
        if self.process is None:
            return
        self.process.pipes[index].close()
        if len(self.closed) == self._count:
            self.process.close(patience=10)


class WorkerEnv:
    """An environment in a worker process."""

    def __init__(self, worker: _Worker, index: int, name: str) -> None:
        self._worker, self._index, self._name = worker, index, name
        self._process: ChildProcess | None = None  # The process of the last request; the worker may have started another since.
        self._failure: EngineError | None = None
        self._patience = Patience(REPLY_SECONDS)
        self.pipe: Any = None

    def ask_reset(self, task: str) -> None:
        """Start a task; start the process where there is none."""
        try:
            self._process, self._failure = self._worker.running(), None
        except EngineError as error:
            self._process, self._failure, self.pipe = None, error, None
            return
        self.pipe = self._process.pipes[self._index]
        self._send("reset", task)

    def ask_step(self, action: str) -> None:
        """Execute an action."""
        self._send("step", action)

    def _send(self, command: str, argument: str) -> None:
        self._patience = Patience(REPLY_SECONDS)
        # Where the process has died or does not read, `read` raises the error.
        with suppress(OSError):
            self.pipe.send((command, argument))

    def overdue(self) -> bool:
        """Return whether the reply to the last request is so late that `read` gives the process up."""
        return self._patience.spent()

    def read(self) -> EnvReply:
        """Wait for the reply to the last request and return it."""
        if self._process is None:
            raise self._failure or EngineError(f"environment {self._name} was asked nothing")
        try:
            while not self.pipe.poll(_POLL_SECONDS):
                if self.overdue():
                    self._process.kill()
                    late = f"did not answer within {self._patience.seconds:g} s"
                    raise WorkerLostError(f"the process of environment {self._name} {late}")
            kind, payload = self.pipe.recv()
        except (EOFError, OSError) as error:
            ending = f"the process of environment {self._name} {self._process.ending()}"
            self._process.kill()  # One that stopped in the middle of its reply still runs.
            raise (EngineError if self._process.failed_by_itself else WorkerLostError)(ending) from error
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"environment {self._name} gave what cannot be read here: {_message(error)}") from error
        if kind == "bug":
            raise EnvBugError(*payload)
        if kind == "error":
            raise EngineError(payload)
        reply: EnvReply = payload
        return reply

    def close(self) -> None:
        """Free the environment."""
        self._worker.close(self._index)


def wait_for_replies(envs: Sequence[EnvHandle], timeout: float) -> list[EnvHandle]:
    """Return the environments of which `read` returns or fails at once, as soon as there is one or the timeout is over.

    Args:
        envs: environments with a pending request; those in this process always count as ready, and those whose reply is
            overdue.
        timeout: seconds.
    """
    pipes = {env.pipe: env for env in envs if isinstance(env, WorkerEnv) and env.pipe is not None}
    here = [env for env in envs if not isinstance(env, WorkerEnv) or env.pipe is None]
    answered = wait(list(pipes), 0.0 if here else timeout) if pipes else []
    late = [env for pipe, env in pipes.items() if pipe not in answered and env.overdue()]
    return [*here, *(pipes[pipe] for pipe in answered), *late]


def _serve(pipes: Sequence[Any], settings: EnvSettings) -> None:
    """Serve environments in a worker process until the parent closes the pipes or dies."""
    threads = [threading.Thread(target=_serve_one, args=(pipe, settings)) for pipe in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve_one(pipe: Any, settings: EnvSettings) -> None:
    """Run the request loop of one environment."""
    engine: _Engine | None = None
    try:
        while True:
            command, argument = pipe.recv()
            try:
                engine = engine or _Engine(settings.make(), settings.name)
                answer: tuple[str, Any] = ("reply", engine.handle(command, argument))
            except UnknownNameError as error:
                answer = ("error", f"{_message(error)}; {_NOT_IMPORTED}" if engine is None else _message(error))
            except EnvBugError as error:
                answer = ("bug", (str(error), error.traceback))
            except Exception as error:
                answer = ("error", _message(error))
            _send_answer(pipe, answer)
    except (EOFError, OSError):
        return
    finally:
        pipe.close()
        if engine is not None:
            engine.close()


_NOT_IMPORTED = (
    "a worker process knows what --import or load_plugins imports, not what a script registers itself: "
    "give the registration a file of its own, or use no worker processes"
)


def _send_answer(pipe: Any, answer: tuple[str, Any]) -> None:
    try:
        pipe.send(answer)
    except OSError:
        raise
    except Exception as error:  # Pickled completely before anything is sent.
        pipe.send(("bug", (f"what the environment gave cannot be sent to another process: {_message(error)}", None)))


def open_envs(settings: EnvSettings, count: int, processes: int) -> list[EnvHandle]:
    """Return new environments.

    Args:
        settings: the class and the arguments of each.
        count: how many environments.
        processes: worker processes over which they are spread; 0: they live in this process.
    """
    if processes == 0:
        return [LocalEnv(settings) for _ in range(count)]
    envs: list[EnvHandle] = []
    for number in range(processes):
        share = len(range(number, count, processes))
        worker = _Worker(settings, share)
        envs += [WorkerEnv(worker, index, settings.name) for index in range(share)]
    return envs
