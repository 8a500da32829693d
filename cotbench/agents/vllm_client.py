"""vLLM's engine, asked without a server. Invariant: it takes the requests of `Connection` and returns its replies, so the agent
is the same; where the engine dies, what it was asked is an error, as is whatever it is asked later.

The engine runs in a process of its own: it computes while environments step here, its memory is free again when it is closed,
and it ends with this process, also when that is killed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from cotbench.agents.openai.client import Path
from cotbench.agents.openai.connection import ServerError
from cotbench.agents.openai.reply import CompletionReply, ReplyError, read_reply
from cotbench.agents.vllm_engine import serve_engine
from cotbench.child_process import ChildProcess
from cotbench.errors import AgentError, CotbenchError

END_SECONDS = 20.0
"""Seconds that the engine has to end by itself before it is killed."""

_EXCERPT_CHARS = 600


class EngineClient:
    """One engine of vLLM with one model.

    Args:
        model: folder, or name on the hub.
        arguments: of the engine, as for `vllm serve`.
        timeout: seconds to wait for an answer.

    Raises:
        AgentError: vLLM is not installed.
    """

    def __init__(self, model: str, arguments: Sequence[str], *, timeout: float) -> None:
        if find_spec("vllm") is None:
            raise AgentError(
                "a vllm: agent with embedded=true needs vLLM in this Python: pip install vllm; or omit embedded, where the "
                "command vllm is installed"
            )
        self.url = "vLLM's engine"
        self._model, self._arguments, self._timeout = model, tuple(arguments), timeout
        self._facts: dict[str, Any] = {}
        self._loaded: Future[dict[str, Any]] = Future()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[tuple[int, Any]]] = {}
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._ended = ""  # Why nothing can be asked any more.
        self._process: ChildProcess | None = None
        # It starts the process, and so has to stay as long as that.
        self._thread = threading.Thread(target=self._serve, daemon=True, name="vLLM's engine")
        self._thread.start()

    def wait(self, seconds: float) -> str:
        """Wait until the model is loaded; returns vLLM's version.

        Raises:
            AgentError: it cannot be loaded, or that takes too long.
        """
        try:
            self._facts = self._loaded.result(seconds)
        except TimeoutError:
            raise AgentError(f"vLLM did not load the model within {seconds:g} s (?start=SECONDS)") from None
        return str(self._facts["vllm"])

    def ask(self, path: Path, body: Mapping[str, Any], *, final: Collection[int] = ()) -> CompletionReply:
        """Return the answer to a request for a completion; many threads may wait for theirs at once.

        Args:
            path: must be "completions".
            body: its fields; `prompt` is a list of token ids.
            final: means nothing: a request is made once.

        Raises:
            ServerError: the engine refused it, or ended before it answered, or took too long.
        """
        if path != "completions":
            raise ServerError(f"{self.url} takes prompts, no messages", 404)
        number = next(self._numbers)
        answer: Future[tuple[int, Any]] = Future()
        with self._lock:
            if self._ended:
                raise ServerError(self._ended)
            self._asked[number] = answer
        self._send((number, dict(body)))
        try:
            status, content = answer.result(self._timeout)
        except TimeoutError:
            with self._lock:
                self._asked.pop(number, None)
            self._send((number, None))
            raise ServerError(f"{self.url} did not answer within {self._timeout:g} s (?timeout=SECONDS)") from None
        if status != 200:
            raise ServerError(f"{self.url} refused a request: {_excerpt(content)}", status)
        try:
            return read_reply(content)
        except ReplyError as error:
            raise ServerError(f"{self.url} {_excerpt(str(error))}") from None

    def models(self) -> list[dict[str, Any]]:
        """Return the one model as vLLM's server lists it."""
        return [{"id": self._model, "owned_by": "vllm", "max_model_len": self._facts["max_model_len"]}]

    def look_up(self, url: str) -> None:
        """Return None: there is nothing else to look up."""

    def redact(self, text: str) -> str:
        """Return the text: there is no key."""
        return text

    def close(self) -> None:
        """Take no further request."""
        self._end(f"{self.url}: the agent was closed before there was an answer")

    def end(self) -> None:
        """End the engine's process: it is asked to end, then killed. Safe to call twice."""
        self.close()
        process = self._process
        if self._facts:
            self._send(None)
            self._thread.join(END_SECONDS)
        if process is not None and self._thread.is_alive():
            process.kill()
        self._thread.join(END_SECONDS)

    def _serve(self) -> None:
        """Start the process, and pass its answers to those who wait for them, until it ends."""
        try:
            self._process = process = ChildProcess(serve_engine, (self._model, self._arguments), plugins=(), forwarded=False)
        except CotbenchError as error:
            self._loaded.set_exception(AgentError(f"vLLM cannot be started: {error}"))
            return
        if self._ended:  # While it was started.
            process.kill()
        (pipe,) = process.pipes
        try:
            reason = ""
            with suppress(EOFError, OSError):
                while not reason and pipe.poll(None):
                    reason = self._take(pipe.recv())
            if not self._loaded.done():
                reason = reason or f"vLLM's process {process.ending()} before the model was loaded"
                self._loaded.set_exception(AgentError(f"{reason}; the last line of its output: {process.last_line or 'none'}"))
            self._end(reason or f"{self.url} is gone: its process {process.ending()}")
        finally:
            process.close(END_SECONDS)

    def _take(self, message: Any) -> str:
        """Handle a message of the process; return why the engine is of no further use, empty where it is."""
        if message[0] == "ready":
            self._loaded.set_result(message[1])
        elif message[0] == "failed":
            return f"vLLM cannot load the model: {_excerpt(message[1])}"
        elif message[0] is None:
            return f"{self.url} died: {_excerpt(message[2])}"
        else:
            number, status, content = message
            with self._lock:
                answer = self._asked.pop(number, None)
            if answer is not None:
                answer.set_result((status, content))
        return ""

    def _end(self, reason: str) -> None:
        """Make whatever is asked, now and later, fail for a reason."""
        with self._lock:
            self._ended = self._ended or reason
            left, self._asked = self._asked, {}
        for answer in left.values():
            answer.set_exception(ServerError(reason))

    def _send(self, message: object) -> None:
        process = self._process
        with self._sending, suppress(OSError, ValueError):  # Where the process has ended, those who wait are told so.
            if process is not None:
                process.pipes[0].send(message)


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:_EXCERPT_CHARS]
