"""The numbers of a run. Invariant: `summary.json` holds every number that a table shows; a table is drawn from it alone.

An episode that ended in an error has no score: it is counted as an error and left out of all other numbers and pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cotbench.envs.registry import env_entry
from cotbench.failure import ErrorKind
from cotbench.notebook import Display, Displayed
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.episode import Episode, rows_of
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.limits import Price
from cotbench.runs.manifest import Manifest, is_true
from cotbench.runs.task_rows import TaskRows, by_task, by_type
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

SUMMARY = "summary.json"
_FROZEN = ConfigDict(frozen=True)


def _is_empty(value: object) -> bool:
    return not value


def _is_none(value: object) -> bool:
    return value is None


def _is_one(value: object) -> bool:
    return value == 1


class ModeSummary(BaseModel):
    """The numbers of one mode's episodes. Intervals are over tasks; the samples of a task stay together.

    Attributes:
        n: episodes that were scored.
        errors: episodes that ended in a failure of something outside the model.
        success: official success rate, Wilson interval; of several samples of each task the mean over tasks of their share of
            successes, with a bootstrap interval over tasks.
        by_type: success rate of each task type.
        macro_success: the unweighted mean over the task types; None where there is one type alone.
        passable_success: success rate without the tasks on which upstream counts every right answer as wrong; None where there
            are none of them.
        pass_at: k -> probability that at least one of k samples succeeds (pass@k), the mean over the tasks with k finished
            samples; left out of JSON where each task was played once.
        score: mean score in [0, 1]; like all below with a bootstrap interval.
        steps: actions an episode.
        invalid_actions: actions an episode that did nothing.
        tokens: tokens generated an episode, by the executed decisions.
        prefilled_tokens: tokens computed an episode without being generated, by the executed decisions.
        reused_tokens: prompt tokens that were not computed again, an episode, by the executed decisions.
        dollars: price of an episode's executed decisions; left out of JSON where no price is known.
        format_ok: share of decisions whose tags the model wrote itself.
        trace_truncated: share of traces that the harness had to close; None in prompt mode.
        dropped_observations: episodes in which the dialogue had to be shortened.
        cut_observations: episodes in which an observation was too long to be shown whole.
        restarts: episodes in which the engine was lost, and brought back to where it was in a new process.
        leniently_judged: what the right answers were on tasks where upstream also passes what is no action -> how many.
    """

    model_config = _FROZEN

    n: int
    errors: int
    success: Estimate
    by_type: dict[str, Estimate]
    macro_success: Estimate | None
    passable_success: Estimate | None
    pass_at: dict[int, Estimate] = Field({}, exclude_if=_is_empty)
    score: Estimate
    steps: Estimate
    invalid_actions: Estimate
    tokens: Estimate
    prefilled_tokens: Estimate
    reused_tokens: Estimate
    dollars: Estimate | None = Field(None, exclude_if=_is_none)
    format_ok: Estimate
    trace_truncated: Estimate | None
    dropped_observations: int
    cut_observations: int
    restarts: int
    leniently_judged: dict[str, int] = {}


class Gap(BaseModel):
    """CoT minus prompt on the tasks that both modes finished.

    Attributes:
        n: tasks.
        success: difference of success rates, Newcombe's paired interval; of several samples a bootstrap over tasks.
        macro_success: the unweighted mean of the task types' differences; None where there is one type alone.
        p: two-sided: McNemar's exact test; of several samples the exchange of the modes within each task.
        prompt_only: tasks won in prompt mode alone, of several samples more often than in CoT mode; `cot_only` likewise.
        score: mean difference of scores, paired bootstrap.
    """

    model_config = _FROZEN

    n: int
    success: Estimate
    macro_success: Estimate | None
    p: float | None
    prompt_only: int
    cot_only: int
    score: Estimate


class Consistency(BaseModel):
    """Share of the states of the CoT episodes with prompt action = CoT action; 1 - it is the revision rate.

    Attributes:
        states: states compared; the interval is over tasks (cluster bootstrap).
    """

    model_config = _FROZEN

    states: int
    consistency: Estimate
    revision_rate: Estimate


class PromptActions(BaseModel):
    """The cost of the prompt actions at the states of the CoT episodes, beside the CoT actions; means over states.

    Attributes:
        states: states asked; the intervals are over tasks (cluster bootstrap).
        tokens: tokens generated.
        prefilled_tokens: tokens computed without being generated.
    """

    model_config = _FROZEN

    states: int
    tokens: Estimate
    prefilled_tokens: Estimate


class Revisions(BaseModel):
    """The states at which the trace changed the action and the expert's action is known.

    Attributes:
        states: states with a known expert action, of `Consistency.states` in all; `revised` of them have a CoT action other
            than the prompt action.
        helped: revised to the expert's action; `hurt`: away from it; `neither`: from one other action to another.
        net: (helped - hurt) / states, cluster bootstrap over tasks.
    """

    model_config = _FROZEN

    states: int
    revised: int
    helped: int
    hurt: int
    neither: int
    net: Estimate


class ErrorCount(BaseModel):
    """The episodes that ended in failures of one kind.

    Attributes:
        n: how many.
        reason: the most frequent error of them; `same` of them have it.
    """

    model_config = _FROZEN

    n: int
    reason: str
    same: int


class Summary(Displayed, BaseModel):
    """The numbers of a run, for programs and for the table.

    Attributes:
        dialect: how the data spell actions, and `expert`: whose actions were recorded; see `Manifest`.
        uses_elicitation: whether the agent says that it asks and reads as the elicitation says; left out of JSON where True.
        samples: episodes of each task and mode; left out of JSON where it is one.
        unplayed: planned episodes that are not recorded yet; left out of JSON where there are none.
        price: of the agent's model; `dollars`: the price of all decisions, those of prompt actions and of episodes that
            ended in errors too. Left out of JSON where no price is known.
        errors_by_kind: whose failures the errors are, where that is recorded; left out of JSON where there are none.
    """

    model_config = _FROZEN

    format: int = 1
    agent: str
    env: str
    scheme: str
    split: str
    seed: int
    tasks: int
    split_tasks: int
    partial: bool
    elicitation: str
    style: Literal["prefill", "template"]
    temperature: float
    max_steps: int
    dialect: str = ""
    expert: str = ""
    modes: dict[Mode, ModeSummary]
    gap: Gap | None
    consistency: Consistency | None
    revisions: Revisions | None
    prompt_actions: PromptActions | None
    uses_elicitation: bool = Field(True, exclude_if=is_true)
    samples: int = Field(1, exclude_if=_is_one)
    unplayed: int = Field(0, exclude_if=_is_empty)
    price: Price | None = Field(None, exclude_if=_is_none)
    dollars: float | None = Field(None, exclude_if=_is_none)
    errors_by_kind: dict[ErrorKind, ErrorCount] = Field({}, exclude_if=_is_empty)

    def _display(self) -> Display:
        from cotbench.runs.display import summary_display

        return summary_display(self)


def summarize(episodes: Iterable[Episode], manifest: Manifest, price: Price | None = None) -> Summary:
    """Return the summary of a run's episodes; those of a file are not read again.

    Args:
        episodes: at most one of each key.
        manifest: of the run.
        price: of the agent's model, where known.
    """
    config = manifest.config
    rows = rows_of(episodes)
    played = {mode: [row for row in rows if row.mode == mode] for mode in MODES}
    both = config.mode == "both"
    cot = by_task(played["cot"])
    return Summary(
        agent=config.agent,
        env=config.env,
        scheme=config.scheme,
        split=config.split,
        seed=config.seed,
        tasks=len(manifest.task_list),
        split_tasks=manifest.split_tasks,
        partial=manifest.partial,
        elicitation=manifest.elicitation_fingerprint,
        style=config.elicitation.style,
        temperature=config.elicitation.temperature,
        max_steps=config.max_steps or env_entry(config.env).max_steps(),
        dialect=manifest.dialect,
        expert=manifest.expert,
        modes={mode: _mode(mode, some, manifest, price) for mode, some in played.items() if some},
        gap=_gap(played["prompt"], played["cot"]) if both else None,
        consistency=_consistency(cot) if both else None,
        revisions=_revisions(cot) if both else None,
        prompt_actions=_prompt_actions(cot) if both else None,
        uses_elicitation=manifest.uses_elicitation,
        samples=config.samples,
        unplayed=max(0, len(manifest.task_list) * config.samples * (len(MODES) if both else 1) - len(rows)),
        price=price,
        dollars=None if price is None else sum(price.of_decisions(row) + price.of_prompt_actions(row) for row in rows),
        errors_by_kind=_errors_by_kind(rows),
    )


def _errors_by_kind(rows: Sequence[EpisodeRow]) -> dict[ErrorKind, ErrorCount]:
    reasons: dict[ErrorKind, Counter[str]] = {}
    for row in rows:
        if row.error is not None and row.error_kind is not None:
            reasons.setdefault(row.error_kind, Counter())[row.error] += 1
    found = {}
    for kind in sorted(reasons):
        ((reason, same),) = reasons[kind].most_common(1)
        found[kind] = ErrorCount(n=reasons[kind].total(), reason=reason, same=same)
    return found


def _mode(mode: Mode, rows: Sequence[EpisodeRow], manifest: Manifest, price: Price | None) -> ModeSummary:
    scored = [row for row in rows if row.error is None]
    tasks = by_task(scored)
    config = manifest.config
    unpassable = set(env_entry(config.env).source().unpassable(manifest.task_list))
    success_by_type = {name: _success(some) for name, some in sorted(by_type(tasks).items())}
    played = [one.samples for one in tasks]

    def totals(count: Callable[[EpisodeRow], int]) -> list[int]:
        return [one.total(count) for one in tasks]

    lengths = totals(lambda row: row.steps)
    # Resampled together: of a long run each draw of the tasks takes seconds.
    steps, invalid_actions, tokens, prefilled_tokens, reused_tokens = estimates.count_ratios(
        (lengths, played),
        (totals(lambda row: row.invalid_actions), played),
        (totals(lambda row: row.generated_tokens), played),
        (totals(lambda row: row.prefilled_tokens), played),
        (totals(lambda row: row.reused_tokens), played),
    )
    format_ok, truncated = estimates.count_ratios(
        (totals(lambda row: row.format_kept), lengths), (totals(lambda row: row.truncated_traces), lengths)
    )
    return ModeSummary(
        n=len(scored),
        errors=len(rows) - len(scored),
        success=_success(tasks),
        by_type=success_by_type,
        macro_success=estimates.average(list(success_by_type.values())) if len(success_by_type) > 1 else None,
        passable_success=_success([one for one in tasks if one.task not in unpassable]) if unpassable else None,
        pass_at=_pass_at(tasks, config.samples),
        score=estimates.score([one.score for one in tasks]),
        steps=steps,
        invalid_actions=invalid_actions,
        tokens=tokens,
        prefilled_tokens=prefilled_tokens,
        reused_tokens=reused_tokens,
        dollars=None if price is None else estimates.mean([one.mean(price.of_decisions) for one in tasks]),
        format_ok=format_ok,
        trace_truncated=truncated if mode == "cot" else None,
        dropped_observations=sum(row.dropped_observations for row in scored),
        cut_observations=sum(row.longest_shown > config.elicitation.observation_chars for row in scored),
        restarts=sum(row.restarts > 0 for row in scored),
        leniently_judged=_leniently_judged(scored, env_entry(config.env).leniently_judged()),
    )


def _leniently_judged(scored: Sequence[EpisodeRow], judged: Callable[[str, str], str | None]) -> dict[str, int]:
    kinds = Counter(judged(row.task, row.last_answer) for row in scored if row.last_answer is not None)
    return {kind: count for kind, count in sorted(kinds.items(), key=lambda item: str(item[0])) if kind is not None}


def _success(tasks: Sequence[TaskRows]) -> Estimate:
    return estimates.score([one.success for one in tasks])


def _pass_at(tasks: Sequence[TaskRows], samples: int) -> dict[int, Estimate]:
    """Return pass@k for each k up to the number of samples; empty with one sample."""
    if samples == 1:
        return {}
    return {k: estimates.score([one.pass_at(k) for one in tasks if one.samples >= k]) for k in range(1, samples + 1)}


def _gap(prompt: Sequence[EpisodeRow], cot: Sequence[EpisodeRow]) -> Gap:
    with_trace = {one.task: one for one in by_task(cot)}
    pairs = [(one, with_trace[one.task]) for one in by_task(prompt) if one.task in with_trace]
    first, second = [one.success for one, _ in pairs], [two.success for _, two in pairs]
    types = {
        name: estimates.paired_score_difference([one.success for one in some], [with_trace[one.task].success for one in some])
        for name, some in by_type([one for one, _ in pairs]).items()
    }
    prompt_only = sum(a > b for a, b in zip(first, second, strict=True))
    cot_only = sum(b > a for a, b in zip(first, second, strict=True))
    return Gap(
        n=len(pairs),
        success=estimates.paired_score_difference(first, second),
        p=estimates.paired_test(first, second) if pairs else None,
        macro_success=estimates.average(list(types.values())) if len(types) > 1 else None,
        prompt_only=prompt_only,
        cot_only=cot_only,
        score=estimates.paired_score_difference([one.score for one, _ in pairs], [two.score for _, two in pairs]),
    )


def _consistency(cot: Sequence[TaskRows]) -> Consistency:
    counts, revised = [one.total(lambda row: row.compared) for one in cot], [one.total(lambda row: row.revised) for one in cot]
    same = [count - changed for count, changed in zip(counts, revised, strict=True)]
    consistency, revision_rate = estimates.count_ratios((same, counts), (revised, counts))
    return Consistency(states=sum(counts), consistency=consistency, revision_rate=revision_rate)


def _prompt_actions(cot: Sequence[TaskRows]) -> PromptActions:
    counts = [one.total(lambda row: row.prompt_decisions) for one in cot]
    tokens, prefilled_tokens = estimates.count_ratios(
        ([one.total(lambda row: row.prompt_generated_tokens) for one in cot], counts),
        ([one.total(lambda row: row.prompt_prefilled_tokens) for one in cot], counts),
    )
    return PromptActions(states=sum(counts), tokens=tokens, prefilled_tokens=prefilled_tokens)


def _revisions(cot: Sequence[TaskRows]) -> Revisions | None:
    compared = [one.total(lambda row: row.expert_compared) for one in cot]
    states = sum(compared)
    if states == 0:
        return None
    revised = sum(one.total(lambda row: row.expert_revised) for one in cot)
    helped, hurt = ([one.total(count) for one in cot] for count in (lambda row: row.helped, lambda row: row.hurt))
    (net,) = estimates.count_ratios(([good - bad for good, bad in zip(helped, hurt, strict=True)], compared))
    return Revisions(
        states=states,
        revised=revised,
        helped=sum(helped),
        hurt=sum(hurt),
        neither=revised - sum(helped) - sum(hurt),
        net=net,
    )
