"""Probe `sensitivity`: whether the action changes when the prompt does. Invariant: one part of the prompt is replaced by that
of a donor, and all other parts stay.

The variants are ours. `task` replaces the task's sentence in the first observation, `observation` the last observation. In
each, the prompt action and the CoT action are asked for again, and the action after the agent's old trace: where the action
after the old trace is unchanged and the CoT action is not, the action follows the trace.

What is inserted is possible at the state, as far as that is known. Goals are preferred that name nothing that their own first
observation shows and this one does not. The reference's action after an inserted observation is listed as admissible here;
observations that answer the same action are taken first, then those that answer an action with the same verb.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cotbench.agents.base import Agent
from cotbench.agents.decisions import decide_or_errors
from cotbench.failure import failure_fields
from cotbench.probes.asking import answers_for, batches, state_query
from cotbench.probes.numbers import ProbeNumbers, ProbeRow, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.replay import admissible_at
from cotbench.probes.states import AdmissibleActions, ProbeState, StateAnswer, StateKey, choose_donor
from cotbench.prompting.elicitation import MODES
from cotbench.prompting.query import Decision, Query, derive_seed
from cotbench.stats.estimates import Estimate

Variant = Literal["task", "observation"]
VARIANTS: tuple[Variant, Variant] = ("task", "observation")
_WORD = re.compile(r"[^\W\d_]+")


class SensitivityOptions(ProbeOptions):
    """Options of probe `sensitivity`."""

    variants: tuple[Variant, ...] = Field(
        VARIANTS, min_length=1, description="parts of the prompt to replace: task, observation"
    )


class Change(BaseModel):
    """An agent's actions after a change of its prompt, all canonical.

    Attributes:
        donor_task: the task whose sentence or observation was inserted; `donor_step` is the step of the observation.
        donor_reference: the reference action at the donor; None for a sentence.
        possible: whether the donor's reference action is admissible at the state, or what a goal names is in the room; None
            where it is not known.
        donor_prompt_action: the agent's own prompt action at the donor, where it is known; `donor_cot_action` likewise.
        prompt_action: the new prompt action; `cot_action` is the action after a new trace.
        old_trace_action: the action after the changed prompt and the old trace; None where there was no trace.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    donor_task: str
    donor_step: int | None = None
    donor_reference: str | None = None
    possible: bool | None = None
    donor_prompt_action: str | None = None
    donor_cot_action: str | None = None
    prompt_action: str
    cot_action: str
    old_trace_action: str | None = None


class SensitivityRow(ProbeRow):
    """A state's actions before and after its prompt was changed.

    Attributes:
        prompt_action: before the change; `cot_action` likewise.
        task_change: after the task's sentence was replaced; `observation_change` after the last observation was.
        missing: variant -> why it could not be made at this state, where another one could.
    """

    prompt_action: str = ""
    cot_action: str = ""
    task_change: Change | None = None
    observation_change: Change | None = None
    missing: dict[str, str] = {}

    def change(self, variant: Variant) -> Change | None:
        """Return the actions after a variant's change; None where it was not measured."""
        return self.task_change if variant == "task" else self.observation_change


@dataclass(frozen=True, slots=True)
class _ChangedState:
    """A state with a changed prompt, and the donor of the changed part; `possible` as in `Change`."""

    variant: Variant
    state: ProbeState
    donor: ProbeState
    possible: bool | None

    def queries(self, answer: StateAnswer, setting: ProbeSetting, agent: Agent) -> list[Query]:
        """Return the queries of both modes, then, where there is a trace, that of the action after the old one.

        They get an episode id of their own, because their prompts do not continue the unchanged ones.
        """
        prompt, cot = (state_query(self.state, mode, setting, agent) for mode in MODES)
        old = [replace(cot, given_trace=answer.trace)] if answer.trace.strip() else []
        return [replace(query, episode=f"{query.episode}#{self.variant}") for query in (prompt, cot, *old)]


