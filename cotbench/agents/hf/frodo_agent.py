"""The `frodo:` agent: a trace writer and an answerer, two models (FRODO, arXiv 2402.13950). Invariant: in mode cot the writer's
trace is given to the answerer and nothing else passes between them; in every other query (a prompt action, a given trace, a
probe that opens the model) the answerer is the agent.

Each model has its own tokenizer, engine and KV cache: an `hf:` agent. The writer is stopped at the end of its trace: it is
given an empty action, so that none is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cotbench.agents.decisions import own_trace
from cotbench.agents.hf.agent import HFAgent, ModelHandle
from cotbench.agents.hf.engine import Engine
from cotbench.agents.hf.lanes import Key
from cotbench.agents.hf.model_files import ADAPTER, CONFIG
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query

WRITER, ANSWERER = "writer", "answerer"
"""Names of the two models' folders in a checkpoint of recipe `frodo`."""

_GPU_SHARE = 0.4
"""Share of a GPU's memory, as it is free once both models are loaded, that each of the two has for its KV caches."""


@dataclass(frozen=True, slots=True)
class _PendingQuery:
    """A query whose trace is written, or has been."""

    query: Query
    written: Decision | None = None


class FrodoAgent:
    """A trace writer and an answerer, two models of transformers.

    Args:
        models: WRITER,ANSWERER, each what `hf:` takes; or a folder that has both, as recipe `frodo` writes them.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "float16".
        attn: as of agent `hf`.
        context: the longest prompt and answer together, in tokens; default: what the models' configurations say.
        threads: torch's threads; default: torch's own choice.
        cache_gb: gigabytes for the KV caches of both models; default: for each a quarter of the memory that is free when it is
            loaded; on a GPU 80 % for both of what is free once both are loaded.
        drafts: as of agent `hf`.
    """

    uses_elicitation = True
    scores_actions = True

    def __init__(
        self,
        models: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn: str = "auto",
        context: int | None = None,
        threads: int | None = None,
        cache_gb: float | None = None,
        drafts: bool | None = None,
    ) -> None:
        writer, answerer = model_pair(models)
        shared: dict[str, Any] = {
            **{"device": device, "dtype": dtype, "attn": attn, "context": context, "threads": threads},
            **{"cache_gb": None if cache_gb is None else cache_gb / 2, "drafts": drafts},
        }
        both = HFAgent(writer, **shared), HFAgent(answerer, **shared)
        free = None if cache_gb is not None else _free_gpu_gb(both[1])
        if free is not None:
            # Each engine has a share of what was free before the other one's weights and caches were there.
            for agent in both:
                if isinstance(agent._engine, Engine):
                    agent._engine.limit_caches(int(free * _GPU_SHARE * 10**9))
        self._open(*both, f"frodo:{models}")

    @classmethod
    def of(cls, writer: HFAgent, answerer: HFAgent, name: str = "frodo:live") -> Self:
        """Make the agent of two agents, which it closes.

        Args:
            writer: writes the traces.
            answerer: writes the actions.
            name: the agent's name.
        """
        agent = cls.__new__(cls)
        agent._open(writer, answerer, name)
        return agent

    def _open(self, writer: HFAgent, answerer: HFAgent, name: str) -> None:
        self.name = name
        self.needs: frozenset[str] = frozenset()
        self.batch = answerer.batch
        self._writer, self._answerer = writer, answerer
        self._pending: dict[Key, _PendingQuery] = {}

    def require(self, elicitation: Elicitation) -> None:
        """Raise an error for tags that a tokenizer cannot write.

        Raises:
            AgentError: it reads them as something else.
        """
        self._writer.require(elicitation)
        self._answerer.require(elicitation)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest records: the answerer, and beside it the writer."""
        return {**self._answerer.describe(), WRITER: self._writer.describe()}

    def expose_model(self) -> AbstractContextManager[ModelHandle]:
        """Lend the answerer to a caller who looks into it; see `HFAgent.expose_model`."""
        return self._answerer.expose_model()

    def clear_cache(self) -> None:
        """Drop the KV caches of both models."""
        self._pending.clear()
        self._writer.clear_cache()
        self._answerer.clear_cache()

    def close(self) -> None:
        """Drop both models."""
        self._pending.clear()
        self._writer.close()
        self._answerer.close()

    def submit(self, key: Key, query: Query) -> None:
        """Take a query in; `collect` returns its decision, under the key."""
        if query.mode == "cot" and query.given_trace is None:
            self._pending[key] = _PendingQuery(query)
            self._writer.submit(key, trace_query(query))
        else:
            self._answerer.submit(key, query)

    def collect(self, wait: float) -> list[tuple[Key, Decision]]:
        """Compute a forward pass of each model; return the decisions that are now complete. It never waits."""
        done: list[tuple[Key, Decision]] = []
        for key, written in self._writer.collect(wait):
            pending = self._pending.pop(key)
            if written.error is not None:
                done.append((key, written))
                continue
            self._pending[key] = replace(pending, written=written)
            trace = own_trace(written, pending.query.elicitation.tags)
            self._answerer.submit(key, replace(pending.query, given_trace=trace))
        for key, answered in self._answerer.collect(wait):
            begun = self._pending.pop(key, None)
            both = answered if begun is None or begun.written is None else joined(begun.written, answered)
            done.append((key, both))
        return done

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return one decision a query, in order; what fails is an error of that query alone."""
        for index, query in enumerate(queries):
            self.submit(index, query)
        decisions: dict[Key, Decision] = {}
        while len(decisions) < len(queries):
            decisions.update(self.collect(0.0))
        return [decisions[index] for index in range(len(queries))]


