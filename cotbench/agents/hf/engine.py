"""Continuous batching for `hf:` agents: many queries on one model. Invariant: each token of an episode goes through the model
once, for both modes and the next turn; and an answer depends on its query alone, not on what is answered beside it.

A *lane* is one episode's prompt with its KV cache. The *branches* of a lane continue its prompt (both modes, given traces,
forced actions): they share the lane's cache, and each has a cache of its own for what it adds. Every forward pass takes what
all lanes have to compute: prompts in chunks, continuations a token (and a draft) at a time; new queries join at the next pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cotbench.agents.decisions import error_decision
from cotbench.agents.hf.attention import TokenSpan, forward
from cotbench.agents.hf.block_pool import BlockPool, PoolFullError
from cotbench.agents.hf.continuation import Continuation
from cotbench.agents.hf.engine_limits import EngineLimits
from cotbench.agents.hf.lane_memory import LaneMemory
from cotbench.agents.hf.lanes import Branch, Key, Lane, LaneKey, continues_prompt, lane_key, last_prompt_token, retarget
from cotbench.agents.hf.logit_rows import ChosenLogitRows, LogitRows, PlainLogitRows
from cotbench.agents.hf.pass_runner import PassRunner
from cotbench.agents.hf.pass_spans import PassSpan, logit_count, next_spans, spans_after, token_count, wanted_spans
from cotbench.agents.hf.pretrained import is_out_of_memory
from cotbench.agents.hf.prompt_lookup import PromptLookup
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import common_prefix, decision_tokens, prefill_ids, prompt_ids
from cotbench.prompting.generation import Generation, GenerationRequest, answer_program
from cotbench.prompting.query import Decision, Query

_LEAST_TOKENS = 64
"""Tokens, and rows of logits, of a pass that are always allowed, however little memory there is."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """A pass that was not computed: the decision of a query that it costs, and what there was no memory for."""

    decision: Decision
    lacks: Literal["cache", "pass"] | None


class Engine:
    """Answer queries as they come, all on one model.

    Args:
        model: a causal model of transformers, with our attention installed (`install_attention`).
        chat: its tokenizer and template.
        end_ids: token ids that end the assistant's turn.
        context: the longest prompt and answer together, in tokens.
        limits: how much is computed and held at once.
        pool: where the KV caches lie as blocks, for batched attention; None where each sequence is computed by itself, which
            gives the same bits in any company.
    """

    def __init__(
        self,
        model: Any,
        chat: Chat,
        end_ids: frozenset[int],
        context: int,
        limits: EngineLimits,
        pool: BlockPool | None = None,
    ) -> None:
        self._model, self._chat, self._end_ids, self._context, self._limits = model, chat, end_ids, context, limits
        self._pool = pool
        self.runner = (
            None if pool is None else PassRunner(model, pool, graphs=limits.graphs, compile_after=limits.compile_after)
        )
        self._memory = LaneMemory(limits.cache_bytes, pool)
        self._lanes = self._memory.lanes
        self._waiting: deque[Branch] = deque()
        self._done: list[tuple[Key, Decision]] = []
        self._last_prompt: tuple[tuple[object, ...], list[int], int] = ((), [], 0)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest records of batched attention: the kernel, or why there is none."""
        if self._pool is None:
            return {}
        reason = self._pool.kernel_error
        return {"batched_attention": "kernel" if reason is None else f"gather: {reason}"}

    def submit(self, key: Key, query: Query) -> None:
        """Take a query in; `step` returns its decision under the key."""
        try:
            prompt, dropped = self._prompt(query)
            program = answer_program(query)
            continuation = self._continuation(query, next(program))
        except Exception as error:  # A prompt too long, a broken template: this query's failure alone.
            self._done.append((key, error_decision(error)))
            return
        self._waiting.append(Branch(key, query, prompt, dropped, program, continuation, cache=self._memory.new_cache()))

    def _prompt(self, query: Query) -> tuple[list[int], int]:
        """Return `prompt_ids` of a query; those of the last one are remembered, for the candidates of a state come in a row."""
        parts = (query.dialogue, query.mode, query.elicitation, query.admissible_actions)
        if parts != self._last_prompt[0]:
            self._last_prompt = (parts, *prompt_ids(query, self._chat, self._context))
        return self._last_prompt[1:]

    def _continuation(self, query: Query, request: GenerationRequest) -> Continuation:
        return Continuation(request, query.elicitation, self._chat, self._end_ids)

    def step(self) -> list[tuple[Key, Decision]]:
        """Compute one forward pass for all queries; return the decisions that it completed."""
        self._admit()
        spans = next_spans(self._lanes.values(), self._limits)
        if spans:
            self._forward(spans)
        done, self._done = self._done, []
        return done

    @property
    def idle(self) -> bool:
        """Return whether no query is left to be answered."""
        return not self._waiting and not self._done and not any(lane.running for lane in self._lanes.values())

    def limit_caches(self, cache_bytes: int) -> None:
        """Bound the memory of the KV caches anew; none may be in use (`close`)."""
        self._memory.cache_bytes = cache_bytes
        if self._pool is not None:
            self._pool.limit(cache_bytes)

    def release(self) -> None:
        """Let go of the model; nothing can be answered any more."""
        self.close()
        self._model = self.runner = None

    def close(self) -> None:
        """Drop all KV caches, the queries that wait, and decisions that nobody has fetched."""
        self._lanes.clear()
        self._waiting.clear()
        self._done.clear()
        if self._pool is not None and self.runner is not None:
            self.runner.close()
            self._pool.drop()

    def _admit(self) -> None:
        """Put waiting queries onto their lanes, where the lane is free or already continues their very prompt."""
        blocked: set[LaneKey] = set()
        still_waiting: deque[Branch] = deque()
        while self._waiting:
            branch = self._waiting.popleft()
            name = lane_key(branch.query)
            lane = self._lanes.get(name)
            joins = lane is not None and bool(lane.running) and continues_prompt(branch, lane.running[0])
            if (
                name in blocked
                or (lane is not None and lane.running and not joins)
                or not (self._memory.make_room_beside(name, branch) if joins else self._memory.make_room(name, branch))
            ):
                blocked.add(name)
                still_waiting.append(branch)
                continue
            lane = self._memory.lane(name)
            if joins:
                branch.reused = len(branch.prompt) - len(last_prompt_token(branch))
            else:
                self._lanes.move_to_end(name)
                branch.reused = retarget(lane, branch)
                self._index(lane, lane.pending)
                branch.prefilled = len(lane.pending)
            lane.running.append(branch)
            self._begin(lane, branch)
        self._waiting = still_waiting

    def _forward(self, spans: Sequence[PassSpan]) -> None:
        """Compute the spans; where the pass fails, in halves, so that a failure costs its own queries alone.

        Where there is no memory for keys and values, idle lanes are dropped, and then the queries that came last wait until
        others are answered; where there is none for the pass itself, passes become smaller.
        """
        spans = wanted_spans(spans)
        outcome = self._attempt(spans)
        while (
            isinstance(outcome, _Failure)
            and outcome.lacks == "cache"
            and (self._memory.drop_idle() or self._begin_some_again())
        ):
            spans = wanted_spans(spans)
            outcome = self._attempt(spans)
        # The exception is gone by now, and with it what its frames held of the pass.
        if not isinstance(outcome, _Failure):
            self._take_pass(spans, outcome)
            return
        # Without a pool an allocation does not say what it was for: keys and values have been dropped in vain by now.
        too_large = outcome.lacks == "pass" or (self._pool is None and outcome.lacks is not None)
        if len(spans) > 1:
            if too_large:
                self._lower_pass_limits(spans)
            half = len(spans) // 2
            self._forward(spans[:half])
            self._forward(spans_after(spans[:half], spans[half:]))
            return
        ((span, lane, branch),) = spans
        if too_large and branch is None and len(span.ids) > _LEAST_TOKENS:
            self._lower_pass_limits(spans)  # The next pass takes less of this prompt.
            return
        for failed in [branch] if branch is not None else list(lane.running):
            self._end(lane, failed, outcome.decision)
        self._memory.forget(lane)

    def _attempt(self, spans: Sequence[PassSpan]) -> Sequence[LogitRows] | _Failure:
        """Return the logits of a pass, or why there are none."""
        if not spans:
            return []
        try:
            return self._compute([span for span, _, _ in spans])
        except Exception as error:
            lacks: Literal["cache", "pass"] | None = None
            if is_out_of_memory(error):
                lacks = "cache" if self._pool is None or isinstance(error, PoolFullError) else "pass"
            return _Failure(error_decision(error), lacks)

    def _begin_some_again(self) -> bool:
        """Let some queries wait, so that others have memory; return whether there are such. Their answers will be the same."""
        again = self._memory.withdraw_last()
        for branch in again:
            self.submit(branch.key, branch.query)
        return bool(again)

    def _lower_pass_limits(self, spans: Sequence[PassSpan]) -> None:
        """Let passes be half as large as one that did not fit into memory."""
        limits = self._limits
        tokens, rows = max(_LEAST_TOKENS, token_count(spans) // 2), max(_LEAST_TOKENS, logit_count(spans) // 2)
        self._limits = replace(
            limits,
            max_tokens_per_forward=min(limits.max_tokens_per_forward, tokens),
            prefill_chunk=min(limits.prefill_chunk, tokens),
            max_logit_rows=min(limits.max_logit_rows, rows),
        )

    def _take_pass(self, spans: Sequence[PassSpan], logits: Sequence[LogitRows]) -> None:
        """Note what a pass has computed, and choose the next tokens."""
        for (span, lane, branch), rows in zip(spans, logits, strict=True):
            self._memory.note_size(span.cache)
            if branch is None:
                lane.ids += span.ids
                del lane.pending[: len(span.ids)]
            else:
                branch.ids += span.ids
                try:
                    self._take_logits(lane, branch, rows)
                except Exception as error:  # Logits that are no numbers, from which no token can be chosen.
                    self._end(lane, branch, error_decision(error))

    def _compute(self, spans: Sequence[TokenSpan]) -> Sequence[LogitRows]:
        """Compute one forward pass; return each span's rows of logits."""
        if self.runner is None:
            return [PlainLogitRows(rows) for rows in forward(self._model, spans)]
        chosen, start, rows = self.runner.compute(spans), 0, []
        for span in spans:
            rows.append(ChosenLogitRows(chosen, start, len(span.logits_from_end)))
            start += len(span.logits_from_end)
        return rows

    def _take_logits(self, lane: Lane, branch: Branch, logits: LogitRows) -> None:
        """Choose the next token and accept the draft as far as it agrees, or score a forced text."""
        continuation = branch.continuation
        if continuation.request.forced is not None:
            self._advance(lane, branch, logits.score(continuation))
            return
        generation, accepted = None, 0
        for row in range(len(logits)):
            generation = logits.append_to(continuation, row)
            if generation is not None or accepted == len(branch.draft) or continuation.ids[-1] != branch.draft[accepted]:
                break
            accepted += 1
        if rejected := len(branch.draft) - accepted:
            branch.cache.length -= rejected
            del branch.ids[-rejected:]
        if generation is not None:
            self._advance(lane, branch, generation)
            return
        branch.pending = continuation.ids[-1:]
        if branch.lookup is not None:
            branch.lookup.update(continuation.ids[-1 - accepted :], len(branch.draft))

    def _advance(self, lane: Lane, branch: Branch, generation: Generation) -> None:
        """Let a query's program go on, to its next request or to its end."""
        branch.history.append((branch.turn, generation))
        try:
            request = branch.program.send(generation)
        except StopIteration as end:
            decision = replace(
                end.value,
                prompt_tokens=len(branch.prompt),
                reused_tokens=branch.reused,
                prefilled_tokens=branch.prefilled,
                dropped_observations=branch.dropped,
                tokens=decision_tokens(branch.prompt, branch.history) if branch.query.return_tokens else None,
            )
            self._end(lane, branch, decision)
        except Exception as error:
            self._end(lane, branch, error_decision(error))
        else:
            branch.continuation = self._continuation(branch.query, request)
            self._begin(lane, branch)

    def _begin(self, lane: Lane, branch: Branch) -> None:
        """Set a branch on its next continuation, keeping what it can of what it has computed."""
        continuation = branch.continuation
        branch.prefill = last_prompt_token(branch) + prefill_ids(self._chat, continuation.request.prefill)
        prefix_length = min(common_prefix(branch.ids, branch.prefill), len(branch.prefill) - 1)
        forced = continuation.request.forced is not None
        branch.ids = branch.ids[:prefix_length]
        branch.cache.length = prefix_length
        branch.pending = branch.prefill[prefix_length:] + (continuation.ids[:-1] if forced else [])
        branch.prefilled += len(branch.pending)
        branch.lookup = PromptLookup(lane.ngrams, branch.prefill) if self._limits.speculative and not forced else None

    def _end(self, lane: Lane, branch: Branch, decision: Decision) -> None:
        """Take a branch off its lane, with its decision."""
        lane.running.remove(branch)
        branch.cache.free()
        self._index(lane, [*branch.prefill, *branch.continuation.ids])
        self._done.append((branch.key, decision))

    def _index(self, lane: Lane, ids: Sequence[int]) -> None:
        """Remember what was read or written in an episode, where drafts are looked up in it."""
        if self._limits.speculative:
            lane.ngrams.extend(ids)
