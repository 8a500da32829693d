"""Probe `alignment`: the prompt action, the CoT action and the reference action of each state. Invariant: the three belong to
one state and one prompt, so the gap between them is paired.

Source: paper, "prompt action", "CoT action", "gap", "consistency" and "revision rate".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from pydantic import Field

from cotbench.agents.base import Agent
from cotbench.agents.decisions import decide_or_errors
from cotbench.failure import failure_fields
from cotbench.probes.asking import batches, own_trace, state_query
from cotbench.probes.numbers import ProbeNumbers, ProbeRow, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.states import ProbeState, StateAnswer, StateKey
from cotbench.prompting.elicitation import MODES
from cotbench.prompting.query import Decision
from cotbench.stats.estimates import Estimate

_NOT_ASKED = "not asked for"
_NO_LOGPROB = "the agent tells no log-probability of a given action"


class AlignmentOptions(ProbeOptions):
    """Options of probe `alignment`."""

    scores: bool = Field(True, description="measure the log-probability of the reference action too")


class AlignmentRow(ProbeRow):
    """A state's three actions, all canonical.

    Attributes:
        reference: the reference action.
        prompt_equivalent: whether the prompt action is equivalent to the reference, by the environment's rule; `cot_equivalent`
            likewise.
        actions_equivalent: whether the prompt action and the CoT action are equivalent.
        trace: the agent's own trace, as it stood between the tags.
        trace_truncated: whether the token budget ended the trace, so that the harness closed it.
        prompt_format_ok: whether every required tag was written; `cot_format_ok` likewise.
        prompt_logprob: natural logarithm of the probability of the reference action, closing tag included, from the prompt
            alone; `cot_logprob` after the agent's own trace. None where it is not known: `unscored` holds the reason.
        prompt_tokens: length of the prompt; the other token counts are of generated tokens.
    """

    task_type: str = ""
    prompt_action: str = ""
    cot_action: str = ""
    reference: str = ""
    prompt_equivalent: bool = False
    cot_equivalent: bool = False
    actions_equivalent: bool = False
    trace: str = ""
    trace_truncated: bool = False
    prompt_format_ok: bool = True
    cot_format_ok: bool = True
    prompt_logprob: float | None = None
    cot_logprob: float | None = None
    unscored: str | None = None
    prompt_tokens: int = 0
    trace_tokens: int = 0
    prompt_action_tokens: int = 0
    cot_action_tokens: int = 0

    @property
    def prompt_match(self) -> bool:
        """True where the prompt action is the reference action."""
        return self.prompt_action == self.reference

    @property
    def cot_match(self) -> bool:
        """True where the CoT action is the reference action."""
        return self.cot_action == self.reference

    @property
    def revised(self) -> bool:
        """True where the trace changed the action."""
        return self.prompt_action != self.cot_action

    @property
    def revision(self) -> str:
        """The cell of the revision table: the prompt action right or wrong -> the CoT action right or wrong."""
        before, after = ("right" if match else "wrong" for match in (self.prompt_match, self.cot_match))
        same = "" if before == "right" or after == "right" else ", other" if self.revised else ", same"
        return f"{before} -> {after}{same}"


REVISIONS = ("right -> right", "right -> wrong", "wrong -> right", "wrong -> wrong, same", "wrong -> wrong, other")
"""The cells of the revision table; every state is in exactly one."""


def answers(rows: Sequence[AlignmentRow]) -> dict[StateKey, StateAnswer]:
    """Return the agent's answers by state, for the other probes.

    A state with an error is left out, so that another probe queries it again.
    """
    return {
        row.key: StateAnswer(row.prompt_action, row.cot_action, row.trace, row.trace_truncated)
        for row in rows
        if row.error is None and row.left_out is None
    }


def _measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: AlignmentOptions
) -> Iterator[AlignmentRow]:
    for group in batches(states, agent):
        for together in _rounds(group):
            yield from _measure_group(agent, together, setting, options)


def _rounds(states: Sequence[ProbeState]) -> Iterator[list[ProbeState]]:
    """Yield groups with one state of each task.

    The score after a trace is queried second, in the same group: the engine still has the KV cache of its prompt.
    """
    by_task: dict[str, list[ProbeState]] = {}
    for state in states:
        by_task.setdefault(state.task, []).append(state)
    for together in zip_longest(*by_task.values()):
        yield [state for state in together if state is not None]


def _measure_group(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: AlignmentOptions
) -> Iterator[AlignmentRow]:
    scored = options.scores and setting.elicitation.style == "prefill"
    queries = [tuple(state_query(state, mode, setting, agent) for mode in MODES) for state in states]
    flat = [query for both in queries for query in both]
    if scored:
        flat += [replace(prompt, given_action=state.action) for state, (prompt, _) in zip(states, queries, strict=True)]
    decisions = decide_or_errors(agent, flat)
    decision_pairs = list(zip(decisions[0 : 2 * len(states) : 2], decisions[1 : 2 * len(states) : 2], strict=True))
    before, after = decisions[2 * len(states) :], []
    if scored:
        cases = zip(states, queries, decision_pairs, strict=True)
        after = decide_or_errors(
            agent,
            [
                replace(query, given_trace=own_trace(decision), given_action=state.action)
                for state, (_, query), (prompt, decision) in cases
                if (prompt.error or decision.error) is None
            ],
        )
    early, late = iter(before), iter(after)
    for state, (prompt, cot) in zip(states, decision_pairs, strict=True):
        score = next(early, None)
        failed = failure_fields(prompt, cot)
        if failed:
            yield AlignmentRow(task=state.task, step=state.step, **failed)
        else:
            yield _row(state, prompt, cot, (score, next(late, None)), setting)


def _row(
    state: ProbeState, prompt: Decision, cot: Decision, scores: tuple[Decision | None, Decision | None], setting: ProbeSetting
) -> AlignmentRow:
    prompt_action, cot_action = setting.canonical(prompt.action), setting.canonical(cot.action)
    logprobs = [_logprob(score, state, setting) for score in scores]
    return AlignmentRow(
        task=state.task,
        step=state.step,
        task_type=state.task_type,
        prompt_action=prompt_action,
        cot_action=cot_action,
        reference=state.action,
        prompt_equivalent=setting.equivalent(prompt_action, state.action),
        cot_equivalent=setting.equivalent(cot_action, state.action),
        actions_equivalent=setting.equivalent(prompt_action, cot_action),
        trace=own_trace(cot),
        trace_truncated=cot.trace_truncated,
        prompt_format_ok=prompt.format_ok,
        cot_format_ok=cot.format_ok,
        prompt_logprob=logprobs[0],
        cot_logprob=logprobs[1],
        unscored=_unscored_reason(scores) if None in logprobs else None,
        prompt_tokens=prompt.prompt_tokens,
        trace_tokens=cot.trace_tokens,
        prompt_action_tokens=prompt.action_tokens,
        cot_action_tokens=cot.action_tokens,
    )


def _logprob(score: Decision | None, state: ProbeState, setting: ProbeSetting) -> float | None:
    """Return the log-probability of the reference action; None where the agent scored another action or reported none.

    An agent that ignores `given_action` answers with an action of its own, whose log-probability is not the one wanted.
    """
    if score is None or score.error is not None or setting.canonical(score.action) != state.action:
        return None
    return score.action_logprob


def _unscored_reason(scores: tuple[Decision | None, Decision | None]) -> str:
    if None in scores:
        return _NOT_ASKED
    return next((score.error for score in scores if score is not None and score.error is not None), _NO_LOGPROB)


def _summarize(rows: Sequence[AlignmentRow], options: AlignmentOptions) -> ProbeNumbers:
    measured, errors, left_out = partition_rows(rows)
    estimates = _alignment(measured)
    estimates |= {
        "prompt equivalent": over_tasks(measured, lambda row: row.prompt_equivalent),
        "cot equivalent": over_tasks(measured, lambda row: row.cot_equivalent),
        "gap equivalent": over_tasks(measured, lambda row: row.cot_equivalent - row.prompt_equivalent),
        "consistency equivalent": over_tasks(measured, lambda row: row.actions_equivalent),
        "revision rate": over_tasks(measured, lambda row: row.revised),
        "net benefit of revisions": over_tasks(measured, lambda row: row.cot_match - row.prompt_match if row.revised else None),
        "prompt log-probability": over_tasks(measured, _scored(lambda prompt, cot: prompt)),
        "cot log-probability": over_tasks(measured, _scored(lambda prompt, cot: cot)),
        "log-probability gap": over_tasks(measured, _scored(lambda prompt, cot: cot - prompt)),
        "trace truncated": over_tasks(measured, lambda row: row.trace_truncated),
        "prompt format ok": over_tasks(measured, lambda row: row.prompt_format_ok),
        "cot format ok": over_tasks(measured, lambda row: row.cot_format_ok),
        "trace tokens": over_tasks(measured, lambda row: row.trace_tokens),
    }
    types = sorted({row.task_type for row in measured})
    for kind in types if len(types) > 1 else ():
        by_type = _alignment([row for row in measured if row.task_type == kind])
        estimates |= {f"{name}, {kind}": estimate for name, estimate in by_type.items()}
    cells = [row.revision for row in measured]
    return ProbeNumbers(
        states=len(measured),
        tasks=len({row.task for row in measured}),
        errors=errors,
        left_out=left_out,
        estimates=estimates,
        counts={cell: cells.count(cell) for cell in REVISIONS} | _scored_counts(measured),
    )


def _scored_counts(rows: Sequence[AlignmentRow]) -> dict[str, int]:
    """Return at how many states log-probabilities are known, and the commonest reason where they are not."""
    reasons = Counter(row.unscored for row in rows if row.unscored not in (None, _NOT_ASKED))
    return {"scored": sum(row.unscored is None for row in rows)} | {
        f"not scored: {reason}": count for reason, count in reasons.most_common(1)
    }


def _alignment(rows: Sequence[AlignmentRow]) -> dict[str, Estimate]:
    return {
        "prompt exact": over_tasks(rows, lambda row: row.prompt_match),
        "cot exact": over_tasks(rows, lambda row: row.cot_match),
        "gap exact": over_tasks(rows, lambda row: row.cot_match - row.prompt_match),
        "consistency": over_tasks(rows, lambda row: not row.revised),
    }


def _scored(value: Callable[[float, float], float]) -> Callable[[AlignmentRow], float | None]:
    """Return a function of a row: `value` of its two log-probabilities, None where one is not known."""

    def of(row: AlignmentRow) -> float | None:
        if row.prompt_logprob is None or row.cot_logprob is None:
            return None
        return value(row.prompt_logprob, row.cot_logprob)

    return of


PROBE = Probe(
    name="alignment",
    description="prompt action and CoT action against the reference action; revisions; log-probabilities",
    options=AlignmentOptions,
    row=AlignmentRow,
    measure=_measure,
    summarize=_summarize,
    cost=lambda sizes: sizes.prompt + 2 * sizes.answer,
    answers=answers,
    sections=(
        "cotbench.study.report_training:training_section",
        "cotbench.study.report_training:revisions_section",
        "cotbench.study.report_training:log_probability_section",
    ),
)
