"""The `hf:` agent: a model of transformers, its chat template, and an engine that answers. Invariant: a decision depends on its
query and the weights alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from cotbench.agents.hf import loading
from cotbench.agents.hf.attention import ATTENTION
from cotbench.agents.hf.attention_probe import cache_policy, try_install_attention
from cotbench.agents.hf.batched_forward import open_pool
from cotbench.agents.hf.bundled import SMALL
from cotbench.agents.hf.engine import Engine
from cotbench.agents.hf.engine_limits import EngineLimits
from cotbench.agents.hf.lanes import Key
from cotbench.agents.hf.pretrained import require_transformers
from cotbench.agents.hf.sequential_engine import SequentialEngine
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.generation import TAG_ALLOWANCE
from cotbench.prompting.query import Decision, Query

_log = logging.getLogger(__name__)

_GB = 10**9
_CPU_MEMORY_SHARE, _GPU_MEMORY_SHARE = 0.25, 0.8
_CPU_BATCH, _GPU_BATCH = 8, 64
_GPU_PREFILL_CHUNK, _GPU_TOKENS_PER_FORWARD = 4096, 8192

_COMPILE_AFTER = 1000
"""Decoding steps after which a model's layers are compiled: ten seconds of work, about what compiling takes."""

_ROUNDED_DTYPES = ("torch.bfloat16", "torch.float16")
"""Number formats in which compiled layers may round otherwise than the model's own: float32 answers stay the plain loop's."""

_OWN_ATTENTION = ("auto", "batched", "rows")
"""Values of `attn` that name our attention; any other is an `attn_implementation` of transformers."""


@dataclass(frozen=True, slots=True)
class ModelHandle:
    """Hold an agent's model while it is exposed.

    Attributes:
        model: a causal model of transformers, with the attention that it came with.
        chat: its tokenizer and template.
        context: the longest prompt and answer together, in tokens.
    """

    model: Any
    chat: Chat
    context: int


