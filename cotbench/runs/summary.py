"""The numbers of a run. Invariant: `summary.json` holds every number that a table shows; a table is drawn from it alone.

An episode that ended in an error has no score: it is counted as an error and left out of all other numbers and pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cotbench.envs.registry import env_entry
from cotbench.failure import ErrorKind
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.episode import Episode, Step
from cotbench.runs.manifest import Manifest, is_true
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

SUMMARY = "summary.json"
_FROZEN = ConfigDict(frozen=True)


class ModeSummary(BaseModel):
    """The numbers of one mode's episodes. Intervals are over tasks.

    Attributes:
        n: episodes that were scored.
        errors: episodes that ended in a failure of something outside the model.
        success: official success rate, Wilson interval.
        by_type: success rate of each task type.
        macro_success: the unweighted mean over the task types; None where there is one type alone.
        passable_success: success rate without the tasks on which upstream counts every right answer as wrong; None where there
            are none of them.
        score: mean score in [0, 1]; like all below with a bootstrap interval.
        steps: actions an episode.
        invalid_actions: actions an episode that did nothing.
        tokens: tokens generated an episode, by the executed decisions.
        prefilled_tokens: tokens computed an episode without being generated, by the executed decisions.
        reused_tokens: prompt tokens that were not computed again, an episode, by the executed decisions.
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
    score: Estimate
    steps: Estimate
    invalid_actions: Estimate
    tokens: Estimate
    prefilled_tokens: Estimate
    reused_tokens: Estimate
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
        success: difference of success rates, Newcombe's paired interval.
        macro_success: the unweighted mean of the task types' differences; None where there is one type alone.
        p: exact two-sided McNemar p-value.
        prompt_only: tasks won in prompt mode alone; `cot_only` likewise.
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


def _is_empty(value: object) -> bool:
    return not value


