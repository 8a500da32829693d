"""Probe `preference`: the one of a state's two actions that a judge prefers. Invariant: a judge sees no trace, and not which of
the two actions followed one.

Source: paper, "a judge's preference between the two actions at the same state".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from cotbench.agents.base import Agent, close_agent
from cotbench.agents.registry import make_agent, resolve
from cotbench.errors import UsageError
from cotbench.failure import failure_fields
from cotbench.flags import ELICITATION, TASKS, Flag
from cotbench.judge.gate import judge_gate
from cotbench.judge.judgement import Judgement, JudgeVerdict, preference
from cotbench.judge.question import Pair, Question, ask_judge, check_judge
from cotbench.probes.asking import answers_for
from cotbench.probes.numbers import ProbeNumbers, ProbeRow, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.states import ProbeState, StateAnswer
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import derive_seed

_ELICITATION_OPTIONS = ("trace_tokens", "action_tokens", "temperature", "observation_chars")
"""Options whose defaults are those of the judge's elicitation."""


class PreferenceOptions(ProbeOptions):
    """Options of probe `preference`."""

    judge: str | None = Field(None, description="the judge: any agent spec")
    limit: Annotated[int | None, Flag(names=("-n",), panel=TASKS, default="all")] = Field(
        None, ge=1, description="number of states to judge, drawn by the seed"
    )
    both_orders: Annotated[bool, Flag(panel=ELICITATION)] = Field(
        True, description="ask twice, with each action first once; otherwise once, in an order drawn by the seed"
    )
    seed: Annotated[int, Flag(panel=TASKS)] = Field(
        0, ge=0, description="seed of the draw of states and orders, and of the judge's sampling"
    )
    mode: Annotated[Mode, Flag(panel=ELICITATION)] = Field(
        "prompt", description="whether the judge answers at once (prompt) or reasons first (cot)"
    )
    style: Annotated[Literal["prefill", "template"], Flag(name="--elicitation-style", panel=ELICITATION)] = Field(
        "prefill", description="elicitation style of the judge: prefill or template"
    )
    trace_tokens: Annotated[int | None, Flag(panel=ELICITATION)] = Field(
        None, ge=1, description="token budget of the judge's reasoning; default: that of any trace"
    )
    action_tokens: Annotated[int | None, Flag(panel=ELICITATION)] = Field(
        None, ge=1, description="token budget of the judge's answer (one letter); default: 8"
    )
    temperature: Annotated[float | None, Flag(panel=ELICITATION)] = Field(
        None, ge=0, description="sampling temperature of the judge; default: 0, greedy decoding"
    )
    observation_chars: Annotated[int | None, Flag(panel=ELICITATION)] = Field(
        None, ge=2, description="length limit of an observation shown to the judge, in characters"
    )

    @property
    def question(self) -> Question:
        """The judge's question; options left out are as in `Question`."""
        given = self.model_dump(include={"style", *_ELICITATION_OPTIONS}, exclude_none=True)
        elicitation = Elicitation.model_validate({**Question().elicitation.model_dump(), **given})
        return Question(mode=self.mode, both_orders=self.both_orders, seed=self.seed, elicitation=elicitation)


class PreferenceRow(ProbeRow):
    """The verdicts on one state.

    Attributes:
        prompt_action: canonical; `cot_action` is a different one.
        reference: the reference action, not shown to the judge; empty where none is known.
        verdicts: one for each order that was asked.
    """

    prompt_action: str = ""
    cot_action: str = ""
    reference: str = ""
    verdicts: tuple[JudgeVerdict, ...] = ()

    @property
    def judgement(self) -> Judgement:
        """The row as a judgement, from which the numbers are computed."""
        return Judgement(
            task=self.task,
            step=self.step,
            prompt_action=self.prompt_action,
            cot_action=self.cot_action,
            expert_action=self.reference or None,
            verdicts=self.verdicts,
            **failure_fields(self),
        )