class HFAgent:
    """A causal language model of transformers.

    Args:
        model: hub name, alias (see `loading.ALIASES`), local folder, `smollm2`, `tiny` or `tiny-cot`.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "float16".
        attn: "auto" (our own, where the model's layers allow it: "batched" on a GPU, "rows" on a CPU), "batched" (one call for
            all sequences), "rows" (each sequence by itself, with the same bits in any company), or an `attn_implementation` of
            transformers, which answers one query after the other.
        revision: branch, tag or commit on the hub.
        adapter: a LoRA adapter: folder or hub name.
        quantize: "4bit" or "8bit", with bitsandbytes.
        context: the longest prompt and answer together, in tokens; default: what the model's configuration says.
        threads: torch's threads; default: torch's own choice, but one for `tiny` and `tiny-cot`, until the agent is closed.
        cache_gb: gigabytes for KV caches; default: a quarter of the free memory, or 80 % of a GPU's (of a live model anew with
            each `clear_cache`). What does not fit is computed again when it is needed.
        drafts: whether to draft tokens by prompt lookup, to get several out of one forward pass; the answers are the same.
            Default: on a CPU.
    """

    uses_elicitation = True
    scores_actions = True

    _former_threads: int | None = None
    """Torch's threads before this agent chose one; None where it did not."""

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn: str = "auto",
        revision: str | None = None,
        adapter: str | None = None,
        quantize: str | None = None,
        context: int | None = None,
        threads: int | None = None,
        cache_gb: float | None = None,
        drafts: bool | None = None,
    ) -> None:
        require_transformers()
        _check_options(context, cache_gb)
        import torch

        if threads is not None:
            torch.set_num_threads(max(1, threads))
        elif model in SMALL and torch.get_num_threads() > 1:
            self._former_threads = torch.get_num_threads()
            torch.set_num_threads(1)
        loaded = loading.load(
            model,
            device=device,
            dtype=dtype,
            attn=None if attn in _OWN_ATTENTION else attn,
            revision=revision,
            adapter=adapter,
            quantize=quantize,
        )
        self._open(loaded, f"hf:{model}", attn, context, cache_gb, drafts, live=False)

    @classmethod
    def from_model(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "hf:live",
        attn: str = "auto",
        context: int | None = None,
        cache_gb: float | None = None,
        drafts: bool | None = None,
    ) -> Self:
        """Make an agent of a model that is already in memory, such as one that is being trained.

        Its weights may change in place between decisions; call `clear_cache` then, for the KV caches are of the old ones. While
        queries are answered the model has the engine's attention and is in evaluation mode; as soon as none is left it has its
        own attention and modes again, and can be trained.

        Args:
            model: a causal model of transformers, on its device.
            tokenizer: its tokenizer, with the chat template.
            name: the agent's name.
            attn: "auto", "batched", "rows", or anything else to keep the model's own attention, which answers one query after
                the other.
            context, cache_gb, drafts: as for `HFAgent`.

        Raises:
            UsageError: an option does not fit.
        """
        _check_options(context, cache_gb)
        agent = cls.__new__(cls)
        loaded = loading.LoadedModel(model, tokenizer, loading.describe_live(model, tokenizer, name))
        agent._open(loaded, name, attn, context, cache_gb, drafts, live=True)
        return agent

    def _open(
        self,
        loaded: loading.LoadedModel,
        name: str,
        attn: str,
        context: int | None,
        cache_gb: float | None,
        drafts: bool | None,
        *,
        live: bool,
    ) -> None:
        """Choose an engine for a model; `live` where others use the model between decisions."""
        model = self._model = loaded.model
        self.name = name
        self.needs: frozenset[str] = frozenset()
        self._chat = Chat(loaded.tokenizer)
        self._end_ids = _end_ids(model, self._chat)
        limits = [context, getattr(model.config.get_text_config(), "max_position_embeddings", None)]
        self._context = min((limit for limit in limits if limit is not None), default=2**31)
        self._own_attention = model.config._attn_implementation
        self._live, self._given_cache = live, cache_gb is not None
        self._training: list[Any] | None = None
        training = _set_eval(model)
        own = attn in _OWN_ATTENTION
        reason = (_dependence(model) or try_install_attention(model, self._context)) if own else f"attn={attn}"
        batched = reason is None
        if own and reason is not None:
            _log.warning("%s is answered one query after the other: %s", name, reason)
        self._engine: Engine | SequentialEngine
        if batched:
            self._engine = self._batching_engine(attn, cache_gb, drafts)
        else:
            policy = cache_policy(model, self._context)
            self._engine = SequentialEngine(model, self._chat, self._end_ids, self._context, policy)
        self.batch = (_GPU_BATCH if model.device.type == "cuda" else _CPU_BATCH) if batched else 1
        self._answering_attention = ATTENTION if batched else self._own_attention
        self._description = {
            **loaded.description,
            "context": self._context,
            "attention": "cotbench" if batched else str(model.config._attn_implementation),
            **({"attention_reason": reason} if own and not batched else {}),
            **(self._engine.describe() if isinstance(self._engine, Engine) else {}),
        }
        if live:
            self._training = training
            self._release_model()

    def _batching_engine(self, attn: str, cache_gb: float | None, drafts: bool | None) -> Engine:
        """Return the engine for a model that has our attention."""
        model, gpu = self._model, self._model.device.type == "cuda"
        limits = EngineLimits(_cache_bytes(model, cache_gb), speculative=not gpu if drafts is None else drafts)
        if gpu:
            rounded = str(model.dtype) in _ROUNDED_DTYPES and not self._live
            limits = replace(
                limits,
                prefill_chunk=_GPU_PREFILL_CHUNK,
                max_tokens_per_forward=_GPU_TOKENS_PER_FORWARD,
                compile_after=_COMPILE_AFTER if rounded else None,
            )
        pool = None
        if (devices := _device_count(model)) > 1:
            _log.warning("attention is computed sequence by sequence: the model lies on %d devices", devices)
        elif attn == "batched" or (attn == "auto" and gpu):
            pool = open_pool(model, limits.cache_bytes)
        return Engine(model, self._chat, self._end_ids, self._context, limits, pool)

    def require(self, elicitation: Elicitation) -> None:
        """Raise an error for tags that the tokenizer cannot write.

        Raises:
            AgentError: it reads them as something else.
        """
        self._chat.with_tags(elicitation.tags)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest records: model, revision, weights, dtype, device."""
        return dict(self._description)

    @contextmanager
    def expose_model(self) -> Iterator[ModelHandle]:
        """Lend the model to a caller who looks into it or asks it by other ways; answer no query meanwhile.

        Afterwards it has the attention again that it answers with, whatever was set in between.
        """
        attention = self._model.config._attn_implementation
        self._model.set_attn_implementation(self._own_attention)
        try:
            yield ModelHandle(self._model, self._chat, self._context)
        finally:
            self._model.set_attn_implementation(attention)

    def clear_cache(self) -> None:
        """Drop the KV caches: what comes next is as if the agent had just been made, with the weights as they are now.

        For a live model without `cache_gb` the memory for KV caches is chosen anew: a training has taken some meanwhile.
        """
        self._engine.close()
        self._release_model()
        if self._live and not self._given_cache and isinstance(self._engine, Engine):
            self._engine.limit_caches(_cache_bytes(self._model, None))

    def close(self) -> None:
        """Drop the KV caches and the model; torch has its own choice of threads again where the agent had made another."""
        if self._model is not None:
            self._engine.release()
            self._release_model()
        self._model = None
        if self._former_threads is not None:
            import torch

            torch.set_num_threads(self._former_threads)
            self._former_threads = None

    def submit(self, key: Key, query: Query) -> None:
        """Take a query in; `collect` returns its decision, under the key."""
        self._engine.submit(key, query)

    def collect(self, wait: float) -> list[tuple[Key, Decision]]:
        """Compute one forward pass; return the decisions that are now complete. `wait` means nothing: it never waits."""
        self._take_model()
        decisions = self._engine.step()
        if self._engine.idle:
            self._release_model()
        return decisions

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return one decision a query, in order; what fails is an error of that query alone."""
        decisions: dict[Key, Decision] = {}
        try:
            for index, query in enumerate(queries):
                self.submit(index, query)
            while len(decisions) < len(queries):
                decisions.update(self.collect(0.0))
        except BaseException:
            self.clear_cache()  # Nothing of these queries may be left for the next ones.
            raise
        return [decisions[index] for index in range(len(queries))]

    def _take_model(self) -> None:
        """Put a live model into evaluation mode and give it the engine's attention."""
        if self._live and self._training is None:
            self._training = _set_eval(self._model)
            if self._answering_attention != self._own_attention:
                self._model.set_attn_implementation(self._answering_attention)

    def _release_model(self) -> None:
        """Give a live model its own attention and modes back."""
        if self._live and self._training is not None:
            if self._answering_attention != self._own_attention:
                self._model.set_attn_implementation(self._own_attention)
            for module in self._training:
                module.training = True
            self._training = None


