"""The `hf:` agent. Invariant: both modes continue the same prompt and read the action after the same token ids of the opening
action tag, so they differ in the trace alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cotbench.agents.hf import models
from cotbench.agents.hf.chat import Chat
from cotbench.agents.hf.decode import CachedSequence, Generated, Sampling, generate, ids_before
from cotbench.answer import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN, parse_answer, without_partial_tag
from cotbench.dialogue import Dialogue, fit
from cotbench.errors import ContextOverflowError, CotbenchError, UsageError
from cotbench.query import Decision, Query, derive_seed

TAG_ALLOWANCE = 32
"""Tokens kept free for the tags themselves."""

_LOGPROB_DIGITS = 4


class HFAgent:
    """A causal language model of transformers.

    Args:
        model: hub name, alias (see `models.ALIASES`), local folder, or `smollm2`.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "float16".
        attn: transformers' `attn_implementation`.
        revision: branch, tag or commit on the hub.
        context: the longest prompt and answer together, in tokens; default: what the model's configuration says.
        threads: torch's threads; default: torch's own choice.
        episodes: how many episodes keep their cache; the least recently used is dropped.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        attn: str | None = None,
        revision: str | None = None,
        context: int | None = None,
        threads: int | None = None,
        episodes: int = 8,
    ) -> None:
        models.require_transformers()
        if threads is not None:
            import torch

            torch.set_num_threads(max(1, threads))
        loaded = models.load(model, device=device, dtype=dtype, attn=attn, revision=revision)
        self.name = f"hf:{model}"
        self.needs: frozenset[str] = frozenset()
        self._model = loaded.model
        self._chat = Chat(loaded.tokenizer)
        self._end_ids = _end_ids(loaded.model, loaded.tokenizer)
        limits = [context, getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)]
        self._context = min((limit for limit in limits if limit is not None), default=2**31)
        if context is not None and context < 2 * TAG_ALLOWANCE:
            raise UsageError(f"context={context} leaves no room for an answer")
        self._description = {**loaded.description, "context": self._context}
        self._capacity = max(1, episodes)
        self._sequences: OrderedDict[str, CachedSequence] = OrderedDict()

    def describe(self) -> dict[str, Any]:
        """Model, revision, weights, dtype, device: what the manifest records."""
        return dict(self._description)

    def close(self) -> None:
        """Drop the caches and the model."""
        self._sequences.clear()
        self._model = None

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """One decision a query, in order; what fails is an error of that query alone."""
        # Every running episode keeps its cache, however many are played side by side.
        self._capacity = max(self._capacity, len({query.episode for query in queries}))
        decisions = []
        for query in queries:
            try:
                decisions.append(self._decide(query))
            except Exception as error:  # Out of memory, a broken template, a prompt too long: this query's failure alone.
                self._sequences.pop(query.episode, None)
                told = str(error) if isinstance(error, CotbenchError) else f"{type(error).__name__}: {error}"
                decisions.append(Decision("", error=told))
        return decisions

    def _decide(self, query: Query) -> Decision:
        prompt, dropped = self._prompt(query)
        sequence = self._sequence(query.episode)
        reused = sequence.reusable(prompt)
        answer = self._prefill if query.elicitation.style == "prefill" else self._template
        return replace(
            answer(query, sequence, prompt),
            prompt_tokens=len(prompt),
            reused_tokens=reused,
            dropped_observations=dropped,
        )

    def _prefill(self, query: Query, sequence: CachedSequence, prompt: list[int]) -> Decision:
        """Open the tags for the model: `p <think>` ... `</think>`, then, in both modes, `<action>`."""
        ids, trace, thought = prompt, query.given_trace, None
        if query.mode == "cot":
            ids = prompt + self._chat.encode(THINK_OPEN)
            if trace is None:
                stops = (THINK_CLOSE, ACTION_OPEN)
                thought = self._generate(query, sequence, ids, query.elicitation.trace_tokens, stops, one_line=False)
                trace = without_partial_tag(thought.text, THINK_CLOSE) if thought.stop == "budget" else thought.text
                ids = ids + ids_before(self._chat, thought.ids, trace)
            else:
                ids = ids + self._chat.encode(trace)
            ids = ids + self._chat.encode(f"{THINK_CLOSE}\n")
        ids = ids + self._chat.encode(ACTION_OPEN)
        said = self._generate(
            query, sequence, ids, query.elicitation.action_tokens, (ACTION_CLOSE,), one_line=query.elicitation.one_line
        )
        closed = thought is None or thought.stop == THINK_CLOSE
        words = without_partial_tag(said.text, ACTION_CLOSE) if said.stop == "budget" else said.text
        read = parse_answer(f"{ACTION_OPEN}{words}{ACTION_CLOSE}")
        reasoning = "" if query.mode == "prompt" else f"{THINK_OPEN}{trace}{THINK_CLOSE}\n"
        return Decision(
            action=read.action,
            trace=None if query.mode == "prompt" else (trace or "").strip(),
            raw=f"{reasoning}{ACTION_OPEN}{said.text}" + (ACTION_CLOSE if said.stop == ACTION_CLOSE else ""),
            format_ok=closed and said.stop == ACTION_CLOSE and read.format_ok,
            trace_truncated=not closed,
            trace_tokens=len(thought.logprobs) if thought else 0,
            action_tokens=len(said.logprobs),
            action_logprob=round(sum(said.logprobs), _LOGPROB_DIGITS),
        )

    def _template(self, query: Query, sequence: CachedSequence, prompt: list[int]) -> Decision:
        """Let the model write the whole answer, then read it."""
        opening = ""
        if query.mode == "cot" and query.given_trace is not None:
            opening = f"{THINK_OPEN}{query.given_trace}{THINK_CLOSE}\n"
        budget = query.elicitation.action_tokens + TAG_ALLOWANCE
        if query.mode == "cot" and not opening:
            budget += query.elicitation.trace_tokens
        ids = prompt + (self._chat.encode(opening) if opening else [])
        said = self._generate(query, sequence, ids, budget, (ACTION_CLOSE,), one_line=False)
        raw = opening + said.text + (ACTION_CLOSE if said.stop == ACTION_CLOSE else "")
        read = parse_answer(raw)
        # As with prefill, the action's tokens are those after the opening tag; without a tag none can be told apart.
        counts = range(len(said.ids) + 1)
        opened = next((count for count in counts if ACTION_OPEN in self._chat.decode(said.ids[:count])), None)
        trace_tokens = len(said.logprobs) if opened is None else opened
        return Decision(
            action=read.action,
            trace=read.trace if query.mode == "cot" else None,
            raw=raw,
            format_ok=read.format_ok and (query.mode == "prompt") == (read.trace is None),
            trace_truncated="trace not closed" in read.problems,
            trace_tokens=trace_tokens,
            action_tokens=len(said.logprobs) - trace_tokens,
            action_logprob=None if opened is None else round(sum(said.logprobs[opened:]), _LOGPROB_DIGITS),
        )

    def _generate(
        self, query: Query, sequence: CachedSequence, ids: list[int], budget: int, stops: tuple[str, ...], *, one_line: bool
    ) -> Generated:
        elicitation = query.elicitation
        sampling = Sampling(elicitation.temperature, elicitation.top_p, derive_seed(query.seed, len(stops)))
        return generate(
            sequence,
            self._chat,
            ids,
            budget=budget,
            stops=stops,
            one_line=one_line,
            end_ids=self._end_ids,
            sampling=sampling,
        )

    def _prompt(self, query: Query) -> tuple[list[int], int]:
        elicitation = query.elicitation
        limit = self._context - elicitation.trace_tokens - elicitation.action_tokens - TAG_ALLOWANCE
        if limit < 1:
            raise ContextOverflowError(
                f"a context of {self._context} tokens has no room for a trace of {elicitation.trace_tokens} and an action of "
                f"{elicitation.action_tokens}: lower --trace-tokens, or use a model with a longer context"
            )
        made: dict[Dialogue, list[int]] = {}

        def length(dialogue: Dialogue) -> int:
            made[dialogue] = self._chat.prompt_ids(elicitation.messages(dialogue, query.mode, query.admissible_actions))
            return len(made[dialogue])

        shown, dropped = fit(query.dialogue, length, limit)
        return made[shown], dropped

    def _sequence(self, episode: str) -> CachedSequence:
        if episode not in self._sequences:
            self._sequences[episode] = CachedSequence(self._model)
        self._sequences.move_to_end(episode)
        while len(self._sequences) > self._capacity:
            self._sequences.popitem(last=False)
        return self._sequences[episode]


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Token ids that end the assistant's turn."""
    ends = model.generation_config.eos_token_id
    ids = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return frozenset(id_ for id_ in ids if id_ is not None)
