"""The `vllm:` agent: vLLM's server, or its engine without one, started for one model on this machine, and ended with the agent.
Invariant: its answers are those of the `openai:` agent with that server; no process is left behind by `close`, by an exception
or at Python's exit.

Prompts are sent as token ids, so they are those of the `hf:` agent. A Python that is killed with SIGKILL cannot end the server:
it has to be ended by hand then.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from cotbench.agents.hf.loading import ALIASES
from cotbench.agents.hf.model_files import list_files, require_safetensors, snapshot_folder
from cotbench.agents.openai.agent import OpenAIAgent
from cotbench.agents.openai.capabilities import Way
from cotbench.agents.vllm_client import EngineClient
from cotbench.agents.vllm_engine import KEYS
from cotbench.child_process import ending_with_parent, started_in_lasting_thread
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query

HOST = "127.0.0.1"

TERMINATE_WAIT = 20.0
"""Seconds to wait for the server to end after a signal."""

_POLL = 0.2
_TAIL, _TAIL_BYTES = 15, 16_384
_FIXED_ARGUMENTS = (
    "--enable-prefix-caching",
    "--enable-prompt-tokens-details",
    "--generation-config=vllm",
    "--uvicorn-log-level=warning",
)
"""Prefix caching, reported in the usage; no penalties from the model's generation_config.json; no log line for each request."""

_ENGINE_ARGUMENTS = ("--enable-prefix-caching", "--generation-config=vllm", "--disable-log-stats")
"""The same for the engine alone."""


_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT")
_LAUNCHER = "TORCHELASTIC_"
"""Variables that say which of several processes this one is: not the server's."""


class VLLMAgent:
    """A model served by vLLM on this machine.

    Args:
        model: hub name, alias, or local folder.
        embedded: ask vLLM's engine itself, in a process of this Python, and not its server. The answers are the same; `port`,
            `way`, `retries` and native tools are the server's alone.
        port: the server's port on this machine; default: a free one.
        gpu_memory_utilization: the part of the GPU's memory that vLLM takes, from 0 to 1.
        max_model_len: the longest prompt and answer together, in tokens.
        args: further arguments of `vllm serve`; with embedded those of them that are the engine's.
        start: seconds to wait until the model is loaded.
        tokenizer: see `OpenAIAgent`, also for the options that follow.
        way: default: "completions"; with tools=native "auto".
        tools: "native" needs `--enable-auto-tool-choice` and a `--tool-call-parser` in `args`.
    """

    uses_elicitation = True
    scores_actions = True

    def __init__(
        self,
        model: str,
        *,
        embedded: bool = False,
        port: int | None = None,
        gpu_memory_utilization: float | None = None,
        max_model_len: int | None = None,
        args: str = "",
        start: float = 1800.0,
        tokenizer: str | None = None,
        way: Way | None = None,
        concurrency: int = 64,
        timeout: float = 600.0,
        retries: int = 5,
        tools: Literal["text", "native"] = "text",
    ) -> None:
        served = ALIASES.get(model, model)
        options = {"--gpu-memory-utilization": gpu_memory_utilization, "--max-model-len": max_model_len}
        try:
            more = [*(f"{name}={value}" for name, value in options.items() if value is not None), *shlex.split(args)]
        except ValueError as error:
            raise UsageError(f"vllm:{model}: args={args}: {error}") from error
        if any(argument.startswith("--api-key") for argument in more):
            raise UsageError("the server of a vllm: agent listens only on this machine and takes no key: omit --api-key")
        self.name = f"vllm:{model}"
        if (folder := Path(served).expanduser()).is_dir():
            require_safetensors(folder)
            served = str(folder) if embedded else served
        if embedded and (port is not None or way not in (None, "completions") or tools == "native"):
            raise UsageError(f"vllm:{model}: embedded=true has no server: omit port, way and tools=native, or omit embedded")
        if embedded and (concurrency < 1 or not timeout > 0):
            raise UsageError("a vllm: agent needs concurrency of 1 or more, and a timeout above 0")
        arguments = [*(_ENGINE_ARGUMENTS if embedded else _FIXED_ARGUMENTS), *more]
        self._server: EngineClient | VLLMServer
        if embedded:
            self._server = EngineClient(served, arguments, timeout=timeout)
        else:
            self._server = VLLMServer(served, port, more)
        try:
            version = self._server.wait(start)
            content = _content(served)  # It may have been fetched just now.
            if isinstance(self._server, EngineClient):
                self._agent = OpenAIAgent.from_client(self._server, served, tokenizer=tokenizer, concurrency=concurrency)
            else:
                self._agent = OpenAIAgent(
                    f"{served}@{self._server.url}",
                    tokenizer=tokenizer,
                    way=way or ("auto" if tools == "native" else "completions"),
                    concurrency=concurrency,
                    timeout=timeout,
                    retries=retries,
                    tools=tools,
                    key_env="",
                )
        except BaseException:
            self._server.end()
            raise
        self.needs = self._agent.needs
        self.batch = self._agent.batch
        # The port is left out: a run may go on with another one.
        description = {name: value for name, value in self._agent.describe().items() if name != "url"}
        self._description = {
            **description,
            **content,
            "vllm": version,
            "arguments": arguments,
            **({"embedded": True} if embedded else {}),
        }

    def describe(self) -> dict[str, Any]:
        """Return model, version and arguments of the server, and how it is asked."""
        return dict(self._description)

    def require(self, elicitation: Elicitation) -> None:
        """Raise an error where the server cannot be asked this way; see `OpenAIAgent`."""
        self._agent.require(elicitation)

    def submit(self, key: Hashable, query: Query) -> None:
        """Take a query; `collect` returns its decision, with the key."""
        self._agent.submit(key, query)

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        """Return the decisions completed since the last call; waits at most `wait` seconds for one."""
        return self._agent.collect(wait)

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return a decision for each query, in order."""
        return self._agent.decide(queries)

    def close(self) -> None:
        """End the server, or the engine."""
        self._agent.close()
        self._server.end()


def _content(model: str) -> dict[str, str | None]:
    """Return the digests of a model's files on this machine; nothing where they are not found."""
    folder: Path | None = Path(model).expanduser()
    if folder is not None and not folder.is_dir():
        folder = snapshot_folder(model) if find_spec("huggingface_hub") is not None else None
    if folder is None:
        return {}
    files = list_files(folder)
    return {"weights_sha256": files.weights_sha256, "settings_sha256": files.settings_sha256}


