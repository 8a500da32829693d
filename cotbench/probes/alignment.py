"""Probe `alignment`: the prompt action, the CoT action and the reference action of each state. Invariant: the three belong to
one state and one prompt, so the gap between them is paired; so do the prompt actions that are elicited in other ways.

Source: paper, "prompt action", "CoT action", "gap", "consistency" and "revision rate".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest

from pydantic import Field

from cotbench.agents.base import Agent
from cotbench.agents.decisions import decide_or_errors, own_trace
from cotbench.agents.ranking import NO_LOGPROB
from cotbench.failure import FailureFields, failure_fields
from cotbench.probes.alignment_row import REVISIONS, AlignmentRow
from cotbench.probes.asking import batches, state_query
from cotbench.probes.numbers import ProbeNumbers, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.prompt_actions import Elicited, ElicitedAction, PromptElicitations, elicited_actions, known_ways, reasons
from cotbench.probes.replay import shortening_at
from cotbench.probes.states import ProbeState, StateAnswer, StateKey
from cotbench.prompting.elicitation import MODES, PROMPT_ACTIONS, PromptAction
from cotbench.prompting.query import Decision, Query
from cotbench.stats.estimates import Estimate

_NOT_ASKED = "not asked for"


class AlignmentOptions(ProbeOptions):
    """Options of probe `alignment`."""

    scores: bool = Field(True, description="also measure the log-probability of the reference action")
    prompt_elicitations: tuple[PromptAction, ...] = Field(
        PROMPT_ACTIONS,
        description="further elicitations of the prompt action: bare, empty, ranked",
    )


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
    ways = PromptElicitations(agent, setting, states, options.prompt_elicitations)
    for group in batches(states, agent):
        for together in _rounds(group):
            yield from _measure_group(ways, together, options)


def _rounds(states: Sequence[ProbeState]) -> Iterator[list[ProbeState]]:
    """Yield groups with one state of each task.

    The score after a trace is queried second, in the same group: the engine still has the KV cache of its prompt.
    """
    by_task: dict[str, list[ProbeState]] = {}
    for state in states:
        by_task.setdefault(state.task, []).append(state)
    for together in zip_longest(*by_task.values()):
        yield [state for state in together if state is not None]


@dataclass(slots=True)
class _Case:
    """One state with its queries and what was answered to them.

    Attributes:
        prompt_query, cot_query: the queries in the usual elicitation; `prompt` and `cot` answer them.
        elicited: the prompt action by its elicitation, or why it is not known.
        before: the score of the reference action from the prompt alone; `after` that after the agent's own trace. None where
            they are not wanted.
    """

    state: ProbeState
    prompt_query: Query
    cot_query: Query
    prompt: Decision
    cot: Decision
    elicited: Elicited
    before: Decision | None
    after: Decision | None = None

    @property
    def failure(self) -> FailureFields:
        """The failure for which the state has to be measured again; empty where there is none."""
        return failure_fields(self.prompt, self.cot, *(one for one in self.elicited.values() if not isinstance(one, str)))

    def actions(self, setting: ProbeSetting) -> list[str]:
        """Return all its actions, canonical."""
        decisions = [self.prompt, self.cot, *(one for one in self.elicited.values() if not isinstance(one, str))]
        return [self.state.action, *(setting.canonical(decision.action) for decision in decisions)]


def _measure_group(ways: PromptElicitations, states: Sequence[ProbeState], options: AlignmentOptions) -> Iterator[AlignmentRow]:
    setting = ways.setting
    scored = options.scores and setting.elicitation.style == "prefill"
    cases = _cases(ways, states, scored)
    well = [case for case in cases if not case.failure]
    if scored:
        queries = [
            replace(case.cot_query, given_trace=own_trace(case.cot, setting.elicitation.tags), given_action=case.state.action)
            for case in well
        ]
        for case, decision in zip(well, decide_or_errors(ways.agent, queries), strict=True):
            case.after = decision
    ranked = ways.ranked({case.state.key: (case.prompt_query, _unscorable(case, setting)) for case in well})
    for case in well:
        case.elicited |= ways.refused()
        if case.state.key in ranked:
            case.elicited["ranked"] = ranked[case.state.key]
    shortening = shortening_at(setting, {case.state.key: case.actions(setting) for case in well}, [case.state for case in well])
    for case in cases:
        if case.failure:
            yield AlignmentRow(task=case.state.task, step=case.state.step, **case.failure)
        else:
            yield _row(case, setting, shortening[case.state.key])


def _cases(ways: PromptElicitations, states: Sequence[ProbeState], scored: bool) -> list[_Case]:
    """Ask for both actions of each state, the prompt action in every way, and the score of the reference action."""
    queries = [[state_query(state, mode, ways.setting, ways.agent) for mode in MODES] for state in states]
    flat = [query for both in queries for query in both]
    flat += [query for prompt, _ in queries for query in ways.written_queries(prompt)]
    if scored:
        flat += [replace(prompt, given_action=state.action) for state, (prompt, _) in zip(states, queries, strict=True)]
    answers = iter(decide_or_errors(ways.agent, flat))
    pairs = [(next(answers), next(answers)) for _ in states]
    written: list[Elicited] = [{way: next(answers) for way in ways.written} for _ in states]
    scores = [next(answers) if scored else None for _ in states]
    cases = []
    for state, both, (prompt, cot), more, score in zip(states, queries, pairs, written, scores, strict=True):
        elicited = {ways.main: prompt, **more} if ways.main in ways.wanted else more
        cases.append(_Case(state, both[0], both[1], prompt, cot, elicited, score))
    return cases


def _unscorable(case: _Case, setting: ProbeSetting) -> str | None:
    """Return why the agent could not score the reference action; "" where that was not tried."""
    if case.before is None:
        return ""
    known = _logprob(case.before, case.state, setting) is not None
    return None if known else case.before.error or NO_LOGPROB


def _row(case: _Case, setting: ProbeSetting, shortening: Mapping[str, bool]) -> AlignmentRow:
    state, prompt, cot = case.state, case.prompt, case.cot
    prompt_action, cot_action = setting.canonical(prompt.action), setting.canonical(cot.action)
    scores = case.before, case.after
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
        trace=own_trace(cot, setting.elicitation.tags),
        trace_truncated=cot.trace_truncated,
        prompt_format_ok=prompt.format_ok,
        cot_format_ok=cot.format_ok,
        prompt_logprob=logprobs[0],
        cot_logprob=logprobs[1],
        unscored=_unscored_reason(scores) if None in logprobs else None,
        prompt_shortens=shortening.get(prompt_action),
        cot_shortens=shortening.get(cot_action),
        reference_shortens=shortening.get(state.action),
        elicited=elicited_actions(case.elicited, state, setting, shortening.get),
        not_elicited=reasons(case.elicited),
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
    return next((score.error for score in scores if score is not None and score.error is not None), NO_LOGPROB)


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
        **_shortening(measured),
        **_elicited(measured),
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
        counts={cell: cells.count(cell) for cell in REVISIONS} | _scored_counts(measured) | _elicited_counts(measured),
    )


def _shortening(rows: Sequence[AlignmentRow]) -> dict[str, Estimate]:
    """Return the shares of actions that shorten the rest of the task; none where that is known nowhere."""
    known = [row for row in rows if row.prompt_shortens is not None and row.cot_shortens is not None]
    if not known:
        return {}
    return {
        "prompt shortens": over_tasks(known, lambda row: row.prompt_shortens),
        "cot shortens": over_tasks(known, lambda row: row.cot_shortens),
        "gap shortens": over_tasks(known, lambda row: bool(row.cot_shortens) - bool(row.prompt_shortens)),
        "reference shortens": over_tasks(known, lambda row: row.reference_shortens),
    }


_ELICITED: Mapping[str, Callable[[AlignmentRow, ElicitedAction], float | bool | None]] = {
    "exact": lambda row, found: found.action == row.reference,
    "equivalent": lambda row, found: found.equivalent,
    "format ok": lambda row, found: found.format_ok,
    "shortens": lambda row, found: found.shortens,
    "gap": lambda row, found: row.cot_match - (found.action == row.reference),
    "consistency": lambda row, found: found.action == row.cot_action,
}
"""The numbers of an elicitation. The gap is CoT alignment minus that of the elicitation at the same states; consistency is the
share of states with one action.
"""


def elicited_value(way: PromptAction, name: str, row: AlignmentRow) -> float | bool | None:
    """Return the value of a row behind one number of an elicitation; None where it is not known.

    Args:
        way: the elicitation.
        name: "exact", "equivalent", "format ok", "shortens", "gap" or "consistency".
        row: the row.
    """
    found = row.elicited.get(way)
    return None if found is None else _ELICITED[name](row, found)


def _elicited(rows: Sequence[AlignmentRow]) -> dict[str, Estimate]:
    """Return the numbers of each elicitation of the prompt action, over the states where it is known."""
    found = {
        f"{way} {name}": over_tasks(rows, partial(elicited_value, way, name))
        for way in known_ways(row.elicited for row in rows)
        for name in _ELICITED
    }
    return {name: estimate for name, estimate in found.items() if estimate.mean is not None}


def _elicited_counts(rows: Sequence[AlignmentRow]) -> dict[str, int]:
    """Return at how many states an elicitation is not known, by elicitation and reason."""
    missing = Counter((way, reason) for row in rows for way, reason in row.not_elicited.items())
    return {f"no {way} prompt action: {reason}": count for (way, reason), count in missing.most_common()}


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
    cost=lambda sizes: sizes.prompt + 3 * sizes.answer + sizes.candidates,
    answers=answers,
    sections=(
        "cotbench.study.report_training:training_section",
        "cotbench.study.report_elicitation:elicitation_section",
        "cotbench.study.report_training:revisions_section",
        "cotbench.study.report_training:log_probability_section",
    ),
)
