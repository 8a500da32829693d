"""The `expert` agent, the upper bound: it takes the environment's expert's action. Invariant: where the expert knows no action,
that is an error, not a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.agents.decisions import tagged_decision
from cotbench.prompting.query import Decision, Query


class ExpertAgent:
    """Takes the expert's action, and in CoT mode writes a trace that names it."""

    name = "expert"
    needs = frozenset({"expert_action"})

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return the expert's action for each query."""
        return [self._follow(query) for query in queries]

    def _follow(self, query: Query) -> Decision:
        if query.expert_action is None:
            return Decision("", error=f"the expert has no action at step {query.step} of {query.task}")
        action = query.expert_action
        return tagged_decision(query, action, f"Step {query.step + 1}: the next thing to do for the task is to {action}.")

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
