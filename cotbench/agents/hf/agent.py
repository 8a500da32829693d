"""The `hf:` agent: a model, its chat, and an engine that answers. Invariant: a decision depends on its query alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf import loading
from cotbench.agents.hf.attention import KVCache, TokenSpan, forward, install_attention
from cotbench.agents.hf.engine import Engine, EngineLimits, Key
from cotbench.agents.hf.sequential_engine import SequentialEngine, can_reuse_cache, logits_agree
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.prompt_ids import prompt_ids
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.generation import TAG_ALLOWANCE
from cotbench.prompting.query import Decision, Query

_log = logging.getLogger(__name__)

_GB = 10**9
_CPU_SHARE, _GPU_SHARE = 0.25, 0.8
_CPU_BATCH, _GPU_BATCH = 8, 32
_PROBE = 12


@dataclass(frozen=True, slots=True)
class ModelHandle:
    """An agent's model, opened.

    Attributes:
        model: of transformers, with the attention that it came with.
        chat: its tokenizer and template.
        context: the longest prompt and answer together, in tokens.
    """

    model: Any
    chat: Chat
    context: int


class HFAgent:
    """A causal language model of transformers.

    Args:
        model: hub name, alias (see `models.ALIASES`), local folder, or `smollm2`.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "float16".
        attn: "auto" (our own, which batches, where the model's layers allow it), or an `attn_implementation` of transformers,
            which answers one query after the other.
        revision: branch, tag or commit on the hub.
        adapter: a LoRA adapter: folder or hub name.
        quantize: "4bit" or "8bit", with bitsandbytes.
        context: the longest prompt and answer together, in tokens; default: what the model's configuration says.
        threads: torch's threads; default: torch's own choice.
        cache_gb: memory for keys and values; default: a quarter of the free memory, or 80 % of a GPU's. What does not fit is
            computed again when it is needed.
        drafts: whether what may come next is guessed, to get several tokens out of one pass; the answers are the same.
    """

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
        drafts: bool = True,
    ) -> None:
        loading.require_transformers()
        if threads is not None:
            import torch

            torch.set_num_threads(max(1, threads))
        if cache_gb is not None and not cache_gb > 0:
            raise UsageError(f"cache_gb={cache_gb}: give a number of gigabytes above 0")
        if context is not None and context < 2 * TAG_ALLOWANCE:
            raise UsageError(f"context={context} leaves no room for an answer")
        loaded = loading.load(
            model,
            device=device,
            dtype=dtype,
            attn=None if attn == "auto" else attn,
            revision=revision,
            adapter=adapter,
            quantize=quantize,
        )
        self.name = f"hf:{model}"
        self.needs: frozenset[str] = frozenset()
        self._model = loaded.model
        self._chat = Chat(loaded.tokenizer)
        self._end_ids = _end_ids(loaded.model, loaded.tokenizer)
        limits = [context, getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)]
        self._context = min((limit for limit in limits if limit is not None), default=2**31)
        self._own_attention = loaded.model.config._attn_implementation
        probe = _probe_logits(loaded.model)
        against = _try_install_attention(loaded.model, *probe) if attn == "auto" else f"attn={attn}"
        batched = against is None
        if attn == "auto" and against is not None:
            _log.warning("%s is answered one query after the other: %s", self.name, against)
        self._engine: Engine | SequentialEngine
        if batched:
            bounds = EngineLimits(_cache_bytes(self._model, cache_gb), speculative=drafts and not _has_windows(self._model))
            self._engine = Engine(self._model, self._chat, self._end_ids, self._prompt, bounds)
        else:
            keep = can_reuse_cache(self._model, *probe)
            self._engine = SequentialEngine(self._model, self._chat, self._end_ids, self._prompt, keep)
        self.batch = (_GPU_BATCH if self._model.device.type == "cuda" else _CPU_BATCH) if batched else 1
        self._description = {
            **loaded.description,
            "context": self._context,
            "attention": "cotbench" if batched else str(self._model.config._attn_implementation),
        }

    def describe(self) -> dict[str, Any]:
        """Model, revision, weights, dtype, device: what the manifest records."""
        return dict(self._description)

    @contextmanager
    def expose_model(self) -> Iterator[ModelHandle]:
        """Open the model for who looks into it or asks it by other ways; answer no query meanwhile.

        Afterwards it has the attention again that it answers with, whatever was set in between.
        """
        answering = self._model.config._attn_implementation
        self._model.set_attn_implementation(self._own_attention)
        try:
            yield ModelHandle(self._model, self._chat, self._context)
        finally:
            self._model.set_attn_implementation(answering)

    def clear_cache(self) -> None:
        """Drop what was computed of the episodes so far: what comes next is as if the agent had just been loaded."""
        self._engine.close()

    def close(self) -> None:
        """Drop the caches and the model."""
        self._engine.close()
        self._model = None

    def submit(self, key: Key, query: Query) -> None:
        """Take a query in; `collect` gives its decision, under the key."""
        self._engine.submit(key, query)

    def collect(self, wait: float) -> list[tuple[Key, Decision]]:
        """Compute for one pass of the model; the decisions that are now complete. `wait` means nothing: it never waits."""
        return self._engine.step()

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """One decision a query, in order; what fails is an error of that query alone."""
        for index, query in enumerate(queries):
            self._engine.submit(index, query)
        answers: dict[Key, Decision] = {}
        while len(answers) < len(queries):
            answers.update(self._engine.step())
        return [answers[index] for index in range(len(queries))]

    def _prompt(self, query: Query) -> tuple[list[int], int]:
        """The ids of a query's prompt, and how many observations were dropped for it."""
        return prompt_ids(query, self._chat, self._context)


def _probe_logits(model: Any) -> tuple[list[int], Any]:
    """Some tokens, and what the model says after each of them, (tokens, vocabulary)."""
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = [(7 * index + 3) % vocabulary for index in range(_PROBE)]
    window = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    if 0 < window < 128:  # A short window is reached: then that is compared too.
        ids *= 1 + window // _PROBE
    with torch.inference_mode():
        return ids, model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()


def _try_install_attention(model: Any, ids: list[int], logits: Any) -> str | None:
    """Why our attention does not compute what the model's own does; None where it does, and then it is installed."""
    import torch

    own = model.config._attn_implementation
    half = len(ids) // 2
    try:
        install_attention(model)
        first, second, other = KVCache(), KVCache(), KVCache()
        # A prompt, a continuation that it is shared with, and somebody else beside them.
        early, _ = forward(
            model, [TokenSpan(ids[:half], first, logits_from_end=range(half, 0, -1)), TokenSpan(ids[1:4], other)]
        )
        late, _ = forward(
            model,
            [TokenSpan(ids[half:], second, first, logits_from_end=range(len(ids) - half, 0, -1)), TokenSpan(ids[4:5], other)],
        )
        if logits_agree(torch.cat([early, late]), logits, model.dtype):
            return None
        against = "our attention computes something else than its own"
    except Exception as error:  # Whatever a model's code does with arguments that it does not know.
        against = loading.first_line(error)
    model.set_attn_implementation(own)
    return against


def _has_windows(model: Any) -> bool:
    """Whether some layers see a window of the last tokens only: a token's bits would depend on what is guessed beside it."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    return bool(getattr(config, "sliding_window", None)) and (kinds is None or any("sliding" in kind for kind in kinds))


def _cache_bytes(model: Any, cache_gb: float | None) -> int:
    if cache_gb is not None:
        return int(cache_gb * _GB)
    if model.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(model.device)[0] * _GPU_SHARE)
    try:
        from pathlib import Path

        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        raise AgentError("this system does not tell its free memory: give ?cache_gb=4") from None
    return int(free * _CPU_SHARE)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Token ids that end the assistant's turn."""
    ends = model.generation_config.eos_token_id
    ids = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return frozenset(id_ for id_ in ids if id_ is not None)
