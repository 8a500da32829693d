"""Agent `counter`: counts when it may think, and says the same number again and again when it may not."""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.agents.decisions import tagged_decision
from cotbench.agents.registry import register_agent
from cotbench.prompting.query import Decision, Query


@register_agent("counter")
class Counter:
    """Counts in CoT mode; in prompt mode it says one number.

    Args:
        without_thinking: the number that it says in prompt mode.
    """

    name = "counter"

    def __init__(self, *, without_thinking: int = 1) -> None:
        self._usual = without_thinking

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return one decision a query."""
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        number = self._usual if query.mode == "prompt" else len(query.dialogue.actions) + 1
        return tagged_decision(query, f"say {number}", f"{number - 1} numbers were said, so {number} is next.")

    def close(self) -> None:
        """Free nothing."""