class Summary(BaseModel):
    """The numbers of a run, for programs and for the table.

    Attributes:
        dialect: how the data spell actions, and `expert`: whose actions were recorded; see `Manifest`.
        uses_elicitation: whether the agent says that it asks and reads as the elicitation says; left out of JSON where True.
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
    errors_by_kind: dict[ErrorKind, ErrorCount] = Field({}, exclude_if=_is_empty)


def summarize(episodes: Sequence[Episode], manifest: Manifest) -> Summary:
    """Return the summary of a run's episodes.

    Args:
        episodes: at most one of each key.
        manifest: of the run.
    """
    config = manifest.config
    played = {mode: [episode for episode in episodes if episode.mode == mode] for mode in MODES}
    both = config.mode == "both"
    cot = [episode for episode in played["cot"] if episode.error is None]
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
        modes={mode: _mode(mode, some, manifest) for mode, some in played.items() if some},
        gap=_gap(played["prompt"], played["cot"]) if both else None,
        consistency=_consistency(cot) if both else None,
        revisions=_revisions(cot) if both else None,
        prompt_actions=_prompt_actions(cot) if both else None,
        uses_elicitation=manifest.uses_elicitation,
        errors_by_kind=_errors_by_kind(episodes),
    )


def _errors_by_kind(episodes: Sequence[Episode]) -> dict[ErrorKind, ErrorCount]:
    reasons: dict[ErrorKind, Counter[str]] = {}
    for episode in episodes:
        if episode.error is not None and episode.error_kind is not None:
            reasons.setdefault(episode.error_kind, Counter())[episode.error] += 1
    found = {}
    for kind in sorted(reasons):
        ((reason, same),) = reasons[kind].most_common(1)
        found[kind] = ErrorCount(n=reasons[kind].total(), reason=reason, same=same)
    return found


def _mode(mode: Mode, episodes: Sequence[Episode], manifest: Manifest) -> ModeSummary:
    scored = [episode for episode in episodes if episode.error is None]
    config = manifest.config
    longest = config.elicitation.observation_chars
    unpassable = set(env_entry(config.env).source().unpassable(manifest.task_list))
    passable = [episode for episode in scored if episode.task not in unpassable]
    by_type = {name: _success(some) for name, some in sorted(_by_type(scored).items())}

    def total(count: Callable[[Step], float]) -> list[float]:
        return [float(sum(count(step) for step in episode.trajectory)) for episode in scored]

    lengths = [float(episode.steps) for episode in scored]
    truncated = total(lambda step: step.decision.trace_truncated)
    return ModeSummary(
        n=len(scored),
        errors=len(episodes) - len(scored),
        success=_success(scored),
        by_type=by_type,
        macro_success=estimates.average(list(by_type.values())) if len(by_type) > 1 else None,
        passable_success=_success(passable) if unpassable else None,
        score=estimates.score([episode.score for episode in scored]),
        steps=estimates.mean(lengths),
        invalid_actions=estimates.mean(total(lambda step: step.invalid_action is not None)),
        tokens=estimates.mean(total(lambda step: step.decision.generated_tokens)),
        prefilled_tokens=estimates.mean(total(lambda step: step.decision.prefilled_tokens)),
        reused_tokens=estimates.mean(total(lambda step: step.decision.reused_tokens)),
        format_ok=estimates.ratio(total(lambda step: step.decision.format_ok), lengths),
        trace_truncated=estimates.ratio(truncated, lengths) if mode == "cot" else None,
        dropped_observations=sum(any(step.decision.dropped_observations for step in episode.trajectory) for episode in scored),
        cut_observations=sum(any(len(text) > longest for text in _shown_later(episode)) for episode in scored),
        restarts=sum(episode.restarts > 0 for episode in scored),
        leniently_judged=_leniently_judged(scored, env_entry(config.env).leniently_judged()),
    )


def _leniently_judged(scored: Sequence[Episode], judged: Callable[[str, str], str | None]) -> dict[str, int]:
    kinds = Counter(
        judged(episode.task, episode.trajectory[-1].decision.action)
        for episode in scored
        if episode.success and episode.trajectory
    )
    return {kind: count for kind, count in sorted(kinds.items(), key=lambda item: str(item[0])) if kind is not None}


def _success(episodes: Sequence[Episode]) -> Estimate:
    return estimates.rate(sum(episode.success for episode in episodes), len(episodes))


def _by_type(episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    types: dict[str, list[Episode]] = {}
    for episode in episodes:
        types.setdefault(episode.task_type, []).append(episode)
    return types


def _shown_later(episode: Episode) -> list[str]:
    """Return the observations that an agent was shown after the first one, which is never cut."""
    return [step.observation for step in episode.trajectory[:-1]]


def _gap(prompt: Sequence[Episode], cot: Sequence[Episode]) -> Gap:
    by_task = {episode.task: episode for episode in cot if episode.error is None}
    pairs = [(one, by_task[one.task]) for one in prompt if one.error is None and one.task in by_task]
    first, second = [one.success for one, _ in pairs], [two.success for _, two in pairs]
    types = {
        name: estimates.paired_rate_difference([one.success for one in some], [by_task[one.task].success for one in some])
        for name, some in _by_type([one for one, _ in pairs]).items()
    }
    prompt_only = sum(a and not b for a, b in zip(first, second, strict=True))
    cot_only = sum(b and not a for a, b in zip(first, second, strict=True))
    return Gap(
        n=len(pairs),
        success=estimates.paired_rate_difference(first, second),
        p=estimates.mcnemar(prompt_only, cot_only) if pairs else None,
        macro_success=estimates.average(list(types.values())) if len(types) > 1 else None,
        prompt_only=prompt_only,
        cot_only=cot_only,
        score=estimates.paired_score_difference([one.score for one, _ in pairs], [two.score for _, two in pairs]),
    )


def _consistency(cot: Sequence[Episode]) -> Consistency:
    compared = [[step for step in episode.trajectory if step.prompt_action is not None] for episode in cot]
    counts = [float(len(steps)) for steps in compared]
    same = [float(sum(not step.revised for step in steps)) for steps in compared]
    return Consistency(
        states=int(sum(counts)),
        consistency=estimates.ratio(same, counts),
        revision_rate=estimates.ratio([count - agreeing for count, agreeing in zip(counts, same, strict=True)], counts),
    )


def _prompt_actions(cot: Sequence[Episode]) -> PromptActions:
    by_episode = [[step.prompt_decision for step in episode.trajectory if step.prompt_decision is not None] for episode in cot]
    counts = [float(len(decisions)) for decisions in by_episode]
    return PromptActions(
        states=int(sum(counts)),
        tokens=estimates.ratio([float(sum(each.generated_tokens for each in some)) for some in by_episode], counts),
        prefilled_tokens=estimates.ratio([float(sum(each.prefilled_tokens for each in some)) for some in by_episode], counts),
    )


def _revisions(cot: Sequence[Episode]) -> Revisions | None:
    states = revised = helped = hurt = 0
    nets, counts = [], []
    for episode in cot:
        known = [step for step in episode.trajectory if step.expert_action is not None and step.prompt_action is not None]
        changed = [step for step in known if step.revised]
        better = sum(step.action == step.expert_action for step in changed)
        worse = sum(step.prompt_action == step.expert_action for step in changed)
        states, revised, helped, hurt = states + len(known), revised + len(changed), helped + better, hurt + worse
        nets.append(float(better - worse))
        counts.append(float(len(known)))
    if states == 0:
        return None
    return Revisions(
        states=states,
        revised=revised,
        helped=helped,
        hurt=hurt,
        neither=revised - helped - hurt,
        net=estimates.ratio(nets, counts),
    )
