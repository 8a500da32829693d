"""The protocol of an agent. Invariant: a batch of queries goes in, a batch of decisions comes out, in the same order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

from cotbench.json_text import replace_surrogates
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query


@runtime_checkable
class Agent(Protocol):
    """Anything that answers queries with decisions.

    Three attributes are optional. `needs`, a set of "admissible_actions" and "expert_action", makes a run fill these fields of
    its queries. `describe()` returns a dict for the manifest: what exactly answered (model, revision, device, ...).
    `require(elicitation)` raises before a run begins where the agent cannot be asked that way.
    """

    name: str

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return a decision for each query, in order.

        A query that cannot be answered for a reason outside the model gets a `Decision` with `error`. An exception means that
        none of the batch could be answered.
        """

    def close(self) -> None:
        """Free what the agent holds."""


@runtime_checkable
class StreamingAgent(Agent, Protocol):
    """An agent that takes queries at any time and answers each as soon as it can, so that none waits for another.

    Attributes:
        batch: number of episodes that keep it busy.
    """

    batch: int

    def submit(self, key: Hashable, query: Query) -> None:
        """Take a query.

        Never waits, and never raises for what is wrong with the query: that becomes its decision's error.

        Args:
            key: names the query in `collect`.
            query: the query.
        """

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        """Return the decisions completed since the last call, with the keys of their queries.

        Computes, or waits for others to compute; with nothing submitted it returns an empty list at once.

        Args:
            wait: seconds to wait at most, where the computation is done elsewhere.
        """


def needs_of(agent: Agent) -> frozenset[str]:
    """Return the fields that the agent needs in its queries beyond the dialogue."""
    return frozenset(getattr(agent, "needs", ()))


def describe_agent(agent: Agent) -> dict[str, Any]:
    """Return an agent's description for the manifest, beside its spec."""
    description = getattr(agent, "describe", None)
    return dict(replace_surrogates(description())) if callable(description) else {}


def check_elicitation(agent: Agent, elicitation: Elicitation) -> None:
    """Raise an error where an agent cannot be asked this way.

    Raises:
        CotbenchError: the agent's `require` refuses the elicitation.
    """
    check = getattr(agent, "require", None)
    if callable(check):
        check(elicitation)
