"""The `random` agent, the lower bound: it draws from the admissible actions. Invariant: its draw depends on the query's seed
alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from cotbench.agents.decisions import tagged_decision
from cotbench.prompting.query import Decision, Query


class RandomAgent:
    """Draws uniformly from the admissible actions; its trace, in CoT mode, says so."""

    name = "random"
    needs = frozenset({"admissible_actions"})

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return a drawn action for each query."""
        return [self._draw(query) for query in queries]

    def _draw(self, query: Query) -> Decision:
        choices = query.admissible_actions or ()
        if not choices:
            return Decision("", error="no admissible actions to draw from")
        action = random.Random(query.seed).choice(choices)
        return tagged_decision(query, action, f"I draw one of {len(choices)} admissible actions.")

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
