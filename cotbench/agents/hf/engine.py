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

from cotbench.agents.decisions import failure
from cotbench.agents.hf.attention import BLOCK, Entries, Span, forward
from cotbench.agents.hf.continuation import Passage
from cotbench.agents.hf.prompt_lookup import Drafts, Memory
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import common_prefix, opened_ids
from cotbench.prompting.generation import Ask, Program, Written, open_prefix, program
from cotbench.prompting.query import Decision, Query

Key = Hashable

_FREE = 3
"""Guesses that cost nothing: passes are filled up to a multiple of four rows anyway."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is done at once.

    Attributes:
        cache_bytes: memory for keys and values; lanes not in use are dropped beyond it, the least recently used first.
        piece: tokens of one prompt in a pass.
        tokens: tokens in a pass, more or less.
        guesses: how many of them may be guesses where many continue at once.
        drafts: whether to guess.
    """

    cache_bytes: int
    piece: int = 256
    tokens: int = 1024
    guesses: int = 64
    drafts: bool = True


@dataclass(slots=True, eq=False)
class _Branch:
    """One continuation of a lane's prompt.

    Attributes:
        passage: what is being written.
        ids: what has been computed of it; `entries` has their keys.
        opened: what stands before the passage.
        pending: what comes next; `guess` may come after it.
        prefilled: how many tokens were computed that had not been generated.
    """

    key: Key
    query: Query
    prompt: list[int]
    program: Program
    passage: Passage
    dropped: int
    entries: Entries = field(default_factory=Entries)
    ids: list[int] = field(default_factory=list)
    reused: int = 0
    prefilled: int = 0
    opened: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    drafts: Drafts | None = None
    guess: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Lane:
    """The prompt of one episode, who continues it, and what was read and written in it so far.

    Attributes:
        whole: the prompt that is being continued; of it `ids` have been computed, and `pending` come next.
        reserved: memory that the running branches may come to need.
    """

    ids: list[int] = field(default_factory=list)
    entries: Entries = field(default_factory=Entries)
    pending: list[int] = field(default_factory=list)
    running: list[_Branch] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    reserved: int = 0

    @property
    def nbytes(self) -> int:
        """Memory that it holds, or may come to hold while it is in use."""
        held = sum(branch.entries.nbytes for branch in self.running) + self.entries.nbytes
        return max(held, self.reserved) if self.running else held


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
        limits: Limits,
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
            running = program(query)
            passage = self._passage(query, next(running))
        except Exception as error:  # A prompt too long, a broken template: this query's failure alone.
            self._done.append((key, failure(error)))
            return
        self._waiting.append(_Branch(key, query, prompt, running, passage, dropped))

    def _passage(self, query: Query, ask: Ask) -> Passage:
        return Passage(ask, query.elicitation, self._chat, self._end_ids)

    def step(self) -> list[tuple[Key, Decision]]:
        """One pass of the model for all that wait; gives the answers that it completed."""
        self._admit()
        spans = self._spans()
        if spans:
            self._pass(spans)
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
            joins = lane is not None and bool(lane.running) and lane.whole == branch.prompt
            if name in blocked or (lane is not None and lane.running and not joins) or not (joins or self._room(name, branch)):
                blocked.add(name)
                still.append(branch)
                continue
            lane = self._lanes.setdefault(name, _Lane())
            if joins:
                branch.reused = len(branch.prompt) - len(_left_over(branch))
            else:
                self._lanes.move_to_end(name)
                branch.reused = _turn(lane, branch)
                lane.memory.extend(lane.pending)
                branch.prefilled = len(lane.pending)
            lane.running.append(branch)
            self._begin(lane, branch)
        self._waiting = still

    def _room(self, name: tuple[str, str], branch: _Branch) -> bool:
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
        self._lanes.setdefault(name, _Lane()).reserved = need
        return True

    def _spans(self) -> list[tuple[Span, _Lane, _Branch | None]]:
        """What the next pass computes: all continuations, then pieces of prompts as far as there is room.

        After the last piece of a prompt its continuations come in the same pass.
        """
        lanes = [lane for lane in self._lanes.values() if lane.running]
        share = self._limits.guesses // max(1, sum(len(lane.running) for lane in lanes))
        spans = [span for lane in lanes if not lane.pending for span in self._continued(lane, 0, share)]
        room = self._limits.tokens - sum(len(span.ids) for span, _, _ in spans)
        for lane in lanes:
            if lane.pending and room > 0:
                piece = lane.pending[: self._limits.piece]
                spans.append((Span(piece, lane.entries), lane, None))
                room -= len(piece)
                if len(piece) == len(lane.pending):
                    spans += self._continued(lane, len(piece), share)
        return spans

    def _continued(self, lane: _Lane, ahead: int, share: int) -> list[tuple[Span, _Lane, _Branch | None]]:
        spans: list[tuple[Span, _Lane, _Branch | None]] = []
        for branch in lane.running:
            branch.guess = self._guess(branch, share)
            wanted = range(branch.passage.rows + len(branch.guess), 0, -1)
            spans.append((Span(branch.pending + branch.guess, branch.entries, lane.entries, ahead, wanted), lane, branch))
        return spans

    def _guess(self, branch: _Branch, share: int) -> list[int]:
        """Tokens that may follow; never more than the budget allows, nor into another block of keys."""
        if branch.drafts is None:
            return []
        left = -(branch.entries.length + len(branch.pending)) % BLOCK
        return branch.drafts.guess(min(branch.passage.left - 1, left, max(_FREE, share)))

    def _pass(self, spans: Sequence[tuple[Span, _Lane, _Branch | None]]) -> None:
        try:
            logits = forward(self._model, [span for span, _, _ in spans])
        except Exception as error:
            if len(spans) == 1:
                _, lane, branch = spans[0]
                for failed in [branch] if branch is not None else list(lane.running):
                    self._end(lane, failed, failure(error))
                self._forget(lane)
                return
            for span, lane, branch in spans:  # Whoever fails alone has failed.
                if branch is None or branch in lane.running:
                    span.ahead = 0  # What it continues was computed just now.
                    self._pass([(span, lane, branch)])
            return
        for (span, lane, whose), rows in zip(spans, logits, strict=True):
            self._token_bytes = self._token_bytes or span.own.nbytes // _capacity(span.own)
            if whose is None:
                lane.ids += span.ids
                del lane.pending[: len(span.ids)]
            else:
                whose.ids += span.ids
                self._read(lane, whose, rows)

    def _read(self, lane: _Lane, branch: _Branch, logits: Any) -> None:
        """Take the next token and those that were guessed right, or the scores of given ones."""
        passage = branch.passage
        if passage.ask.given is not None:
            self._advance(lane, branch, passage.scored(logits))
            return
        said, right = None, 0
        for row in logits:
            said = passage.choose(row)
            if said is not None or right == len(branch.guess) or passage.ids[-1] != branch.guess[right]:
                break
            right += 1
        if wrong := len(branch.guess) - right:
            branch.entries.length -= wrong
            del branch.ids[-wrong:]
        if said is not None:
            self._advance(lane, branch, said)
            return
        branch.pending = passage.ids[-1:]
        if branch.drafts is not None:
            branch.drafts.learn(passage.ids[-1 - right :], len(branch.guess))

    def _advance(self, lane: _Lane, branch: _Branch, said: Written) -> None:
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
            self._end(lane, branch, failure(error))
        else:
            branch.passage = self._passage(branch.query, ask)
            self._begin(lane, branch)

    def _begin(self, lane: _Lane, branch: _Branch) -> None:
        """Set a branch on its passage, keeping what it can of what it has computed."""
        passage = branch.passage
        branch.opened = _left_over(branch) + opened_ids(self._chat, passage.ask.opened)
        kept = min(common_prefix(branch.ids, branch.opened), len(branch.opened) - 1)
        given = passage.ask.given is not None
        branch.ids = branch.ids[:kept]
        branch.entries.length = kept
        branch.pending = branch.opened[kept:] + (passage.ids[:-1] if given else [])
        branch.prefilled += len(branch.pending)
        branch.drafts = Drafts(lane.memory, branch.opened) if self._limits.drafts and not given else None

    def _end(self, lane: _Lane, branch: _Branch, decision: Decision) -> None:
        lane.running.remove(branch)
        lane.memory.extend([*branch.opened, *branch.passage.ids])
        self._done.append((branch.key, decision))

    def _forget(self, lane: _Lane) -> None:
        """Drop what a lane holds, once nobody uses it."""
        if not lane.running:
            self._lanes = OrderedDict((name, held) for name, held in self._lanes.items() if held is not lane)


def _lane_name(query: Query) -> tuple[str, str]:
    """Queries of one lane share a growing prompt: with prefill both modes do."""
    return query.episode, query.mode if query.elicitation.style == "template" else ""


def _left_over(branch: _Branch) -> list[int]:
    """The last token of the prompt, where a branch has to compute it: nothing was opened whose logits would tell what comes."""
    return [] if open_prefix(branch.query) else branch.prompt[-1:]


def _turn(lane: _Lane, branch: _Branch) -> int:
    """Set a free lane on a new prompt, keeping what it can; gives the number of tokens kept."""
    target = branch.prompt[: len(branch.prompt) - len(_left_over(branch))]
    kept = common_prefix(lane.ids, target)
    lane.ids = lane.ids[:kept]
    lane.entries.length = kept
    lane.pending = target[kept:]
    lane.whole = branch.prompt
    return kept


def _capacity(entries: Entries) -> int:
    return int(next(iter(entries._layers.values()))[0].shape[1])
