"""Answering many queries at once on one model. Invariant: each token of an episode goes through the model once, for both modes
and the next turn; and an answer depends on its query alone, not on what is answered beside it.

An episode's *lane* holds the keys of its prompt. The continuations of one prompt (both modes, given traces, scores) share
them, each with keys of its own for what it adds. Every pass of the model takes what all lanes have to compute: prompts in
pieces, continuations a token (and some guesses) at a time; new queries join at the next pass.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cotbench.agents.decisions import error_decision
from cotbench.agents.hf.attention import BLOCK, KVCache, TokenSpan, forward
from cotbench.agents.hf.continuation import Continuation
from cotbench.agents.hf.prompt_lookup import NgramIndex, PromptLookup
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import common_prefix, prefill_ids
from cotbench.prompting.generation import AnswerProgram, Generation, GenerationRequest, answer_program, opening_tag
from cotbench.prompting.query import Decision, Query

Key = Hashable

_FREE = 3
"""Guesses that cost nothing: passes are filled up to a multiple of four rows anyway."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much is done at once.

    Attributes:
        cache_bytes: memory for keys and values; lanes not in use are dropped beyond it, the least recently used first.
        piece: tokens of one prompt in a pass.
        tokens: tokens in a pass, more or less.
        guesses: how many of them may be guesses where many continue at once.
        drafts: whether to guess.
    """

    cache_bytes: int
    prefill_chunk: int = 256
    max_tokens_per_forward: int = 1024
    max_draft_tokens: int = 64
    speculative: bool = True


@dataclass(slots=True, eq=False)
class _Branch:
    """One continuation of a lane's prompt.

    Attributes:
        passage: what is being written.
        ids: what has been computed of it; `cache` has their keys.
        opened: what stands before the passage.
        pending: what comes next; `draft` may come after it.
        prefilled: how many tokens were computed that had not been generated.
    """

    key: Key
    query: Query
    prompt: list[int]
    program: AnswerProgram
    continuation: Continuation
    dropped: int
    cache: KVCache = field(default_factory=KVCache)
    ids: list[int] = field(default_factory=list)
    reused: int = 0
    prefilled: int = 0
    prefill: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    lookup: PromptLookup | None = None
    draft: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Lane:
    """The prompt of one episode, who continues it, and what was read and written in it so far.

    Attributes:
        whole: the prompt that is being continued; of it `ids` have been computed, and `pending` come next.
        reserved: memory that the running branches may come to need.
    """

    ids: list[int] = field(default_factory=list)
    cache: KVCache = field(default_factory=KVCache)
    pending: list[int] = field(default_factory=list)
    running: list[_Branch] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    ngrams: NgramIndex = field(default_factory=NgramIndex)
    reserved_bytes: int = 0

    @property
    def nbytes(self) -> int:
        """Memory that it holds, or may come to hold while it is in use."""
        held = sum(branch.cache.nbytes for branch in self.running) + self.cache.nbytes
        return max(held, self.reserved_bytes) if self.running else held


class Engine:
    """A model that answers queries as they come.

    Args:
        model: of transformers, with our attention installed.
        chat: its tokenizer.
        end_ids: token ids that end a turn.
        prompt: gives a query's prompt and how many observations were dropped for it.
        limits: how much is done at once.
    """

    def __init__(
        self,
        model: Any,
        chat: Chat,
        end_ids: frozenset[int],
        prompt: Callable[[Query], tuple[list[int], int]],
        limits: EngineLimits,
    ) -> None:
        self._model, self._chat, self._end_ids, self._prompt, self._limits = model, chat, end_ids, prompt, limits
        self._token_bytes = 0
        self._lanes: OrderedDict[tuple[str, str], _Lane] = OrderedDict()
        self._waiting: deque[_Branch] = deque()
        self._done: list[tuple[Key, Decision]] = []

    def submit(self, key: Key, query: Query) -> None:
        """Take a query in."""
        try:
            prompt, dropped = self._prompt(query)
            running = answer_program(query)
            passage = self._continuation(query, next(running))
        except Exception as error:  # A prompt too long, a broken template: this query's failure alone.
            self._done.append((key, error_decision(error)))
            return
        self._waiting.append(_Branch(key, query, prompt, running, passage, dropped))

    def _continuation(self, query: Query, ask: GenerationRequest) -> Continuation:
        return Continuation(ask, query.elicitation, self._chat, self._end_ids)

    def step(self) -> list[tuple[Key, Decision]]:
        """One pass of the model for all that wait; gives the answers that it completed."""
        self._admit()
        spans = self._spans()
        if spans:
            self._forward(spans)
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Drop all keys and values."""
        self._lanes.clear()
        self._waiting.clear()

    def _admit(self) -> None:
        """Let waiting queries onto their lanes, where the lane is free or already holds their very prompt."""
        blocked: set[tuple[str, str]] = set()
        still: deque[_Branch] = deque()
        while self._waiting:
            branch = self._waiting.popleft()
            name = _lane_name(branch.query)
            lane = self._lanes.get(name)
            joins = lane is not None and bool(lane.running) and lane.prompt == branch.prompt
            if (
                name in blocked
                or (lane is not None and lane.running and not joins)
                or not (joins or self._make_room(name, branch))
            ):
                blocked.add(name)
                still.append(branch)
                continue
            lane = self._lanes.setdefault(name, _Lane())
            if joins:
                branch.reused = len(branch.prompt) - len(_last_prompt_token(branch))
            else:
                self._lanes.move_to_end(name)
                branch.reused = _retarget(lane, branch)
                lane.ngrams.extend(lane.pending)
                branch.prefilled = len(lane.pending)
            lane.running.append(branch)
            self._begin(lane, branch)
        self._waiting = still

    def _make_room(self, name: tuple[str, str], branch: _Branch) -> bool:
        """Make room for a query; false while others, that are being answered, need it."""
        asked = branch.query.elicitation
        need = self._token_bytes * 2 * (len(branch.prompt) + asked.trace_tokens + asked.action_tokens)
        others = {held: lane for held, lane in self._lanes.items() if held != name}
        while sum(lane.nbytes for lane in others.values()) + need > self._limits.cache_bytes:
            idle = next((held for held, lane in others.items() if not lane.running), None)
            if idle is None:
                break
            del others[idle], self._lanes[idle]
        if need + sum(lane.nbytes for lane in others.values()) > self._limits.cache_bytes and others:
            return False
        self._lanes.setdefault(name, _Lane()).reserved_bytes = need
        return True

    def _spans(self) -> list[tuple[TokenSpan, _Lane, _Branch | None]]:
        """What the next pass computes: all continuations, then pieces of prompts as far as there is room.

        After the last piece of a prompt its continuations come in the same pass.
        """
        lanes = [lane for lane in self._lanes.values() if lane.running]
        share = self._limits.max_draft_tokens // max(1, sum(len(lane.running) for lane in lanes))
        spans = [span for lane in lanes if not lane.pending for span in self._continued(lane, 0, share)]
        room = self._limits.max_tokens_per_forward - sum(len(span.ids) for span, _, _ in spans)
        for lane in lanes:
            if lane.pending and room > 0:
                piece = lane.pending[: self._limits.prefill_chunk]
                spans.append((TokenSpan(piece, lane.cache), lane, None))
                room -= len(piece)
                if len(piece) == len(lane.pending):
                    spans += self._continued(lane, len(piece), share)
        return spans

    def _continued(self, lane: _Lane, ahead: int, share: int) -> list[tuple[TokenSpan, _Lane, _Branch | None]]:
        spans: list[tuple[TokenSpan, _Lane, _Branch | None]] = []
        for branch in lane.running:
            branch.draft = self._draft(branch, share)
            wanted = range(branch.continuation.logit_rows + len(branch.draft), 0, -1)
            spans.append((TokenSpan(branch.pending + branch.draft, branch.cache, lane.cache, ahead, wanted), lane, branch))
        return spans

    def _draft(self, branch: _Branch, share: int) -> list[int]:
        """Tokens that may follow; never more than the budget allows, nor into another block of keys."""
        if branch.lookup is None:
            return []
        left = -(branch.cache.length + len(branch.pending)) % BLOCK
        return branch.lookup.draft(min(branch.continuation.tokens_left - 1, left, max(_FREE, share)))

    def _forward(self, spans: Sequence[tuple[TokenSpan, _Lane, _Branch | None]]) -> None:
        try:
            logits = forward(self._model, [span for span, _, _ in spans])
        except Exception as error:
            if len(spans) == 1:
                _, lane, branch = spans[0]
                for failed in [branch] if branch is not None else list(lane.running):
                    self._end(lane, failed, error_decision(error))
                self._forget(lane)
                return
            for span, lane, branch in spans:  # Whoever fails alone has failed.
                if branch is None or branch in lane.running:
                    span.prefix_pending = 0  # What it continues was computed just now.
                    self._forward([(span, lane, branch)])
            return
        for (span, lane, whose), rows in zip(spans, logits, strict=True):
            self._token_bytes = self._token_bytes or span.cache.nbytes // _capacity(span.cache)
            if whose is None:
                lane.ids += span.ids
                del lane.pending[: len(span.ids)]
            else:
                whose.ids += span.ids
                self._take_logits(lane, whose, rows)

    def _take_logits(self, lane: _Lane, branch: _Branch, logits: Any) -> None:
        """Take the next token and those that were guessed right, or the scores of given ones."""
        passage = branch.continuation
        if passage.ask.forced is not None:
            self._advance(lane, branch, passage.score(logits))
            return
        said, right = None, 0
        for row in logits:
            said = passage.append_token(row)
            if said is not None or right == len(branch.draft) or passage.ids[-1] != branch.draft[right]:
                break
            right += 1
        if wrong := len(branch.draft) - right:
            branch.cache.length -= wrong
            del branch.ids[-wrong:]
        if said is not None:
            self._advance(lane, branch, said)
            return
        branch.pending = passage.ids[-1:]
        if branch.lookup is not None:
            branch.lookup.learn(passage.ids[-1 - right :], len(branch.draft))

    def _advance(self, lane: _Lane, branch: _Branch, said: Generation) -> None:
        """Let a query's program go on, to its next question or to its end."""
        try:
            ask = branch.program.send(said)
        except StopIteration as end:
            told = replace(
                end.value,
                prompt_tokens=len(branch.prompt),
                reused_tokens=branch.reused,
                prefilled_tokens=branch.prefilled,
                dropped_observations=branch.dropped,
            )
            self._end(lane, branch, told)
        except Exception as error:
            self._end(lane, branch, error_decision(error))
        else:
            branch.continuation = self._continuation(branch.query, ask)
            self._begin(lane, branch)

    def _begin(self, lane: _Lane, branch: _Branch) -> None:
        """Set a branch on its passage, keeping what it can of what it has computed."""
        passage = branch.continuation
        branch.prefill = _last_prompt_token(branch) + prefill_ids(self._chat, passage.ask.prefill)
        kept = min(common_prefix(branch.ids, branch.prefill), len(branch.prefill) - 1)
        given = passage.ask.forced is not None
        branch.ids = branch.ids[:kept]
        branch.cache.length = kept
        branch.pending = branch.prefill[kept:] + (passage.ids[:-1] if given else [])
        branch.prefilled += len(branch.pending)
        branch.lookup = PromptLookup(lane.ngrams, branch.prefill) if self._limits.speculative and not given else None

    def _end(self, lane: _Lane, branch: _Branch, decision: Decision) -> None:
        lane.running.remove(branch)
        lane.ngrams.extend([*branch.prefill, *branch.continuation.ids])
        self._done.append((branch.key, decision))

    def _forget(self, lane: _Lane) -> None:
        """Drop what a lane holds, once nobody uses it."""
        if not lane.running:
            self._lanes = OrderedDict((name, held) for name, held in self._lanes.items() if held is not lane)


def _lane_name(query: Query) -> tuple[str, str]:
    """Queries of one lane share a growing prompt: with prefill both modes do."""
    return query.episode, query.mode if query.elicitation.style == "template" else ""


def _last_prompt_token(branch: _Branch) -> list[int]:
    """The last token of the prompt, where a branch has to compute it: nothing was opened whose logits would tell what comes."""
    return [] if opening_tag(branch.query) else branch.prompt[-1:]


def _retarget(lane: _Lane, branch: _Branch) -> int:
    """Set a free lane on a new prompt, keeping what it can; gives the number of tokens kept."""
    target = branch.prompt[: len(branch.prompt) - len(_last_prompt_token(branch))]
    kept = common_prefix(lane.ids, target)
    lane.ids = lane.ids[:kept]
    lane.cache.length = kept
    lane.pending = target[kept:]
    lane.prompt = branch.prompt
    return kept


def _capacity(entries: KVCache) -> int:
    return int(next(iter(entries._layers.values()))[0].shape[1])