def _dependence(model: Any) -> str | None:
    """Return why an answer of a model would depend on what is computed beside it; None where it does not."""
    # LLM.int8 sets the columns apart that have an outlier in any row.
    return "8-bit products depend on what is computed beside them" if getattr(model, "is_loaded_in_8bit", False) else None


def _device_count(model: Any) -> int:
    """Return on how many devices the weights of a model lie."""
    return len({parameter.device for parameter in model.parameters()})


def _check_options(context: int | None, cache_gb: float | None) -> None:
    if cache_gb is not None and not cache_gb > 0:
        raise UsageError(f"cache_gb={cache_gb}: give a number of gigabytes above 0")
    if context is not None and context < 2 * TAG_ALLOWANCE:
        raise UsageError(f"context={context} leaves no room for an answer")


def _set_eval(model: Any) -> list[Any]:
    """Put a model into evaluation mode; return the modules that were in training mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    return training


def _cache_bytes(model: Any, cache_gb: float | None) -> int:
    """Return how many bytes the KV caches may take."""
    if cache_gb is not None:
        return int(cache_gb * _GB)
    if model.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()  # What torch keeps for later is not free for others.
        return int(torch.cuda.mem_get_info(model.device)[0] * _GPU_MEMORY_SHARE)
    return int(_free_memory() * _CPU_MEMORY_SHARE)


def _free_memory() -> int:
    """Return the bytes of free memory; half of all memory where the system does not tell what is free, as macOS.

    Raises:
        AgentError: the system tells neither.
    """
    import os
    from pathlib import Path

    with suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    raise AgentError("cannot determine the memory of this system: give ?cache_gb=4")


def _end_ids(model: Any, chat: Chat) -> frozenset[int]:
    """Return the token ids that end the assistant's turn: the template's, the tokenizer's, and the model's own."""
    ends = model.generation_config.eos_token_id
    return chat.end_ids.union(ends if isinstance(ends, list) else [] if ends is None else [ends])
