"""Probe `conflict`: the action after the trace of another state. Invariant: all queries of a state have the same prompt and
differ in the given trace alone; the donor's action can be executed at the state, where the environment lists what can be.

Source: paper, "conflicting trace". Ours are the control traces, and two conditions. The donor's action is not the prompt action
either: an answer equal to it then shows that the trace was followed. And it is listed as admissible at the receiving state: a
model that does not follow a trace to an impossible action shows nothing about traces. Where admissible actions are not known
(`unchecked`), that condition is dropped. Donors of the same task type are preferred.

The headline is the truncation nearest to 0.5, because a whole trace may spell its action; the trace without its last sentence,
where the choice usually stands, is the second way to leave the choice out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cotbench.agents.base import Agent
from cotbench.agents.decisions import decide_or_errors
from cotbench.failure import failure_fields
from cotbench.probes.asking import answers_for, batches, state_query
from cotbench.probes.numbers import Curve, ProbeNumbers, ProbeRow, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.replay import admissible_at
from cotbench.probes.states import AdmissibleActions, ProbeState, StateAnswer, StateKey, choose_donor

ConflictOutcome = Literal["kept", "followed", "other"]
CONFLICT_OUTCOMES: tuple[ConflictOutcome, ...] = ("kept", "followed", "other")
HEADLINE = 0.5
"""The truncation of the headline number; the nearest one where an option leaves it out."""
_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")


class ConflictOptions(ProbeOptions):
    """Options of probe `conflict`."""

    truncations: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.25, 0.5, 0.75, 1.0), min_length=1, description="fractions of the trace's words that are given"
    )

    @field_validator("truncations")
    @classmethod
    def _in_order(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(value)))

    @property
    def headline(self) -> float:
        """The truncation of the headline number."""
        return self.truncations[headline_index(self.truncations)]


class ConflictRow(ProbeRow):
    """Actions at one state after several given traces, all canonical.

    Attributes:
        prompt_action: the prompt action; `own_action` is the CoT action, after the agent's own trace.
        donor_action: the CoT action at the donor, another state of the set, named by `donor_task` and `donor_step`.
        donor_same_type: whether the donor's task is of the same type.
        unchecked: why it is not known whether the donor's action can be executed here; None where it can be.
        conflicting: the action after the donor's trace, one for each of the `truncations`.
        conflicting_unconcluded: the action after the donor's trace without its last sentence; None where it has only one.
        own: the action after the agent's own trace, one for each of the `truncations`.
        unconcluded: the action after the agent's own trace without its last sentence; None where it has only one.
        empty: the action after an empty trace.
    """

    prompt_action: str = ""
    own_action: str = ""
    donor_task: str = ""
    donor_step: int = 0
    donor_action: str = ""
    donor_same_type: bool = False
    unchecked: str | None = None
    truncations: tuple[float, ...] = ()
    conflicting: tuple[str, ...] = ()
    conflicting_unconcluded: str | None = None
    own: tuple[str, ...] = ()
    unconcluded: str | None = None
    empty: str = ""

    @property
    def consistent(self) -> bool:
        """True where the prompt action is the CoT action."""
        return self.prompt_action == self.own_action

    @property
    def headline(self) -> int:
        """The index of the headline's truncation."""
        return headline_index(self.truncations)

    def outcome(self, at: int) -> ConflictOutcome:
        """Return the outcome of the donor's trace at one of the truncations, by its index."""
        return self._outcome(self.conflicting[at])

    @property
    def unconcluded_outcome(self) -> ConflictOutcome | None:
        """The outcome of the donor's trace without its last sentence; None where it has only one."""
        return None if self.conflicting_unconcluded is None else self._outcome(self.conflicting_unconcluded)

    def _outcome(self, action: str) -> ConflictOutcome:
        return "kept" if action == self.own_action else "followed" if action == self.donor_action else "other"


def headline_index(truncations: Sequence[float]) -> int:
    """Return the index of the truncation nearest to `HEADLINE`; of two equally near, the shorter one."""
    return min(range(len(truncations)), key=lambda at: abs(truncations[at] - HEADLINE))


def truncate_words(trace: str, share: float) -> str:
    """Return the beginning of a trace.

    Args:
        trace: the trace.
        share: share of its words to keep, from 0 to 1; their number is rounded up.
    """
    ends = [word.end() for word in _WORD.finditer(trace)]
    count = math.ceil(round(share * len(ends), 9))
    return trace if count >= len(ends) else trace[: ends[count - 1]] if count else ""


