"""Prompt actions by rank: each admissible action is scored by its log-probability, and the most probable one is the answer.
Invariant: the candidates of a state are queries with the same prompt, so that an engine computes the prompt once; the answer
depends on their scores alone, not on the order in which they come back.

The score is the natural logarithm of the probability of the whole string, "action</action>", after the opening action tag: the
sum over its tokens as it is tokenized there, closing tag included, rounded to four digits as in every decision. The closing tag
makes it a proper probability of that action rather than of all that begin with it. Nothing is divided by the length: longer
actions are less probable only as far as the model says so. Equal scores: the first in sorted order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cotbench.failure import failure_in
from cotbench.prompting.generation import is_ranked
from cotbench.prompting.query import Decision, Query

NO_LOGPROB = "the agent tells no log-probability of a given action"
_NO_CANDIDATES = "no admissible actions to rank"


def candidate_queries(query: Query) -> list[Query]:
    """Return one query for each candidate of a ranked query, in sorted order; empty where there are none."""
    return [replace(query, given_action=action) for action in sorted(set(query.admissible_actions or ()))]


def ranked_decision(query: Query, decisions: Sequence[Decision]) -> Decision:
    """Return the decision for the most probable candidate.

    Args:
        query: the ranked query.
        decisions: the answers to its `candidate_queries`, in their order.

    Returns:
        The candidate with the highest `action_logprob`, well-formed by construction; an error where a candidate has no score.
    """
    candidates = [one.given_action or "" for one in candidate_queries(query)]
    if not candidates:
        return Decision("", error=_NO_CANDIDATES)
    failure = failure_in(*decisions)
    if failure is not None:
        return Decision("", **failure.fields)
    scores = [decision.action_logprob for decision in decisions]
    known = [score for score in scores if score is not None]
    if len(known) < len(candidates):
        return Decision("", error=NO_LOGPROB)
    best = known.index(max(known))
    tags = query.elicitation.tags
    before = f"{tags.think_open}{tags.think_close}\n" if decisions[best].raw.startswith(tags.think_open) else ""
    return replace(
        decisions[best],
        action=candidates[best],
        raw=f"{before}{tags.action_open}{candidates[best]}{tags.action_close}",
        format_ok=True,
        reused_tokens=min(decision.reused_tokens for decision in decisions),
        prefilled_tokens=sum(decision.prefilled_tokens for decision in decisions),
        discarded_tokens=sum(decision.discarded_tokens for decision in decisions),
    )


def expanded(queries: Sequence[Query]) -> list[Query]:
    """Return the queries with each ranked one replaced by those of its candidates."""
    return [one for query in queries for one in (candidate_queries(query) if is_ranked(query) else [query])]


def merged(queries: Sequence[Query], decisions: Sequence[Decision]) -> list[Decision]:
    """Return a decision for each query from those for the `expanded` queries."""
    answers = iter(decisions)
    found = []
    for query in queries:
        if is_ranked(query):
            found.append(ranked_decision(query, [next(answers) for _ in candidate_queries(query)]))
        else:
            found.append(next(answers))
    return found


class Answering(Protocol):
    """What takes queries and returns decisions under their keys; a `StreamingAgent` is one."""

    def submit(self, key: Hashable, query: Query) -> None:
        """Take a query."""

    def collect(self, wait: float) -> Sequence[tuple[Hashable, Decision]]:
        """Return the decisions completed since the last call."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """The key of one candidate's query."""

    key: Hashable
    place: int


@dataclass(slots=True)
class _Ranking:
    """A ranked query while its candidates are scored."""

    query: Query
    decisions: list[Decision | None] = field(default_factory=list)


class RankedAnswers:
    """Answer ranked queries by an agent that scores given actions; pass the others on.

    Args:
        agent: the agent, or what stands for it.
    """

    def __init__(self, agent: Answering) -> None:
        self._agent = agent
        self._rankings: dict[Hashable, _Ranking] = {}
        self._done: list[tuple[Hashable, Decision]] = []

    def submit(self, key: Hashable, query: Query) -> None:
        """Take a query; of a ranked one, submit those of its candidates."""
        if not is_ranked(query):
            self._agent.submit(key, query)
            return
        candidates = candidate_queries(query)
        if not candidates:
            self._done.append((key, ranked_decision(query, ())))
            return
        self._rankings[key] = _Ranking(query, [None] * len(candidates))
        for place, candidate in enumerate(candidates):
            self._agent.submit(_Candidate(key, place), candidate)

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        """Return the decisions completed since the last call; a ranking is complete with its last candidate."""
        done, self._done = self._done, []
        for key, decision in self._agent.collect(0.0 if done else wait):
            ranking = self._rankings.get(key.key) if isinstance(key, _Candidate) else None
            if ranking is None or not isinstance(key, _Candidate):
                done.append((key, decision))
                continue
            ranking.decisions[key.place] = decision
            answers = [one for one in ranking.decisions if one is not None]
            if len(answers) == len(ranking.decisions):
                del self._rankings[key.key]
                done.append((key.key, ranked_decision(ranking.query, answers)))
        return done
