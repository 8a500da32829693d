"""The teacher that takes an expert's actions and has a model write the reasoning to them. Invariant: the action is always the
expert's; a trace that reveals that the action was given is refused, and its step has none.

The note with the action is part of the query to the model alone, never of the episode, so it is in no training data.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from cotbench.agents.base import (
    Agent,
    StreamingAgent,
    check_elicitation,
    close_agent,
    describe_agent,
    needs_of,
    uses_elicitation,
)
from cotbench.agents.decisions import decide_all, tagged_decision
from cotbench.agents.registry import make_agent
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import TAGS
from cotbench.prompting.query import Decision, Query

NOTE = (
    "Note: The best next action is: {action}\n"
    "Write the reasoning that leads to it from what was seen so far; do not mention this note."
)
"""Appended to the last observation; part of the agent's description in the manifest."""

BETRAYAL = re.compile(
    r"\bnotes?\b|\bhints?\b|\bbest next action (?:is|was|would be)\b|\b(?:was|been|am|were) (?:told|instructed|informed)\b"
    r"|\bas (?:instructed|told|suggested|given|indicated)\b|\b(?:suggested|given|provided|indicated|stated) action\b",
    re.IGNORECASE,
)
"""Words of a model that repeats the note instead of reasoning; strict, so that some good traces are refused too."""


def expert_fill(agent: str, *, inner: str = "") -> ExpertFill:
    """The expert's actions, with traces that another agent writes (expert-fill:AGENT).

    Args:
        agent: the spec of the agent that writes the traces, without options: `expert-fill:hf:smollm2`.
        inner: its options, with commas between them: `expert-fill:hf:smollm2?inner=threads=1,dtype=float32`.

    Raises:
        CotbenchError: there is no such agent, or it cannot be built.
    """
    writer = make_agent(f"{agent}?{inner.replace(',', '&')}" if inner else agent)
    return StreamingExpertFill(writer) if isinstance(writer, StreamingAgent) else ExpertFill(writer)


class ExpertFill:
    """Agent that takes the expert's action, and in CoT mode a trace to it that another agent, the writer, writes.

    Args:
        writer: the agent that writes the traces.
    """

    name = "expert-fill"

    def __init__(self, writer: Agent) -> None:
        self._writer = writer
        self.needs = frozenset({"expert_action"}) | needs_of(writer)
        self.uses_elicitation = uses_elicitation(writer)

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return one decision a query; where the expert knows no action, an error. The writer gets all queries in one call."""
        immediate = [_immediate_decision(query) for query in queries]
        unanswered = [query for query, decision in zip(queries, immediate, strict=True) if decision is None]
        written = iter(decide_all(self._writer, [with_note(query) for query in unanswered]) if unanswered else ())
        return [decision or filled(query, next(written)) for query, decision in zip(queries, immediate, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Return the writer's description, with the note."""
        return {**describe_agent(self._writer), "note": NOTE}

    def require(self, elicitation: Elicitation) -> None:
        """Raise the writer's error where it does not support an elicitation."""
        check_elicitation(self._writer, elicitation)

    def close(self) -> None:
        """Free the writer's resources."""
        close_agent(self._writer)


class StreamingExpertFill(ExpertFill):
    """Variant of `ExpertFill` around a writer that accepts queries at any time, and so is kept busy."""

    def __init__(self, writer: StreamingAgent) -> None:
        super().__init__(writer)
        self._streaming = writer
        self.batch = writer.batch
        self._waiting: dict[Hashable, Query] = {}
        self._completed: list[tuple[Hashable, Decision]] = []

    def submit(self, key: Hashable, query: Query) -> None:
        """Accept a query; `collect` returns its decision under this key.

        Args:
            key: identifies the query for the caller.
            query: with the expert's action.
        """
        decision = _immediate_decision(query)
        if decision is not None:
            self._completed.append((key, decision))
            return
        self._streaming.submit(key, with_note(query))
        self._waiting[key] = query

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        """Return the decisions that were completed since the last call, with their keys.

        Args:
            wait: seconds to wait for the first one, where none is complete.
        """
        completed, self._completed = self._completed, []
        written = self._streaming.collect(0.0 if completed else wait)
        return completed + [(key, filled(self._waiting.pop(key), decision)) for key, decision in written]


def _immediate_decision(query: Query) -> Decision | None:
    """Return the decision of a query that needs no writer, else None.

    No writer is needed where no trace is wanted, one is given, or there is no action to reason for.
    """
    if query.expert_action is None:
        return Decision("", error=f"the expert has no action at step {query.step} of {query.task}")
    if query.mode == "prompt" or query.given_trace is not None:
        return tagged_decision(query, query.expert_action, query.given_trace)
    return None


def with_note(query: Query) -> Query:
    """Return the writer's query: the same, with the note after the last observation."""
    *earlier, last = query.dialogue.observations
    noted = f"{last}\n\n{NOTE.format(action=query.expert_action)}"
    return replace(query, dialogue=replace(query.dialogue, observations=(*earlier, noted)))


def filled(query: Query, written: Decision) -> Decision:
    """Return the expert's action with the trace that was written to it; without one, and `format_ok` false, where it is
    refused.

    Args:
        query: the query as the harness made it.
        written: the writer's decision on the query with the note.
    """
    if written.error is not None or query.expert_action is None:
        return written
    trace = (written.trace or "").strip()
    if not trace or written.trace_truncated or BETRAYAL.search(trace) or any(tag in trace for tag in TAGS):
        return replace(written, action=query.expert_action, trace="", format_ok=False, action_logprob=None)
    ours = tagged_decision(query, query.expert_action, trace)
    return replace(written, action=ours.action, trace=trace, raw=ours.raw, format_ok=True, action_logprob=None)
