"""What an agent is. Invariant: a batch of queries goes in, a batch of decisions comes out, in the same order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query


@runtime_checkable
class Agent(Protocol):
    """Anything that decides.

    Three attributes are optional. `needs`, a set of "admissible_actions" and "expert_action", makes a run fill these fields of
    its queries. `describe()` returns a dict for the manifest: what exactly answered (model, revision, device, ...).
    `require(elicitation)` raises before a run begins where the agent cannot be asked that way.
    """

    name: str

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """One decision a query, in order.

        A query that cannot be answered for a reason outside the model gets a `Decision` with `error`. An exception means that
        none of the batch could be answered.
        """

    def close(self) -> None:
        """Free what the agent holds."""


@runtime_checkable
class StreamingAgent(Agent, Protocol):
    """An agent that takes queries in at any time and answers each as soon as it can, so that none waits for another.

    Attributes:
        batch: how many episodes keep it busy.
    """

    batch: int

    def submit(self, key: Hashable, query: Query) -> None:
        """Take a query in; never waits, never raises for what is wrong with the query: that becomes its decision's error."""

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        """The decisions that were completed since the last call, under the keys of their queries.

        Computes, or waits for others to compute, but no longer than about `wait` seconds where nothing is to be computed here;
        with nothing submitted it returns an empty list at once.
        """


def needs_of(agent: Agent) -> frozenset[str]:
    """What the agent wants to find in its queries beyond the dialogue."""
    return frozenset(getattr(agent, "needs", ()))


def describe_agent(agent: Agent) -> dict[str, Any]:
    """What the manifest says of an agent beside its spec."""
    description = getattr(agent, "describe", None)
    return dict(description()) if callable(description) else {}


def check_elicitation(agent: Agent, elicitation: Elicitation) -> None:
    """Let an agent say that it cannot be asked this way.

    Raises:
        CotbenchError: it says so.
    """
    check = getattr(agent, "require", None)
    if callable(check):
        check(elicitation)