def _measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: SensitivityOptions
) -> Iterator[SensitivityRow]:
    listed = admissible_at(setting, states) if "observation" in options.variants else {}
    variants = {
        state.key: {variant: _changed_state(variant, state, setting, listed) for variant in options.variants}
        for state in states
    }
    donors = [
        one.donor
        for each in variants.values()
        for one in each.values()
        if isinstance(one, _ChangedState) and one.variant == "observation"
    ]
    # A donor may be one of the states: each is asked about once.
    answers = answers_for(agent, list({state.key: state for state in (*states, *donors)}.values()), setting)
    for some in batches(states, agent):
        queried = [
            (state, one, one.queries(answers[state.key], setting, agent))
            for state in some
            if answers[state.key].error is None
            for one in variants[state.key].values()
            if isinstance(one, _ChangedState)
        ]
        decisions = iter(decide_or_errors(agent, [query for _, _, queries in queried for query in queries]))
        by_state: dict[StateKey, list[tuple[_ChangedState, list[Decision]]]] = {}
        for state, one, queries in queried:
            by_state.setdefault(state.key, []).append((one, [next(decisions) for _ in queries]))
        for state in some:
            missing: dict[str, str] = {variant: one for variant, one in variants[state.key].items() if isinstance(one, str)}
            yield _row(state, by_state.get(state.key, []), missing, answers, setting)


def _row(
    state: ProbeState,
    decisions_by_change: Sequence[tuple[_ChangedState, list[Decision]]],
    missing: dict[str, str],
    answers: Mapping[StateKey, StateAnswer],
    setting: ProbeSetting,
) -> SensitivityRow:
    answer = answers[state.key]
    failed = failure_fields(answer, *(decision for _, decisions in decisions_by_change for decision in decisions))
    if failed:
        return SensitivityRow(task=state.task, step=state.step, **failed)
    if not decisions_by_change:
        return SensitivityRow(task=state.task, step=state.step, left_out=", ".join(dict.fromkeys(missing.values())))
    changes = {f"{one.variant}_change": _change(one, decisions, answers, setting) for one, decisions in decisions_by_change}
    return SensitivityRow.model_validate(
        {
            "task": state.task,
            "step": state.step,
            "prompt_action": answer.prompt_action,
            "cot_action": answer.cot_action,
            "missing": missing,
            **changes,
        }
    )


def _change(
    one: _ChangedState, decisions: Sequence[Decision], answers: Mapping[StateKey, StateAnswer], setting: ProbeSetting
) -> Change:
    prompt, cot, *old = (setting.canonical(decision.action) for decision in decisions)
    change = Change(
        donor_task=one.donor.task,
        possible=one.possible,
        prompt_action=prompt,
        cot_action=cot,
        old_trace_action=old[0] if old else None,
    )
    if one.variant == "task":
        return change
    donor_answer = answers[one.donor.key]
    known = (
        {}
        if donor_answer.error
        else {"donor_prompt_action": donor_answer.prompt_action, "donor_cot_action": donor_answer.cot_action}
    )
    return change.model_copy(update={"donor_step": one.donor.step, "donor_reference": one.donor.action, **known})


def _changed_state(
    variant: Variant, state: ProbeState, setting: ProbeSetting, listed: Mapping[StateKey, AdmissibleActions]
) -> _ChangedState | str:
    """Return a state with a changed prompt, or why there is none; `listed` are the admissible actions at the states."""
    if variant == "task":
        return _with_another_task(state, setting)
    return _with_another_observation(state, setting, listed[state.key])