def model_pair(models: str) -> tuple[str, str]:
    """Return what is loaded as the writer and as the answerer.

    Args:
        models: WRITER,ANSWERER, or a folder with both.

    Raises:
        UsageError: it is neither.
    """
    parts = [part.strip() for part in models.split(",")]
    if len(parts) == 2 and all(parts):
        return parts[0], parts[1]
    folder = Path(models).expanduser()
    missing = [part for part in (WRITER, ANSWERER) if not is_model_folder(folder / part)]
    if len(parts) == 1 and not missing:
        return str(folder / WRITER), str(folder / ANSWERER)
    if len(parts) == 1 and len(missing) == 1:
        raise UsageError(
            f"agent frodo:{models}: {folder / missing[0]} holds no model, so the {missing[0]} is missing: finish the training, "
            "take a checkpoint, or name both models, frodo:WRITER,ANSWERER"
        )
    raise UsageError(
        f"agent frodo:{models}: give two models, frodo:WRITER,ANSWERER, or a folder with {WRITER} and {ANSWERER} in it, such "
        "as a checkpoint of recipe frodo"
    )


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder holds a model or an adapter that can be loaded."""
    return any((folder / name).is_file() for name in (CONFIG, ADAPTER))


def trace_query(query: Query) -> Query:
    """Return the query that the writer answers with its trace alone.

    An empty given action ends its answer behind the trace. With style template nothing is prefilled, so no action can be given:
    the writer answers freely, and its action is not used.

    Args:
        query: of mode cot, without a given trace.
    """
    return replace(query, given_action="" if query.elicitation.style == "prefill" else None, return_tokens=False)


def joined(written: Decision, answered: Decision) -> Decision:
    """Return the decision of both models.

    The answer's text, its log-probability and, where asked for, its tokens are the answerer's: in these the trace is the
    harness's, for the answerer did not generate it.

    Args:
        written: the writer's, whose trace was given to the answerer.
        answered: the answerer's.
    """
    if answered.error is not None:
        return answered
    return replace(
        answered,
        trace=written.trace,
        format_ok=answered.format_ok and not written.trace_truncated,
        trace_truncated=written.trace_truncated,
        reused_tokens=answered.reused_tokens + written.reused_tokens,
        prefilled_tokens=answered.prefilled_tokens + written.prefilled_tokens,
        trace_tokens=written.trace_tokens,
        discarded_tokens=answered.discarded_tokens + written.discarded_tokens,
        dropped_observations=max(answered.dropped_observations, written.dropped_observations),
    )


def _free_gpu_gb(agent: HFAgent) -> float | None:
    """Return the gigabytes that are free on a model's GPU; None on a CPU, where the engine's own default holds."""
    import torch

    device = agent._model.device
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    free: int = torch.cuda.mem_get_info(device)[0]
    return free / 10**9
