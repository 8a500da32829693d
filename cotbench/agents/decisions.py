"""Ask an agent and check what it returns. Invariant: whatever an agent returns or raises, what leaves here are decisions that
can be written to a file and read again, in bounded texts; a failure is a decision with an error that says whose failure it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from pydantic import TypeAdapter, ValidationError

from cotbench.agents.base import Agent, agent_code, scores_actions
from cotbench.agents.ranking import expanded, merged
from cotbench.bounds import ERROR_CHARS, TEXT_CHARS, TextBudget, bounded
from cotbench.errors import AgentBugError
from cotbench.failure import agent_bug, failure_of
from cotbench.json_text import replace_surrogates
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN, Tags
from cotbench.prompting.query import Decision, Query

_DECISION = TypeAdapter(Decision)
_COUNTS = (
    *("prompt_tokens", "reused_tokens", "prefilled_tokens"),
    *("trace_tokens", "action_tokens", "discarded_tokens", "dropped_observations"),
)


def error_decision(error: BaseException) -> Decision:
    """Return the decision of a query that an exception left without an answer.

    An agent that catches an exception itself and returns this says that something outside of its code failed.
    """
    return Decision("", **failure_of(error).fields)


def decide_all(agent: Agent, queries: Sequence[Query]) -> list[Decision]:
    """Return an agent's decisions, one for each query; one that scores actions is asked a ranked query candidate by candidate.

    Raises:
        AgentBugError: its code fails, or it returns something else than a decision for each query.
        Exception: what it raises on purpose (`CotbenchError`), or the machine does (`OSError`, `MemoryError`).
    """
    ranks = scores_actions(agent)
    wanted = expanded(queries) if ranks else list(queries)
    with agent_code(agent):
        answers = agent.decide(wanted)
        decisions = list(answers) if isinstance(answers, Iterable) else None
    if decisions is None:
        raise agent_bug(agent, f"returned a {type(answers).__name__} from decide, not a list of decisions")
    if len(decisions) != len(wanted):
        raise agent_bug(agent, f"answered {len(decisions)} of {len(wanted)} queries")
    checked = [check_decision(agent, decision) for decision in decisions]
    return merged(queries, checked) if ranks else checked


def decide_or_errors(agent: Agent, queries: Sequence[Query]) -> list[Decision]:
    """Return an agent's decisions; whatever it raises becomes the error of every query."""
    try:
        return decide_all(agent, queries)
    except Exception as error:
        return [error_decision(error)] * len(queries)


def check_decision(agent: Agent, decision: object) -> Decision:
    """Return a decision that can be written to a file and read again; an error where the agent returned anything else."""
    try:
        return _checked(agent, decision)
    except AgentBugError as error:
        return error_decision(error)


def _checked(agent: Agent, decision: object) -> Decision:
    if not isinstance(decision, Decision):
        raise agent_bug(agent, f"returned a {type(decision).__name__}, not a Decision")
    fields = {name: _text(name, value) if isinstance(value, str) else value for name, value in asdict(decision).items()}
    try:
        # Through JSON, because that is how it will be read again.
        checked = _DECISION.validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise agent_bug(agent, f"returned a Decision with a bad {place}: {first['msg']}") from error
    except TypeError as error:
        raise agent_bug(agent, f"returned a Decision that is not data: {error}") from error
    for name in _COUNTS:
        if getattr(checked, name) < 0:
            raise agent_bug(agent, f"returned a Decision with a bad {name}: {getattr(checked, name)} is below 0")
    return checked


def _text(field: str, text: str) -> str:
    return str(replace_surrogates(bounded(text, ERROR_CHARS if field in ("error", "traceback") else TEXT_CHARS)))


def bounded_decision(decision: Decision, texts: TextBudget) -> Decision:
    """Return a decision whose texts fit into what is left of its episode's budget."""
    trace = None if decision.trace is None else texts.take(decision.trace)
    return replace(decision, action=texts.take(decision.action), trace=trace, raw=texts.take(decision.raw))


def own_trace(decision: Decision, tags: Tags) -> str:
    """Return the trace as it stood between the tags; `Decision.trace` is without the blanks around it.

    Args:
        decision: a CoT decision.
        tags: of its elicitation.
    """
    verbatim, closed, _ = decision.raw.partition(tags.think_open)[2].partition(tags.think_close)
    trace = decision.trace or ""
    return verbatim if closed and verbatim.strip() == trace.strip() else trace


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
