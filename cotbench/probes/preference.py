"""Probe `preference`: which of the two actions of a state a judge prefers. Invariant: that of `cotbench.judge`: a judge sees no
trace, and not which of the two actions followed one.

Source: paper, "a judge's preference between the two actions at the same state".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from cotbench.agents.base import Agent
from cotbench.agents.registry import make_agent, resolve
from cotbench.errors import UsageError
from cotbench.judge.judgement import Judgement, JudgeVerdict, preference
from cotbench.judge.question import Pair, Question, check_judge, judge
from cotbench.probes.asking import answers_for
from cotbench.probes.numbers import ProbeNumbers, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.row import ProbeRow
from cotbench.probes.states import ProbeState, StateAnswer
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import derive_seed


class PreferenceOptions(ProbeOptions):
    """Options of probe `preference`."""

    judge: str | None = Field(None, description="the judge: the spec of any agent")
    limit: int | None = Field(None, ge=1, description="how many states are judged, drawn by the seed; all when left out")
    both_orders: bool = Field(True, description="ask twice, each action first once; else once, in an order drawn by the seed")
    seed: int = Field(0, ge=0, description="draws states and orders, seeds the judge's sampling")
    mode: Mode = Field("prompt", description="whether the judge answers at once (prompt) or reasons first (cot)")
    style: str = Field("prefill", pattern="^(prefill|template)$", description="how the judge is asked: prefill or template")

    @property
    def question(self) -> Question:
        """How the judge is asked: as `cotbench judge` asks, where nothing else is said."""
        asked = Elicitation.model_validate({**Question().elicitation.model_dump(), "style": self.style})
        return Question(mode=self.mode, both_orders=self.both_orders, seed=self.seed, elicitation=asked)


class PreferenceRow(ProbeRow):
    """A state, judged.

    Attributes:
        prompt_action: canonical; `cot_action` is another one.
        reference: the reference action; not shown to the judge.
        verdicts: one for each order that was asked.
    """

    prompt_action: str = ""
    cot_action: str = ""
    reference: str = ""
    verdicts: tuple[JudgeVerdict, ...] = ()

    @property
    def judgement(self) -> Judgement:
        """What the numbers are made of."""
        return Judgement(
            task=self.task,
            step=self.step,
            prompt_action=self.prompt_action,
            cot_action=self.cot_action,
            expert_action=self.reference,
            error=self.error,
            verdicts=self.verdicts,
        )


def _measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: PreferenceOptions
) -> Iterator[PreferenceRow]:
    if options.judge is None:
        raise UsageError("probe preference needs a judge: name one in its option judge, as in judge=hf:qwen-8b")
    resolve(options.judge)  # A wrong name is told before anything is asked.
    return _rows(agent, states, setting, options, options.judge)


def _rows(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: PreferenceOptions, spec: str
) -> Iterator[PreferenceRow]:
    # The draw is among all states that have two actions, whichever of them are still to be judged.
    whole = setting.states.states
    answers = answers_for(agent, whole if options.limit is not None else states, setting)
    known = [(state, answers[state.key]) for state in whole if state.key in answers]
    pairs = [_pair(state, answer, setting.states.env) for state, answer in known if _differs(answer)]
    pairs.sort(key=lambda pair: derive_seed(options.seed, pair.task, pair.step, "drawn"))
    drawn = {pair.key: pair for pair in pairs[: options.limit]}
    waiting: list[Pair] = []
    for state in states:
        answer = answers[state.key]
        if answer.error is None and state.key in drawn:
            waiting.append(drawn[state.key])
        else:
            left_out = None if answer.error is not None else "not drawn" if _differs(answer) else "same action"
            yield PreferenceRow(task=state.task, step=state.step, error=answer.error, left_out=left_out)
    if waiting:
        yield from _judged(waiting, options.question, spec)


def _judged(pairs: Sequence[Pair], question: Question, spec: str) -> Iterator[PreferenceRow]:
    asked = make_agent(spec)
    try:
        check_judge(asked, question)
        for one in judge(asked, pairs, question):
            yield PreferenceRow(
                task=one.task,
                step=one.step,
                error=one.error,
                prompt_action=one.prompt_action,
                cot_action=one.cot_action,
                reference=one.expert_action or "",
                verdicts=one.verdicts,
            )
    finally:
        asked.close()


def _differs(answer: StateAnswer) -> bool:
    return answer.error is None and answer.prompt_action != answer.cot_action


def _pair(state: ProbeState, answer: StateAnswer, env: str) -> Pair:
    actions = (answer.prompt_action, answer.cot_action, state.action)
    return Pair(state.task, env, state.task, state.step, state.dialogue, *actions)


def _summarize(rows: Sequence[PreferenceRow], options: PreferenceOptions) -> ProbeNumbers:
    kept, errors, left_out = partition_rows(rows)
    found = preference([row.judgement for row in kept])
    return ProbeNumbers(
        states=found.states,
        tasks=found.tasks,
        errors=errors,
        left_out=left_out,
        estimates={
            "win rate of the cot action": found.win_rate,
            "net preference": found.net,
            "position bias": found.position_bias,
            "agreement with the reference": found.expert_agreement,
        },
        counts={
            "cot": found.cot,
            "prompt": found.prompt,
            "split": found.split,
            "no verdict": found.no_verdict,
            "verdicts": found.verdicts,
            "with the reference": found.expert_states,
        },
    )


PROBE = Probe(
    name="preference",
    description="which of the two actions of a state a judge prefers",
    options=PreferenceOptions,
    row=PreferenceRow,
    measure=_measure,
    summarize=_summarize,
)
