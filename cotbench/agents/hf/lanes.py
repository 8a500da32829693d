"""What the engine holds of the queries that it answers: a lane for each episode's prompt, a branch for each query. Invariant: a
cache holds exactly the tokens `ids` beside it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from cotbench.agents.hf.block_pool import PagedCache
from cotbench.agents.hf.continuation import Continuation
from cotbench.agents.hf.kv_cache import KVCache
from cotbench.agents.hf.prompt_lookup import NgramIndex, PromptLookup
from cotbench.agents.tokenization.token_ids import common_prefix
from cotbench.prompting.generation import AnswerProgram, Generation, opening_tag
from cotbench.prompting.query import Query

Key = Hashable
"""Names a query; its decision comes back under it."""

LaneKey = tuple[str, int, str]
"""Names a lane: episode, rollout, and the mode where the modes share no prompt."""


@dataclass(slots=True, eq=False)
class Branch:
    """One query on its lane: the answer program, and the continuation of the lane's prompt that it waits for.

    Attributes:
        key: names the query.
        prompt: ids of the query's prompt.
        dropped: how many observations did not fit into it.
        program: makes the decision; it waits for `continuation`.
        continuation: what is being generated.
        history: the generations that are complete, each with the ids of the turn before it.
        cache: the branch's own KV cache, which holds the tokens `ids`.
        reused: how many tokens of the prompt were not computed again.
        prefilled: how many tokens were computed that had not been generated.
        prefill: what the continuation begins after: the assistant's turn so far, and before it the prompt's last token where
            the turn is empty.
        pending: tokens that the next pass computes; `draft` comes after them.
        lookup: drafts tokens; None where nothing is drafted.
    """

    key: Key
    query: Query
    prompt: list[int]
    dropped: int
    program: AnswerProgram
    continuation: Continuation
    history: list[tuple[list[int], Generation]] = field(default_factory=list)
    cache: KVCache | PagedCache = field(default_factory=KVCache)
    ids: list[int] = field(default_factory=list)
    reused: int = 0
    prefilled: int = 0
    prefill: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    lookup: PromptLookup | None = None
    draft: list[int] = field(default_factory=list)

    @property
    def turn(self) -> list[int]:
        """Return the ids of the assistant's turn before the continuation."""
        return self.prefill[len(last_prompt_token(self)) :]


@dataclass(slots=True, eq=False)
class Lane:
    """The prompt of one episode, the branches that continue it, and what was read and written in the episode so far.

    Attributes:
        ids: what has been computed of the prompt; `cache` holds it.
        pending: what comes next of it.
        prompt: the whole prompt that is being continued.
        running: the branches that are being answered.
        ngrams: index over the episode's tokens, for drafts.
        reserved_bytes: memory that the running branches may come to need.
    """

    ids: list[int] = field(default_factory=list)
    cache: KVCache | PagedCache = field(default_factory=KVCache)
    pending: list[int] = field(default_factory=list)
    running: list[Branch] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    ngrams: NgramIndex = field(default_factory=NgramIndex)
    reserved_bytes: int = 0

    @property
    def nbytes(self) -> int:
        """Return the memory that it holds, or may come to hold while it is in use."""
        return max(self.held_bytes, self.reserved_bytes) if self.running else self.held_bytes

    @property
    def held_bytes(self) -> int:
        """Return the memory that it holds now."""
        return sum(branch.cache.nbytes for branch in self.running) + self.cache.nbytes


def lane_key(query: Query) -> LaneKey:
    """Name a query's lane: queries of one lane share a growing prompt; both modes do where they are shown the same."""
    return query.episode, query.rollout, "" if query.elicitation.shares_prompt else query.mode


def last_prompt_token(branch: Branch) -> list[int]:
    """Return the prompt's last token where a branch has to compute it: where no tag is opened whose logits are the first."""
    return [] if opening_tag(branch.query) else branch.prompt[-1:]


def continues_prompt(branch: Branch, other: Branch) -> bool:
    """Return whether a branch continues the same tokens of a prompt as another one, so that a lane's cache serves both."""
    return branch.prompt == other.prompt and last_prompt_token(branch) == last_prompt_token(other)


def retarget(lane: Lane, branch: Branch) -> int:
    """Set a free lane on a new prompt, keeping what it can; return the number of tokens kept."""
    target = branch.prompt[: len(branch.prompt) - len(last_prompt_token(branch))]
    prefix_length = common_prefix(lane.ids, target)
    lane.ids = lane.ids[:prefix_length]
    lane.cache.length = prefix_length
    lane.pending = target[prefix_length:]
    lane.prompt = branch.prompt
    return prefix_length