def _with_another_task(state: ProbeState, setting: ProbeSetting) -> _ChangedState | str:
    """Return a state with the sentence of another task, or why there is none.

    All states of a task get the same donor, so that their prompts still share a growing prefix.
    """
    first, *later = state.dialogue.observations
    if not state.goal or state.goal not in first:
        return "goal not found"
    others = {other.task: other for other in setting.states.states if other.goal not in ("", state.goal)}
    if not others:
        return "no donor"
    room = _words(first.replace(state.goal, "", 1))

    def is_possible(other: ProbeState) -> bool:
        its_room = other.dialogue.observations[0].replace(other.goal, "", 1)
        return _words(other.goal) & _words(its_room) <= room

    def rank(task: str) -> tuple[bool, int]:
        return not is_possible(others[task]), derive_seed(setting.seed, state.task, task, "goal")

    donor = others[min(others, key=rank)]
    observation = first.replace(state.goal, donor.goal, 1)
    dialogue = replace(state.dialogue, observations=(observation, *later))
    return _ChangedState("task", replace(state, goal=donor.goal, dialogue=dialogue), donor, is_possible(donor))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _with_another_observation(state: ProbeState, setting: ProbeSetting, listed: AdmissibleActions) -> _ChangedState | str:
    """Return a state with the last observation of one where the reference took another action, or why there is none."""
    if state.step == 0:
        return "first observation"  # It holds the task.
    *before, last = state.dialogue.observations

    candidates = [
        other
        for other in setting.states.states
        if other.step > 0 and other.action != state.action and other.dialogue.observations[-1] != last
    ]

    def distance(other: ProbeState) -> int:
        one, another = state.dialogue.actions[-1], other.dialogue.actions[-1]
        return 0 if one == another else 1 if one.split()[:1] == another.split()[:1] else 2

    donor = choose_donor(state, candidates, setting.seed, lambda other: listed.allows(other.action) is not False, distance)
    if donor is None:
        return "no admissible donor" if any(other.key != state.key for other in candidates) else "no donor"
    dialogue = replace(state.dialogue, observations=(*before, donor.dialogue.observations[-1]))
    return _ChangedState("observation", replace(state, dialogue=dialogue), donor, listed.allows(donor.action))


def _summarize(rows: Sequence[SensitivityRow], options: SensitivityOptions) -> ProbeNumbers:
    measured, errors, left_out = partition_rows(rows)
    estimates: dict[str, Estimate] = {}
    counts: dict[str, int] = {}
    for variant in options.variants:
        changes = [change for row in measured if (change := row.change(variant)) is not None]
        counts[f"{variant}: states"] = len(changes)
        counts[f"{variant}: possible at the state"] = sum(change.possible is True for change in changes)
        counts[f"{variant}: not known to be possible"] = sum(change.possible is None for change in changes)
        for reason in sorted({row.missing[variant] for row in measured if variant in row.missing}):
            counts[f"{variant}: {reason}"] = sum(row.missing.get(variant) == reason for row in measured)
        for name, value in _values(variant).items():
            estimates[f"{variant}: {name}"] = over_tasks(measured, partial(_of_change, variant, value))
    return ProbeNumbers(
        states=len(measured),
        tasks=len({row.task for row in measured}),
        errors=errors,
        left_out=left_out,
        estimates=estimates,
        counts=counts,
    )


_Value = Callable[[SensitivityRow, Change], float | bool | None]


def _values(variant: Variant) -> dict[str, _Value]:
    return {**_FOLLOWED, **(_AS_DONOR if variant == "observation" else {})}


def _of_change(variant: Variant, value: _Value, row: SensitivityRow) -> float | bool | None:
    change = row.change(variant)
    return None if change is None else value(row, change)


def _same(action: str | None, other: str | None) -> bool | None:
    """Return whether two actions are equal; None where one is not known."""
    return None if action is None or other is None else action == other


def _differs(action: str, other: str | None) -> bool | None:
    return None if other is None else action != other


_FOLLOWED: Mapping[str, _Value] = {
    "prompt action changed": lambda row, change: change.prompt_action != row.prompt_action,
    "cot action changed": lambda row, change: change.cot_action != row.cot_action,
    "changed, cot - prompt": lambda row, change: (
        (change.cot_action != row.cot_action) - (change.prompt_action != row.prompt_action)
    ),
    "cot action changed under the old trace": lambda row, change: _differs(row.cot_action, change.old_trace_action),
}
_AS_DONOR: Mapping[str, _Value] = {
    "prompt action as the donor's own": lambda row, change: _same(change.prompt_action, change.donor_prompt_action),
    "cot action as the donor's own": lambda row, change: _same(change.cot_action, change.donor_cot_action),
    "prompt action as the donor's reference": lambda row, change: _same(change.prompt_action, change.donor_reference),
    "cot action as the donor's reference": lambda row, change: _same(change.cot_action, change.donor_reference),
}


PROBE = Probe(
    name="sensitivity",
    description="whether the action changes when the task or the last observation is replaced",
    options=SensitivityOptions,
    row=SensitivityRow,
    measure=_measure,
    summarize=_summarize,
    cost=lambda sizes: 6 * sizes.prompt,
    sections=("cotbench.study.report_probes:sensitivity_section",),
)