def require_vllm() -> None:
    """Raise an error where vLLM is not installed.

    Raises:
        AgentError: it is not.
    """
    _command()


def _command() -> list[str]:
    """Return the command that starts vLLM.

    Raises:
        AgentError: it is not installed.
    """
    found = shutil.which("vllm")
    if found is not None:
        return [found]
    if find_spec("vllm") is not None:
        return [sys.executable, "-m", "vllm.entrypoints.cli.main"]
    raise AgentError("a vllm: agent needs vLLM on this machine: pip install vllm; for a server elsewhere use openai:MODEL@URL")


class VLLMServer:
    """One server process on this machine, in a process group of its own, so that its workers end with it.

    Args:
        model: hub name or local folder.
        port: that it listens on; None for a free one.
        arguments: further ones of `vllm serve`.
        environment: variables that it gets beside those of this process.

    Attributes:
        port: that it listens on.
        arguments: all of them.

    Raises:
        AgentError: vLLM is not installed, or the port is taken.
    """

    def __init__(
        self, model: str, port: int | None, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        command = _command()
        self.arguments = (*_FIXED_ARGUMENTS, *arguments)
        self._reservation = _reserve_port(port)
        self.port = int(self._reservation.getsockname()[1])
        if sys.platform != "linux":
            self._reservation.close()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # As long as the process.
        # The server listens on this machine alone: it needs no key, and gets none of ours.
        own = {name: value for name, value in os.environ.items() if name not in (*KEYS, *_LAUNCHED)}
        own = {name: value for name, value in own.items() if not name.startswith(_LAUNCHER)}
        own |= environment or {}
        words = [*command, "serve", model, "--host", HOST, "--port", str(self.port), *self.arguments]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                ending_with_parent(words, signal.SIGTERM),  # It ends its own workers then.
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=own,
                start_new_session=True,
            )

        self._process = started_in_lasting_thread(start)
        atexit.register(self.end)

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{HOST}:{self.port}"

    def post(self, path: str, seconds: float, **body: Any) -> tuple[int, Any]:
        """Send a request to one of the server's own endpoints, and return status and answer, JSON or text.

        Args:
            path: the endpoint.
            seconds: to wait for the answer.
            body: its fields.

        Raises:
            AgentError: the server does not answer.
        """
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        try:
            request = Request(f"{self.url}{path}", data, headers)  # noqa: S310  # Of this machine.
            with _opener().open(request, timeout=seconds) as answer:
                status, content = answer.status, answer.read()
        except HTTPError as error:
            status, content = error.code, error.read()
        except OSError as error:
            raise AgentError(f"{path} was not answered ({error})") from error
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode("utf-8", "replace")

    def wait(self, seconds: float) -> str | None:
        """Wait until the model is loaded; returns the server's version, None where it reports none.

        Raises:
            AgentError: the process ended, or it takes too long.
        """
        opener = _opener()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise AgentError(
                    f"vLLM ended with code {self._process.returncode} before it answered; its last output: {self.tail()}"
                )
            with suppress(URLError, OSError), opener.open(f"{self.url}/health", timeout=5):
                return _version(opener, self.port)
            time.sleep(_POLL)
        raise AgentError(f"vLLM did not load the model within {seconds:g} s (?start=SECONDS); its last output: {self.tail()}")

    def end(self) -> None:
        """End the server and its workers: with SIGTERM, then with SIGKILL."""
        if self._output.closed:
            return
        atexit.unregister(self.end)
        for sent, wait in ((signal.SIGTERM, TERMINATE_WAIT), (signal.SIGKILL, TERMINATE_WAIT)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, sent)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(wait)
        self._reservation.close()
        self._output.close()

    def tail(self) -> str:
        """Return the last lines of the server's output."""
        file = self._output.fileno()
        # Not read(): the server writes at the same position of the same file.
        lines = (
            os.pread(file, _TAIL_BYTES, max(0, os.fstat(file).st_size - _TAIL_BYTES)).decode("utf-8", "replace").splitlines()
        )
        return " | ".join(line.strip() for line in lines[-_TAIL:] if line.strip()) or "none"


def _opener() -> Any:
    return build_opener(ProxyHandler({}))  # The server is on this machine.


def _version(opener: Any, port: int) -> str | None:
    try:
        with opener.open(f"http://{HOST}:{port}/version", timeout=5) as answer:
            version = json.loads(answer.read()).get("version")
    except (OSError, ValueError, AttributeError):
        return None
    return version if isinstance(version, str) else None


def _reserve_port(wanted: int | None) -> socket.socket:
    """Return a socket that is bound to a port, and does not listen.

    On Linux the server can listen on that port all the same, and until then no other program is given it: whose server
    would be taken for ours.

    Args:
        wanted: the port; None for a free one.

    Raises:
        AgentError: the wanted one is taken.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reservation.bind((HOST, wanted or 0))
    except OSError as error:
        reservation.close()
        raise AgentError(f"port {wanted} is taken ({error.strerror}): omit ?port= for a free one") from error
    return reservation