def drop_last_sentence(trace: str) -> str | None:
    """Return a trace without its last sentence (or line); None where that would leave nothing."""
    breaks = [found.start() for found in _SENTENCE.finditer(trace.rstrip()) if trace[: found.start()].strip()]
    return trace[: breaks[-1]] if breaks else None


@dataclass(frozen=True, slots=True)
class _Case:
    """One state, its answer, its donor, and the traces that are given in its queries."""

    state: ProbeState
    answer: StateAnswer
    donor: ProbeState
    donor_answer: StateAnswer
    unchecked: str | None
    conflicting: tuple[str, ...]
    own: tuple[str, ...]

    @property
    def conflicting_unconcluded(self) -> str | None:
        """The donor's trace without its last sentence."""
        return drop_last_sentence(self.donor_answer.trace)

    @property
    def unconcluded(self) -> str | None:
        """The own trace without its last sentence."""
        return drop_last_sentence(self.answer.trace)

    @property
    def traces(self) -> list[str]:
        """The distinct traces to query."""
        more = [trace for trace in (self.unconcluded, self.conflicting_unconcluded) if trace is not None]
        return list(dict.fromkeys((*self.conflicting, *self.own, *more, "")))


def _measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: ConflictOptions
) -> Iterator[ConflictRow]:
    answers = answers_for(agent, setting.states.states, setting)
    admissible = admissible_at(setting, states)
    for some in batches(states, agent):
        found = [_case(state, answers, admissible[state.key], setting, options) for state in some]
        cases = [one for one in found if isinstance(one, _Case)]
        queries = [
            replace(state_query(case.state, "cot", setting, agent), given_trace=trace)
            for case in cases
            for trace in case.traces
        ]
        decisions = iter(decide_or_errors(agent, queries))
        for one in found:
            if isinstance(one, ConflictRow):
                yield one
                continue
            by_trace = {trace: next(decisions) for trace in one.traces}
            failed = failure_fields(*by_trace.values())
            if failed:
                yield ConflictRow(task=one.state.task, step=one.state.step, **failed)
            else:
                yield _row(one, {trace: setting.canonical(decision.action) for trace, decision in by_trace.items()}, options)


def _case(
    state: ProbeState,
    answers: Mapping[StateKey, StateAnswer],
    admissible: AdmissibleActions,
    setting: ProbeSetting,
    options: ConflictOptions,
) -> _Case | ConflictRow:
    """Return the queries' case of a state, or its row where there is nothing to query."""
    answer = answers[state.key]
    if answer.error is not None:
        return ConflictRow(task=state.task, step=state.step, **failure_fields(answer))
    if not answer.trace.strip():
        return ConflictRow(task=state.task, step=state.step, left_out="no trace")

    def led_elsewhere(other: ProbeState) -> bool:
        given = answers[other.key]
        elsewhere = given.cot_action not in ("", answer.cot_action, answer.prompt_action)
        return given.error is None and elsewhere and bool(given.trace.strip())

    candidates = [other for other in setting.states.states if other.key != state.key and led_elsewhere(other)]
    donor = choose_donor(
        state,
        candidates,
        setting.seed,
        lambda other: admissible.allows(answers[other.key].cot_action) is not False,
        lambda other: int(other.task_type != state.task_type),
    )
    if donor is None:
        left_out = "no admissible donor" if candidates else "no donor"
        return ConflictRow(task=state.task, step=state.step, left_out=left_out)
    donor_answer = answers[donor.key]
    return _Case(
        state,
        answer,
        donor,
        donor_answer,
        unchecked=admissible.reason,
        conflicting=tuple(truncate_words(donor_answer.trace, share) for share in options.truncations),
        own=tuple(truncate_words(answer.trace, share) for share in options.truncations),
    )


def _row(case: _Case, actions: Mapping[str, str], options: ConflictOptions) -> ConflictRow:
    def after(trace: str | None) -> str | None:
        return None if trace is None else actions[trace]

    return ConflictRow(
        task=case.state.task,
        step=case.state.step,
        prompt_action=case.answer.prompt_action,
        own_action=case.answer.cot_action,
        donor_task=case.donor.task,
        donor_step=case.donor.step,
        donor_action=case.donor_answer.cot_action,
        donor_same_type=case.donor.task_type == case.state.task_type,
        unchecked=case.unchecked,
        truncations=options.truncations,
        conflicting=tuple(actions[trace] for trace in case.conflicting),
        conflicting_unconcluded=after(case.conflicting_unconcluded),
        own=tuple(actions[trace] for trace in case.own),
        unconcluded=after(case.unconcluded),
        empty=actions[""],
    )


