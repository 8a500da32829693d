"""The model in training, served by vLLM on this machine. Invariant: before anything is asked, the server holds the weights as
they are now: they are written to a folder, and the server is told to load it; what it cached of other weights is dropped.

The first process starts the server and hands the weights over; every process asks it. An adapter is loaded as an adapter under
a new path each time, beside the base model that stays; of a whole model all weights are reloaded.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cotbench.agents.base import StreamingAgent
from cotbench.agents.hf.loading import adapter_folder
from cotbench.agents.openai.agent import OpenAIAgent
from cotbench.agents.vllm import VLLMServer, require_vllm
from cotbench.baselines.recipes.grpo.config import GRPOConfig
from cotbench.baselines.training.model import TrainableModel
from cotbench.baselines.training.processes import Processes
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.elicitation import Elicitation

FOLDER = "policy"
"""Folder in that of the training with the weights that are handed over; gone when it ends."""

_NAME, _BASE = "policy", "base"
"""The names that the server knows the weights in training and an adapter's base by."""

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks of adapters that vLLM can be started for."""

_START, _LOAD = 1800.0, 900.0
"""Seconds to wait until the server has started, and until it has taken weights in."""

_REQUESTS = 64
"""Requests of a process at once."""

_ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
"""What lets vLLM's server load weights while it runs; it listens on this machine alone."""


class ServedPolicy:
    """The model behind a server.

    Args:
        config: the options.
        trainable: the model.
        out: the folder of the training.
        write: writes the weights, or the adapter, into a folder; all processes call it together, and the first one writes.
        version: changes whenever the weights have.
        processes: that train together, on one machine.

    Raises:
        UsageError: the model cannot be served.
        AgentError: vLLM is not installed.
    """

    def __init__(
        self,
        config: GRPOConfig,
        trainable: TrainableModel,
        out: Path,
        write: Callable[[Path], None],
        version: Callable[[], int],
        processes: Processes,
    ) -> None:
        require_vllm()
        if config.lora_rank is not None and adapter_folder(config.model) is not None:
            raise UsageError(
                f"{config.model} is an adapter itself, and vLLM serves one adapter on a whole model: use --rollouts hf, or "
                "train all weights (omit --lora-rank)"
            )
        self._adapter = config.lora_rank
        if self._adapter is not None and self._adapter > _RANKS[-1]:
            raise UsageError(f"--lora-rank {self._adapter}: vLLM serves adapters up to rank {_RANKS[-1]}; or use --rollouts hf")
        self._base = str(getattr(trainable.model, "name_or_path", "") or config.model)
        self._config, self._tokenizer = config, trainable.tokenizer
        self._folder, self._write, self._version, self._processes = out.resolve() / FOLDER, write, version, processes
        self._held: tuple[int, Path] | None = None
        self._server: VLLMServer | None = None
        self._agent: OpenAIAgent | None = None
        self._asked: list[Elicitation] = []

    def require(self, elicitation: Elicitation) -> None:
        """Remember how the model will be asked; it is tried as soon as the server answers."""
        self._asked.append(elicitation)

    def refresh(self) -> None:
        """Hand the weights over where they have changed; start the server where it does not run yet.

        Raises:
            AgentError: the server does not start, or does not take the weights.
        """
        version = self._version()
        if self._held is not None and self._held[0] == version:
            return
        weights = self._folder / f"step-{version}"
        self._processes.of_first(self._prepare)
        self._write(weights)
        url = self._processes.of_first(lambda: self._hand_over(weights))
        before, self._held = self._held, (version, weights)
        if self._agent is None:
            self._agent = self._open(url)
        if before is not None and self._processes.rank == 0:
            shutil.rmtree(before[1], ignore_errors=True)

    @contextmanager
    def answering(self) -> Iterator[StreamingAgent]:
        """Yield the agent that asks the server."""
        if self._agent is None:
            raise RuntimeError("no weights were handed over yet")
        yield self._agent

    def close(self) -> None:
        """End the server, and remove the weights that were written for it."""
        if self._agent is not None:
            self._agent.close()
        if self._server is not None:
            self._server.end()
        if self._processes.rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._agent = self._server = self._held = None

    def _prepare(self) -> None:
        """Make the folder, with the tokenizer, before the first weights are written; what a killed training left goes."""
        if self._held is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._tokenizer.save_pretrained(self._folder / "tokenizer")

    def _hand_over(self, weights: Path) -> str:
        """Let the server load a folder, and return its address."""
        if self._server is None:
            if self._adapter is None:
                self._tokenizer.save_pretrained(weights)
            self._server = self._start(weights)
            self._server.wait(_START)
            if self._adapter is None:
                return self._server.url
        server = self._server
        try:
            if self._adapter is None:
                _check(server.post("/collective_rpc", _LOAD, method="reload_weights", kwargs={"weights_path": str(weights)}))
            else:
                server.post("/v1/unload_lora_adapter", _LOAD, lora_name=_NAME)  # At the first time there is none.
                _check(server.post("/v1/load_lora_adapter", _LOAD, lora_name=_NAME, lora_path=str(weights)))
            _check(server.post("/reset_prefix_cache", _LOAD))  # Its keys and values are of other weights.
        except AgentError as error:
            raise AgentError(
                f"vLLM does not take the weights of the training: {error}; its last output: {server.tail()}"
            ) from None
        return server.url

    def _start(self, weights: Path) -> VLLMServer:
        config = self._config
        if self._adapter is None:
            model, arguments = str(weights), [f"--served-model-name={_NAME}"]
        else:
            rank = next(rank for rank in _RANKS if rank >= self._adapter)
            model = self._base
            arguments = [f"--served-model-name={_BASE}", "--enable-lora", "--max-loras=1", f"--max-lora-rank={rank}"]
        gpus = {} if config.vllm_gpus is None else {"CUDA_VISIBLE_DEVICES": config.vllm_gpus}
        return VLLMServer(model, None, [*arguments, *shlex.split(config.vllm_args)], {**_ENVIRONMENT, **gpus})

    def _open(self, url: str) -> OpenAIAgent:
        agent = OpenAIAgent(
            f"{_NAME}@{url}",
            tokenizer=str(self._folder / "tokenizer"),
            way="completions",
            concurrency=_REQUESTS,
            key_env="",
        )
        for elicitation in self._asked:
            agent.require(elicitation)
        return agent


def _check(answer: tuple[int, Any]) -> None:
    """Raise an error where a request was refused.

    Raises:
        AgentError: it was.
    """
    status, body = answer
    if status != 200:
        message = body
        with suppress(KeyError, TypeError, IndexError):
            message = body["error"]["message"]
        raise AgentError(f"status {status}, {str(message)[:200]}")
