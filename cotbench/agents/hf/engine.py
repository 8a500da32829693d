"""Continuous batching for `hf:` agents: many queries on one model. Invariant: each token of an episode goes through the model
once, for both modes and the next turn; and an answer depends on its query alone, not on what is answered beside it.

A *lane* is one episode's prompt with its KV cache. The *branches* of a lane continue its prompt (both modes, given traces,
forced actions): they share the lane's cache, and each has a cache of its own for what it adds. Every forward pass takes what
all lanes have to compute: prompts in chunks, continuations a token (and a draft) at a time; new queries join at the next pass.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cotbench.agents.decisions import error_decision
from cotbench.agents.hf.attention import TokenSpan, forward
from cotbench.agents.hf.block_pool import BlockPool, PagedCache, PoolFullError, is_out_of_memory
from cotbench.agents.hf.continuation import Continuation
from cotbench.agents.hf.kv_cache import BLOCK, KVCache
from cotbench.agents.hf.lanes import Branch, Key, Lane, LaneKey, continues_prompt, lane_key, last_prompt_token, retarget
from cotbench.agents.hf.logit_rows import ChosenLogitRows, LogitRows, PlainLogitRows
from cotbench.agents.hf.pass_runner import PassRunner
from cotbench.agents.hf.prompt_lookup import PromptLookup
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import common_prefix, decision_tokens, prefill_ids, prompt_ids
from cotbench.prompting.generation import TAG_ALLOWANCE, Generation, GenerationRequest, answer_program
from cotbench.prompting.query import Decision, Query

_FREE_DRAFT = 3
"""Draft tokens that cost nothing: a pass is filled up to a multiple of four rows anyway."""


_LEAST_TOKENS = 64
"""Tokens, and rows of logits, of a pass that are always allowed, however little memory there is."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bound what is computed and held at once.

    Attributes:
        cache_bytes: memory for the KV caches; beyond it lanes not in use are dropped, the least recently used first.
        prefill_chunk: tokens of one prompt in a forward pass.
        max_tokens_per_forward: tokens in a forward pass, more or less: of continuations, forced ones alone are held back.
        max_logit_rows: rows of logits in a forward pass, beyond which forced continuations are held back: a row is as long as
            the vocabulary, so that a thousand of them take a gigabyte.
        max_draft_tokens: how many of them may be drafts, all continuations together.
        speculative: whether to draft tokens (prompt lookup).
        graphs: whether to capture passes as CUDA graphs, where attention is batched on a GPU.
        compile_after: after so many replays of graphs the layers are compiled as well; None: never.
    """

    cache_bytes: int
    prefill_chunk: int = 256
    max_tokens_per_forward: int = 1024
    max_logit_rows: int = 1024
    max_draft_tokens: int = 64
    speculative: bool = True
    graphs: bool = True
    compile_after: int | None = None


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
        self._token_bytes = 0 if pool is None else pool.block_bytes // BLOCK
        self._lanes: OrderedDict[LaneKey, Lane] = OrderedDict()
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
        self._waiting.append(Branch(key, query, prompt, dropped, program, continuation, cache=self._new_cache()))

    def _new_cache(self) -> KVCache | PagedCache:
        return KVCache() if self._pool is None else PagedCache(self._pool)

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
        spans = self._spans()
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
        self._limits = replace(self._limits, cache_bytes=cache_bytes)
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
                or not (self._make_room_beside(name, branch) if joins else self._make_room(name, branch))
            ):
                blocked.add(name)
                still_waiting.append(branch)
                continue
            lane = self._lane(name)
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

    def _make_room(self, name: LaneKey, branch: Branch) -> bool:
        """Make room for a query on a free lane; return False while others, that are being answered, need the memory."""
        need = self._bytes_for(branch, [branch, branch])  # Both modes of it, so that the second never waits for the first.
        if not self._evict(name, need) and any(other != name for other in self._lanes):
            return False
        self._lane(name).reserved_bytes = need
        return True

    def _make_room_beside(self, name: LaneKey, branch: Branch) -> bool:
        """Make room for a query that continues the prompt of others; return False while it has to wait for them."""
        lane = self._lanes[name]
        need = self._bytes_for(branch, [*lane.running, branch])
        if need > lane.reserved_bytes:
            if not self._evict(name, need):
                return False
            lane.reserved_bytes = need
        return True

    def _evict(self, name: LaneKey, need: int) -> bool:
        """Drop idle lanes, the least recently used first, until one lane can have so many bytes; return whether it can."""
        others = {other: lane for other, lane in self._lanes.items() if other != name}
        while need + sum(lane.nbytes for lane in others.values()) > self._limits.cache_bytes:
            idle = next((other for other, lane in others.items() if not lane.running), None)
            if idle is None:
                return False
            self._lanes.pop(idle).cache.free()
            del others[idle]
        return True

    def _bytes_for(self, branch: Branch, branches: Sequence[Branch]) -> int:
        """Return how much memory a lane may need with a branch's prompt and some branches that continue it."""
        return self._token_bytes * (self._room(len(branch.prompt)) + sum(self._room(_answer_tokens(one)) for one in branches))

    def _room(self, tokens: int) -> int:
        """Return for how many tokens a cache takes memory: it grows by half of itself, or block by block."""
        return tokens + (tokens // 2 if self._pool is None else -tokens % BLOCK)

    def _lane(self, name: LaneKey) -> Lane:
        """Return the lane of this name, a new one where there is none."""
        if name not in self._lanes:
            self._lanes[name] = Lane(cache=self._new_cache())
        return self._lanes[name]

    def _spans(self) -> list[tuple[TokenSpan, Lane, Branch | None]]:
        """Return what the next pass computes: all continuations, then chunks of prompts as far as there is room.

        After the last chunk of a prompt its continuations come in the same pass.
        """
        lanes = [lane for lane in self._lanes.values() if lane.running]
        share = self._limits.max_draft_tokens // max(1, sum(len(lane.running) for lane in lanes))
        room, rows = self._limits.max_tokens_per_forward, self._limits.max_logit_rows
        spans: list[tuple[TokenSpan, Lane, Branch | None]] = []
        for lane in lanes:
            if not lane.pending:
                new = self._branch_spans(lane, 0, share, room, rows)
                room -= _tokens(new)
                rows -= _logit_rows(new)
                spans += new
        for lane in lanes:
            if lane.pending and room > 0:
                chunk = lane.pending[: self._limits.prefill_chunk]
                spans.append((TokenSpan(chunk, lane.cache), lane, None))
                room -= len(chunk)
                if len(chunk) == len(lane.pending):
                    new = self._branch_spans(lane, len(chunk), share, room, rows)
                    room -= _tokens(new)
                    rows -= _logit_rows(new)
                    spans += new
        return spans

    def _branch_spans(
        self, lane: Lane, ahead: int, share: int, room: int, logit_rows: int
    ) -> list[tuple[TokenSpan, Lane, Branch | None]]:
        """Return the spans of a lane's branches.

        Args:
            lane: the lane.
            ahead: tokens of its prompt that the same pass computes before them.
            share: draft tokens for each branch.
            room: tokens beyond which forced continuations wait for another pass: a state may have hundreds of candidates.
            logit_rows: rows of logits beyond which they wait: each of their tokens takes one.
        """
        spans: list[tuple[TokenSpan, Lane, Branch | None]] = []
        for branch in lane.running:
            if branch.continuation.request.forced is not None:
                if room <= 0 or logit_rows <= 0:
                    continue
                room -= len(branch.pending)
                logit_rows -= branch.continuation.logit_rows
            branch.draft = self._draft(branch, share)
            rows = range(branch.continuation.logit_rows + len(branch.draft), 0, -1)
            targets = [] if branch.continuation.request.forced is None else branch.continuation.ids
            ids, temperature = branch.pending + branch.draft, 0.0 if targets else branch.continuation.temperature
            spans.append((TokenSpan(ids, branch.cache, lane.cache, ahead, rows, targets, temperature), lane, branch))
        return spans

    def _draft(self, branch: Branch, share: int) -> list[int]:
        """Return tokens that may follow; never more than the budget allows, nor into another block of the KV cache."""
        if branch.lookup is None:
            return []
        block_left = -(branch.cache.length + len(branch.pending)) % BLOCK
        return branch.lookup.draft(min(branch.continuation.tokens_left - 1, block_left, max(_FREE_DRAFT, share)))

    def _forward(self, spans: Sequence[tuple[TokenSpan, Lane, Branch | None]]) -> None:
        """Compute the spans; where the pass fails, in halves, so that a failure costs its own queries alone.

        Where there is no memory for keys and values, idle lanes are dropped, and then the queries that came last wait until
        others are answered; where there is none for the pass itself, passes become smaller.
        """
        spans = _wanted(spans)
        outcome = self._attempt(spans)
        while (
            isinstance(outcome, _Failure) and outcome.lacks == "cache" and (self._drop_idle_lanes() or self._begin_some_again())
        ):
            spans = _wanted(spans)
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
            begun = {id(lane) for _, lane, branch in spans[:half] if branch is None}
            rest = [
                one for one in spans[half:] if id(one[1]) not in begun or not one[1].pending
            ]  # Others come in a later pass.
            for span, lane, _ in rest:
                if id(lane) in begun:
                    span.prefix_pending = 0  # What it continues was computed just now.
            self._forward(rest)
            return
        ((span, lane, branch),) = spans
        if too_large and branch is None and len(span.ids) > _LEAST_TOKENS:
            self._lower_pass_limits(spans)  # The next pass takes less of this prompt.
            return
        for failed in [branch] if branch is not None else list(lane.running):
            self._end(lane, failed, outcome.decision)
        self._forget(lane)

    def _attempt(self, spans: Sequence[tuple[TokenSpan, Lane, Branch | None]]) -> Sequence[LogitRows] | _Failure:
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

    def _drop_idle_lanes(self) -> bool:
        """Drop the lanes that are not in use; return whether there were any."""
        idle = [lane for lane in self._lanes.values() if not lane.running and lane.cache.length]
        if idle:
            self._take_no_more()
        for lane in idle:
            self._forget(lane)
        return bool(idle)

    def _begin_some_again(self) -> bool:
        """Drop what the lane that came last has computed, and let its queries wait; return False where nothing can wait.

        So do lanes that hold nothing yet; and where there is one lane alone, half of its queries. Their answers will be the
        same, for an answer depends on its query alone.
        """
        first, *others = [lane for lane in self._lanes.values() if lane.running]
        holding = [lane for lane in others if lane.held_bytes]
        again = [branch for lane in others if lane in holding[-1:] or lane not in holding for branch in lane.running]
        again = again or first.running[(len(first.running) + 1) // 2 :]
        if not again:
            return False
        self._take_no_more()
        for lane in (first, *others):
            if waiting := [branch for branch in lane.running if branch in again]:
                lane.running = [branch for branch in lane.running if branch not in waiting]
                lane.reserved_bytes = self._bytes_for(waiting[0], lane.running)
                self._forget(lane)
        for branch in again:
            branch.cache.free()
            self.submit(branch.key, branch.query)
        return True

    def _take_no_more(self) -> None:
        """Bound the KV caches by what they hold now, if anything."""
        if self._pool is None:
            held = sum(lane.nbytes for lane in self._lanes.values())
        else:
            held = self._pool.nbytes - self._pool.block_bytes  # The spare block is nobody's.
        if held > 0:
            self._limits = replace(self._limits, cache_bytes=min(self._limits.cache_bytes, held))

    def _lower_pass_limits(self, spans: Sequence[tuple[TokenSpan, Lane, Branch | None]]) -> None:
        """Let passes be half as large as one that did not fit into memory."""
        limits = self._limits
        tokens, rows = max(_LEAST_TOKENS, _tokens(spans) // 2), max(_LEAST_TOKENS, _logit_rows(spans) // 2)
        self._limits = replace(
            limits,
            max_tokens_per_forward=min(limits.max_tokens_per_forward, tokens),
            prefill_chunk=min(limits.prefill_chunk, tokens),
            max_logit_rows=min(limits.max_logit_rows, rows),
        )

    def _take_pass(self, spans: Sequence[tuple[TokenSpan, Lane, Branch | None]], logits: Sequence[LogitRows]) -> None:
        """Note what a pass has computed, and choose the next tokens."""
        for (span, lane, branch), rows in zip(spans, logits, strict=True):
            self._token_bytes = self._token_bytes or span.cache.nbytes // span.cache.capacity
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

    def _forget(self, lane: Lane) -> None:
        """Drop what a lane holds, once nobody uses it."""
        if not lane.running:
            lane.cache.free()
            self._lanes = OrderedDict((name, other) for name, other in self._lanes.items() if other is not lane)


def _wanted(spans: Sequence[tuple[TokenSpan, Lane, Branch | None]]) -> list[tuple[TokenSpan, Lane, Branch | None]]:
    """Return the spans of queries that are still being answered."""
    return [one for one in spans if one[1].running and (one[2] is None or one[2] in one[1].running)]


def _answer_tokens(branch: Branch) -> int:
    """Return how many tokens a branch may add to its prompt, tags included."""
    continuation, elicitation = branch.continuation, branch.query.elicitation
    forced = continuation.request.forced is not None
    return TAG_ALLOWANCE + (len(continuation.ids) if forced else elicitation.trace_tokens + elicitation.action_tokens)


def _tokens(spans: Sequence[tuple[TokenSpan, Lane, Branch | None]]) -> int:
    return sum(len(span.ids) for span, _, _ in spans)


def _logit_rows(spans: Sequence[tuple[TokenSpan, Lane, Branch | None]]) -> int:
    return sum(len(span.logits_from_end) for span, _, _ in spans)
