"""Ask an agent and check what it returns. Invariant: whatever an agent returns or raises, what leaves here are decisions that
can be written to a file and read again; a failure is a decision with an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from cotbench.agents.base import Agent
from cotbench.errors import AgentError, CotbenchError
from cotbench.json_text import replace_surrogates
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Decision, Query

_DECISION = TypeAdapter(Decision)


def error_decision(error: Exception) -> Decision:
    """Return the decision of a query that an exception left without an answer."""
    text = str(error) if isinstance(error, CotbenchError) else f"{type(error).__name__}: {error}"
    return Decision("", error=replace_surrogates(text))


def decide_all(agent: Agent, queries: Sequence[Query]) -> list[Decision]:
    """Return an agent's decisions, one for each query.

    Raises:
        Exception: whatever the agent raises; AgentError where their number is wrong.
    """
    decisions = list(agent.decide(queries))
    if len(decisions) != len(queries):
        raise AgentError(f"agent {agent.name} answered {len(decisions)} of {len(queries)} queries")
    return [check_decision(agent, decision) for decision in decisions]


def decide_or_errors(agent: Agent, queries: Sequence[Query]) -> list[Decision]:
    """Return an agent's decisions; whatever it raises becomes the error of every query."""
    try:
        return decide_all(agent, queries)
    except Exception as error:
        return [error_decision(error)] * len(queries)


def check_decision(agent: Agent, decision: object) -> Decision:
    """Return a decision that can be written to a file and read again; an error where the agent returned anything else."""
    if not isinstance(decision, Decision):
        return Decision("", error=f"agent {agent.name} returned a {type(decision).__name__}, not a Decision")
    fields = {name: replace_surrogates(value) if isinstance(value, str) else value for name, value in asdict(decision).items()}
    try:
        # Through JSON, because that is how it will be read again.
        return _DECISION.validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return Decision("", error=f"agent {agent.name} returned a Decision with a bad {place}: {first['msg']}")
    except TypeError as error:
        return Decision("", error=f"agent {agent.name} returned a Decision that is not data: {error}")


def tagged_decision(query: Query, action: str, trace: str | None) -> Decision:
    """Return a well-formed decision of an agent without a model.

    Args:
        query: the query.
        action: the action.
        trace: the agent's own trace; not used in prompt mode, or where the query gives one.
    """
    trace = None if query.mode == "prompt" else query.given_trace or trace
    reasoning = "" if trace is None else f"{THINK_OPEN}{trace}{THINK_CLOSE}\n"
    return Decision(action, trace, f"{reasoning}{ACTION_OPEN}{action}{ACTION_CLOSE}")
