"""Probe `wording`: both actions of each state under every wording of the instruction on the answer format. Invariant: the
queries of a state differ in that instruction alone, so that numbers under two wordings are paired.

It tells how far alignment and kept form are the model's and how far the sentence's: an effect that is there under one wording
only is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pydantic import BaseModel, ConfigDict, Field

from cotbench.agents.base import Agent
from cotbench.agents.decisions import decide_or_errors
from cotbench.failure import failure_fields
from cotbench.probes.asking import batches, state_query
from cotbench.probes.numbers import ProbeNumbers, ProbeRow, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.states import ProbeState
from cotbench.prompting.elicitation import MODES
from cotbench.prompting.query import Decision
from cotbench.prompting.wordings import WORDINGS, Wording


class WordingOptions(ProbeOptions):
    """Options of probe `wording`."""

    wordings: tuple[Wording, ...] = Field(
        WORDINGS, min_length=1, description="wordings of the instruction: default, brief, rules, question"
    )


class WordedAnswer(BaseModel):
    """Both actions of a state under one wording, canonical.

    Attributes:
        prompt_format_ok: whether every required tag was written; `cot_format_ok` likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_action: str
    cot_action: str
    prompt_format_ok: bool
    cot_format_ok: bool


class WordingRow(ProbeRow):
    """A state's answers by wording.

    Attributes:
        reference: the reference action.
    """

    reference: str = ""
    worded: dict[Wording, WordedAnswer] = Field(default_factory=dict)


def _measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: WordingOptions
) -> Iterator[WordingRow]:
    wordings = tuple(dict.fromkeys(options.wordings))
    forms = {wording: setting.elicitation.model_copy(update={"wording": wording}) for wording in wordings}
    for group in batches(states, agent):
        # Wording by wording: the states of a task share a growing prompt only within one.
        queries = [
            replace(state_query(state, mode, setting, agent), elicitation=forms[wording])
            for wording in wordings
            for state in group
            for mode in MODES
        ]
        answers = iter(decide_or_errors(agent, queries))
        by_wording = {wording: [(next(answers), next(answers)) for _ in group] for wording in wordings}
        for place, state in enumerate(group):
            pairs = {wording: by_wording[wording][place] for wording in wordings}
            failed = failure_fields(*(decision for pair in pairs.values() for decision in pair))
            if failed:
                yield WordingRow(task=state.task, step=state.step, **failed)
            else:
                worded = {wording: _answer(*pair, setting) for wording, pair in pairs.items()}
                yield WordingRow(task=state.task, step=state.step, reference=state.action, worded=worded)


def _answer(prompt: Decision, cot: Decision, setting: ProbeSetting) -> WordedAnswer:
    return WordedAnswer(
        prompt_action=setting.canonical(prompt.action),
        cot_action=setting.canonical(cot.action),
        prompt_format_ok=prompt.format_ok,
        cot_format_ok=cot.format_ok,
    )


_NUMBERS: Mapping[str, Callable[[WordingRow, WordedAnswer], float]] = {
    "prompt exact": lambda row, answer: float(answer.prompt_action == row.reference),
    "cot exact": lambda row, answer: float(answer.cot_action == row.reference),
    "gap": lambda row, answer: float(answer.cot_action == row.reference) - float(answer.prompt_action == row.reference),
    "consistency": lambda row, answer: float(answer.prompt_action == answer.cot_action),
    "prompt format ok": lambda row, answer: float(answer.prompt_format_ok),
    "cot format ok": lambda row, answer: float(answer.cot_format_ok),
}
"""The numbers under a wording, by name."""

NUMBERS = tuple(_NUMBERS)


def _value(wording: Wording, name: str, row: WordingRow) -> float:
    return _NUMBERS[name](row, row.worded[wording])


def _spread(name: str, row: WordingRow) -> float:
    """Return the largest value of a row over its wordings minus the smallest."""
    values = [_value(wording, name, row) for wording in row.worded]
    return max(values) - min(values)


def _summarize(rows: Sequence[WordingRow], options: WordingOptions) -> ProbeNumbers:
    measured, errors, left_out = partition_rows(rows)
    estimates = {
        f"{wording}: {name}": over_tasks(measured, partial(_value, wording, name))
        for wording in dict.fromkeys(options.wordings)
        for name in _NUMBERS
    }
    for mode in MODES:
        name = f"{mode} exact"
        estimates[f"{mode} right under some wordings only"] = over_tasks(measured, partial(_spread, name))
    return ProbeNumbers(
        states=len(measured),
        tasks=len({row.task for row in measured}),
        errors=errors,
        left_out=left_out,
        estimates=estimates,
    )


PROBE = Probe(
    name="wording",
    description="both actions, and whether the format is kept, under several wordings of the instruction",
    options=WordingOptions,
    row=WordingRow,
    measure=_measure,
    summarize=_summarize,
    cost=lambda sizes: len(WORDINGS) * (sizes.prompt + 2 * sizes.answer),
    sections=("cotbench.study.report_elicitation:wording_section",),
)
