"""What an agent is. Invariant: a batch of queries goes in, a batch of decisions comes out, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from cotbench.query import Decision, Query


@runtime_checkable
class Agent(Protocol):
    """Anything that decides.

    Two attributes are optional. `needs`, a set of "admissible_actions" and "expert_action", makes a run fill these fields of
    its queries. `describe()` returns a dict for the manifest: what exactly answered (model, revision, device, ...).
    """

    name: str

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """One decision a query, in order.

        A query that cannot be answered for a reason outside the model gets a `Decision` with `error`. An exception means that
        none of the batch could be answered.
        """

    def close(self) -> None:
        """Free what the agent holds."""


def needs_of(agent: Agent) -> frozenset[str]:
    """What the agent wants to find in its queries beyond the dialogue."""
    return frozenset(getattr(agent, "needs", ()))


def describe(agent: Agent) -> dict[str, Any]:
    """What the manifest says of an agent beside its spec."""
    description = getattr(agent, "describe", None)
    return dict(description()) if callable(description) else {}
