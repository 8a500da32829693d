"""An agent's answers at a state, in both modes. Invariant: both answers are to the same prompt; actions are canonical."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from cotbench.agents.base import Agent, needs_of
from cotbench.agents.decisions import decide_or_errors, own_trace
from cotbench.failure import failure_fields
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.replay import shown_actions
from cotbench.probes.states import ProbeState, StateAnswer, StateKey
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.prompting.query import Decision, Query, derive_seed

_EPISODES = 4
"""Tasks in a group, for each episode that keeps the agent busy."""


def state_query(state: ProbeState, mode: Mode, setting: ProbeSetting, agent: Agent) -> Query:
    """Return the query of a state in a mode.

    Args:
        state: the state.
        mode: "prompt" or "cot".
        setting: states, elicitation and seed of the measurement.
        agent: the agent to be queried; the expert's action is filled in where it needs one, the admissible actions where it or
            the elicitation does.

    Raises:
        EngineError: the elicitation needs the admissible actions, and they are not known.
    """
    needs = needs_of(agent)
    return Query(
        episode=state.task,
        env=setting.states.env,
        task=state.task,
        step=state.step,
        mode=mode,
        dialogue=state.dialogue,
        elicitation=setting.elicitation,
        seed=derive_seed(setting.seed, state.task, mode, state.step),
        admissible_actions=shown_actions(setting, state, needed="admissible_actions" in needs),
        expert_action=state.action if "expert_action" in needs else None,
    )


def batches(states: Sequence[ProbeState], agent: Agent) -> Iterator[list[ProbeState]]:
    """Yield the states in groups large enough to keep an agent busy.

    Args:
        states: the states; those of one task stay together, so that their prompts share a prefix.
        agent: its `batch`, the number of episodes that keep it busy, sets the size of a group.
    """
    by_task: dict[str, list[ProbeState]] = {}
    for state in states:
        by_task.setdefault(state.task, []).append(state)
    tasks = iter(by_task.values())
    at_once = _EPISODES * max(1, getattr(agent, "batch", 1))
    while some := list(islice(tasks, at_once)):
        yield [state for states_ in some for state in states_]


def ask_both_modes(agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting) -> list[tuple[Decision, Decision]]:
    """Return the decisions of both modes at each state, (prompt, CoT); a failure is an error in the decision."""
    queries = [state_query(state, mode, setting, agent) for state in states for mode in MODES]
    decisions = decide_or_errors(agent, queries)
    return list(zip(decisions[::2], decisions[1::2], strict=True))


def answers_for(agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting) -> Mapping[StateKey, StateAnswer]:
    """Return the agent's answers at the states.

    Args:
        agent: the agent; queried only at the states whose answers are not in `setting.answers`.
        states: the states.
        setting: known answers, elicitation and seed of the measurement.

    Returns:
        An answer for each state, by its key; a failure is an error in the answer.
    """
    found = {state.key: setting.answers[state.key] for state in states if state.key in setting.answers}
    missing = [state for state in states if state.key not in found]
    for some in batches(missing, agent):
        for state, (prompt, cot) in zip(some, ask_both_modes(agent, some, setting), strict=True):
            found[state.key] = StateAnswer(
                prompt_action=setting.canonical(prompt.action),
                cot_action=setting.canonical(cot.action),
                trace=own_trace(cot, setting.elicitation.tags),
                trace_truncated=cot.trace_truncated,
                **failure_fields(prompt, cot),
            )
    return found
