"""The protocol of an agent, and calls of its optional parts. Invariant: a batch of queries goes in, a batch of decisions comes
out, in the same order; what an agent's code raises by mistake leaves here as an `AgentBugError`.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from pydantic_core import to_json

from cotbench.errors import AgentBugError, AgentError
from cotbench.failure import agent_bug, exception_line, modules_of, registered_code
from cotbench.json_text import replace_surrogates
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query

_log = logging.getLogger(__name__)


@runtime_checkable
class Agent(Protocol):
    """Anything that answers queries with decisions.

    Five attributes are optional. `needs`, a set of "admissible_actions" and "expert_action", makes a run fill these fields of
    its queries. `uses_elicitation` is True for an agent that asks and reads as `Query.elicitation` says; of any other a table
    says that it takes no elicitation, and names no fingerprint. `scores_actions` is True for an agent that answers
    `Query.given_action` with that action's log-probability, so that it can rank actions. `describe()` returns a dict for the
    manifest: what exactly answered (model, revision, device, ...). `require(elicitation)` raises before a run begins where the
    agent cannot be asked that way.
    """

    name: str

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return a decision for each query, in order.

        A query that cannot be answered for a reason outside of the agent (a server, the memory) gets a `Decision` with `error`;
        where that holds for the whole batch, `AgentError` may be raised instead. Any other exception counts as a bug of the
        agent, and no query of the batch has an answer.
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


def agent_code(agent: Agent) -> AbstractContextManager[None]:
    """Return a context in which what an agent raises by mistake becomes an `AgentBugError`."""
    return registered_code(f"agent {agent.name}", agent, AgentBugError)


def needs_of(agent: Agent) -> frozenset[str]:
    """Return the fields that the agent needs in its queries beyond the dialogue."""
    return frozenset(getattr(agent, "needs", ()))


def uses_elicitation(agent: Agent) -> bool:
    """Return whether the agent says that it asks and reads as the elicitation says."""
    return bool(getattr(agent, "uses_elicitation", False))


def scores_actions(agent: Agent) -> bool:
    """Return whether the agent says that it tells the log-probability of a given action."""
    return bool(getattr(agent, "scores_actions", False))


def describe_agent(agent: Agent) -> dict[str, Any]:
    """Return an agent's description for the manifest, beside its spec; a lone surrogate in it becomes a question mark.

    Raises:
        AgentBugError: its `describe` fails, or returns what cannot be written to a manifest.
    """
    describe = getattr(agent, "describe", None)
    if not callable(describe):
        return {}
    with agent_code(agent):
        described = describe()
    try:
        description: dict[str, Any] = replace_surrogates(dict(described))
        to_json(description)  # As the manifest is written.
    except (TypeError, ValueError) as error:
        raise agent_bug(agent, f"returned from describe what is no dict of plain data: {error}") from error
    return description


def check_elicitation(agent: Agent, elicitation: Elicitation) -> None:
    """Raise an error where an agent cannot be asked this way.

    Raises:
        AgentError: actions are to be ranked by an agent that scores none.
        CotbenchError: the agent's `require` refuses the elicitation.
        AgentBugError: its `require` fails.
    """
    if elicitation.prompt_action == "ranked" and uses_elicitation(agent) and not scores_actions(agent):
        raise AgentError(
            f"agent {agent.name} cannot give the log-probability of a given action, so it cannot rank actions: "
            "--prompt-elicitation bare or empty"
        )
    check = getattr(agent, "require", None)
    if callable(check):
        with agent_code(agent):
            check(elicitation)


def close_agent(agent: Agent) -> None:
    """Free what an agent holds. Where its `close` fails, what it answered stays valid: that is a warning."""
    try:
        agent.close()
    except Exception as error:
        _log.warning("agent %s failed while it was closed: %s", agent.name, exception_line(error, modules_of(agent)))