def _measure(
    agent: Agent,
    states: Sequence[ProbeState],
    setting: ProbeSetting,
    options: PreferenceOptions,
    judge: Agent | None = None,
) -> Iterator[PreferenceRow]:
    """Measure states; `judge` is the agent that option `judge` names, where it is open already."""
    if options.judge is None:
        raise UsageError("probe preference needs a judge: name one in its option judge, as in judge=hf:qwen-8b")
    if judge is None:
        resolve(options.judge)  # A wrong name is an error before any query.
    return _rows(agent, states, setting, options, judge)


def _rows(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: PreferenceOptions, judge: Agent | None
) -> Iterator[PreferenceRow]:
    # Drawn from all states with two actions, those already judged included.
    all_states = setting.states.states
    answers = answers_for(agent, all_states if options.limit is not None else states, setting)
    pairs = [
        _pair(state, answers[state.key], setting.states.env)
        for state in all_states
        if state.key in answers and answers[state.key].revised
    ]
    pairs.sort(key=lambda pair: derive_seed(options.seed, pair.task, pair.step, "drawn"))
    drawn = {pair.key: pair for pair in pairs[: options.limit]}
    waiting: list[Pair] = []
    for state in states:
        answer = answers[state.key]
        if answer.error is None and state.key in drawn:
            waiting.append(drawn[state.key])
        else:
            left_out = None if answer.error is not None else "not drawn" if answer.revised else "same action"
            yield PreferenceRow(task=state.task, step=state.step, left_out=left_out, **failure_fields(answer))
    if waiting and judge is not None:
        yield from _judged(waiting, options.question, judge)
    elif waiting:
        judge_agent = make_agent(str(options.judge))
        try:
            yield from _judged(waiting, options.question, judge_agent)
        finally:
            close_agent(judge_agent)


def _judged(pairs: Sequence[Pair], question: Question, judge: Agent) -> Iterator[PreferenceRow]:
    check_judge(judge, question)
    for one in ask_judge(judge, pairs, question):
        yield PreferenceRow(
            task=one.task,
            step=one.step,
            prompt_action=one.prompt_action,
            cot_action=one.cot_action,
            reference=one.expert_action or "",
            verdicts=one.verdicts,
            **failure_fields(one),
        )


def _pair(state: ProbeState, answer: StateAnswer, env: str) -> Pair:
    actions = (answer.prompt_action, answer.cot_action, state.action)
    return Pair(state.task, env, state.task, state.step, state.dialogue, *actions)


def _summarize(rows: Sequence[PreferenceRow], options: PreferenceOptions) -> ProbeNumbers:
    measured, errors, left_out = partition_rows(rows)
    judgements = [row.judgement for row in measured]
    numbers = preference(judgements)
    return ProbeNumbers(
        states=numbers.states,
        tasks=numbers.tasks,
        errors=errors,
        left_out=left_out,
        estimates={
            "win rate of the cot action": numbers.win_rate,
            "net preference": numbers.net,
            "position bias": numbers.position_bias,
            "agreement with the reference": numbers.expert_agreement,
        },
        counts={
            "cot": numbers.cot,
            "prompt": numbers.prompt,
            "split": numbers.split,
            "no verdict": numbers.no_verdict,
            "verdicts": numbers.verdicts,
            "with the reference": numbers.expert_states,
        },
        notes=(str(judge_gate(judgements)),) if measured else (),
    )


PROBE = Probe(
    name="preference",
    description="which of the two actions at a state a judge prefers",
    options=PreferenceOptions,
    row=PreferenceRow,
    measure=_measure,
    summarize=_summarize,
    cost=lambda sizes: 4 * sizes.prompt,
    sections=("cotbench.study.report_probes:preference_section",),
)


def preference_of(judge: Agent) -> Probe:
    """Return the probe with a judge that is open already; its options still name it."""
    return replace(PROBE, measure=partial(_measure, judge=judge))