def _summarize(rows: Sequence[ConflictRow], options: ConflictOptions) -> ProbeNumbers:
    measured, errors, left_out = partition_rows(rows)
    consistent = [row for row in measured if row.consistent]
    revised = [row for row in measured if not row.consistent]
    curves = {name: _curve(measured, value, options) for name, value in _OUTCOMES.items()}
    curves |= {f"{name}, consistent": _curve(consistent, _OUTCOMES[name], options) for name in ("kept", "followed")}
    curves |= {f"{name}, revised": _curve(revised, value, options) for name, value in _OUTCOMES.items()}
    curves["own trace: kept"] = _curve(measured, lambda row, at: row.own[at] == row.own_action, options)
    cuts = dict.fromkeys((options.headline, options.truncations[-1]))
    estimates = {
        f"{name} at {share:g}": curve.values[options.truncations.index(share)]
        for share in cuts
        for name, curve in curves.items()
    } | {f"last sentence cut: {outcome}": over_tasks(measured, partial(_unconcluded, outcome)) for outcome in CONFLICT_OUTCOMES}
    estimates |= {
        "own trace, last sentence cut: kept": over_tasks(
            measured, lambda row: None if row.unconcluded is None else row.unconcluded == row.own_action
        ),
        "empty trace: kept": over_tasks(measured, lambda row: row.empty == row.own_action),
        "empty trace: as prompt action": over_tasks(measured, lambda row: row.empty == row.prompt_action),
    }
    return ProbeNumbers(
        states=len(measured),
        tasks=len({row.task for row in measured}),
        errors=errors,
        left_out=left_out,
        estimates=estimates,
        curves=curves,
        counts={
            "consistent": len(consistent),
            "revised": len(revised),
            "donor of the same task": sum(row.donor_task == row.task for row in measured),
            "donor of the same task type": sum(row.donor_same_type for row in measured),
            "donor's action admissible": sum(row.unchecked is None for row in measured),
            "donor's action not checked": sum(row.unchecked is not None for row in measured),
            "donor's trace of one sentence": sum(row.conflicting_unconcluded is None for row in measured),
            "own trace of one sentence": sum(row.unconcluded is None for row in measured),
        },
        notes=_notes(measured),
    )


def _notes(rows: Sequence[ConflictRow]) -> tuple[str, ...]:
    """Return a sentence on the states at which it is not known whether the donor's action is admissible."""
    reasons = Counter(row.unchecked for row in rows if row.unchecked is not None)
    if not reasons:
        return ()
    return (
        f"at {sum(reasons.values())} of {len(rows)} states it is not known whether the donor's action can be executed: "
        f"{reasons.most_common(1)[0][0]}",
    )


def _unconcluded(outcome: ConflictOutcome, row: ConflictRow) -> bool | None:
    return None if row.unconcluded_outcome is None else row.unconcluded_outcome == outcome


_OUTCOMES: Mapping[str, Callable[[ConflictRow, int], bool]] = {
    "kept": lambda row, at: row.outcome(at) == "kept",
    "followed": lambda row, at: row.outcome(at) == "followed",
    "other": lambda row, at: row.outcome(at) == "other",
    "as prompt action": lambda row, at: row.conflicting[at] == row.prompt_action,
}


def _curve(rows: Sequence[ConflictRow], value: Callable[[ConflictRow, int], bool], options: ConflictOptions) -> Curve:
    """Return the share of states for which `value` holds, over the truncations."""
    values = (over_tasks(rows, partial(_at, value, at)) for at in range(len(options.truncations)))
    return Curve(x="truncation", at=options.truncations, values=tuple(values))


def _at(value: Callable[[ConflictRow, int], bool], at: int, row: ConflictRow) -> bool:
    return value(row, at)


PROBE = Probe(
    name="conflict",
    description="whether the action follows a trace from another state, or stays what the prompt decided",
    options=ConflictOptions,
    row=ConflictRow,
    measure=_measure,
    summarize=_summarize,
    cost=lambda sizes: sizes.prompt + 13 * sizes.answer,
    sections=("cotbench.study.report_conflict:conflict_section",),
)
