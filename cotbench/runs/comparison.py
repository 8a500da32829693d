"""Comparison of two runs on the same tasks. Invariant: every difference is second minus first, on the tasks that both runs have
finished; runs whose questions differ are compared only on demand, with the differences listed; all p-values are one family.

An episode that ended in an error has no score: its task is left out of every number that needs the episode. Of several samples
of a task each number is the mean over those that were played to their end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from cotbench.agents.hf.loading import ALIASES
from cotbench.envs.splits import digest
from cotbench.errors import UsageError
from cotbench.notebook import Display, Displayed
from cotbench.paper import Success, paper_model, reported
from cotbench.prompting.elicitation import MODES, Elicitation, Mode
from cotbench.runs.episode import rows_of
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.results import Run
from cotbench.runs.task_rows import TaskRows, by_task
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate
from cotbench.stats.multiple_testing import Adjusted, holm

_FROZEN = ConfigDict(frozen=True)
NAMED = "tasks"
_LONGEST_VALUE = 60
_OF_THE_TASKS = ("games_sha256",)
"""Fields of the data that differ wherever the tasks differ."""


class Paired(BaseModel):
    """One quantity in both runs, paired by task.

    Attributes:
        difference: second minus first, paired; its `n` is the number of tasks.
        p: two-sided; None where nothing is tested. Its adjusted value is in the comparison's family.
    """

    model_config = _FROZEN

    first: Estimate
    second: Estimate
    difference: Estimate
    p: float | None = None


class ModeComparison(BaseModel):
    """The episodes of one mode in both runs. Intervals are over tasks.

    Attributes:
        n: tasks that both runs finished; `errors` were left out because an episode of them failed.
        success: Wilson, Newcombe's paired difference, exact McNemar; where a run has several samples of a task, bootstrap and
            exchange test.
        first_only: the tasks won by the first run alone, of several samples more often; `second_only` likewise.
        by_type: success of each task type; not tested.
        score: tested where it is not the same as success.
        steps: actions an episode; `tokens` generated an episode. Not tested.
    """

    model_config = _FROZEN

    n: int
    errors: int
    success: Paired
    first_only: tuple[str, ...]
    second_only: tuple[str, ...]
    by_type: dict[str, Paired]
    score: Paired
    steps: Paired
    tokens: Paired


class Side(BaseModel):
    """One of the two runs of a comparison.

    Attributes:
        left_out: tasks of this run that the other run does not have.
        episodes: episodes recorded so far, of `planned`; `errors` of them failed.
        split: the split, or "tasks" where the tasks were given as a list.
        model: the paper's model that the agent is, or was trained from; None where it is none of them.
        samples: episodes of each task and mode; left out of JSON where it is one.
    """

    model_config = _FROZEN

    folder: str
    agent: str
    scheme: str
    split: str
    seed: int
    elicitation: str
    tasks: int
    left_out: int
    episodes: int
    planned: int
    errors: int
    partial: bool
    model: str | None
    samples: int = Field(1, exclude_if=lambda value: value == 1)


class EnvComparison(BaseModel):
    """Two runs on one environment.

    Attributes:
        tasks: number of tasks in common.
        gap: CoT minus prompt of each run, and their difference (difference in differences), on the tasks that both runs
            finished in both modes; exchange test.
        consistency: share of states with prompt action = CoT action, at the states of each run's own CoT episodes; exchange
            test.
        asked_otherwise: the differences in elicitation; empty unless the caller allowed them.
        reported: the numbers that the paper reports for the models and the split, where asked for.
    """

    model_config = _FROZEN

    env: str
    first: Side
    second: Side
    tasks: int
    modes: dict[Mode, ModeComparison]
    gap: Paired | None
    consistency: Paired | None
    asked_otherwise: tuple[str, ...]
    reported: tuple[Success, ...]


class Comparison(Displayed, BaseModel):
    """Two runs, or the runs of two suites.

    Attributes:
        left_out: environments that only one of them has played.
        family: every p-value, with Holm's adjustment over all of them, by `name_of_test`.
    """

    model_config = _FROZEN

    format: int = 1
    envs: dict[str, EnvComparison]
    left_out: tuple[str, ...]
    family: dict[str, Adjusted]

    def _display(self) -> Display:
        from cotbench.runs.display import comparison_display

        return comparison_display(self)


def name_of_test(env: str, quantity: str, mode: Mode | None = None) -> str:
    """Return the name of a test in the family of p-values, such as `alfworld-gen success cot` or `alfworld-gen gap`.

    Args:
        env: name of the environment.
        quantity: name of the quantity.
        mode: `prompt` or `cot`; None for a quantity of both modes.
    """
    return " ".join(part for part in (env, quantity, mode) if part is not None)


def compare_runs(
    first: Mapping[str, Run], second: Mapping[str, Run], *, anyway: bool = False, with_paper: bool = False
) -> Comparison:
    """Return the comparison of two runs, or of two suites environment by environment.

    Args:
        first: environment -> run; one item for a single run.
        second: the same for the other side.
        anyway: compare although the two runs were elicited differently.
        with_paper: add the numbers that the paper reports.

    Raises:
        UsageError: no environment or no task in common, or the two were elicited differently.
    """
    common = [env for env in first if env in second]
    if not common:
        raise UsageError(
            f"nothing to compare: one run is on {', '.join(first)}, the other on {', '.join(second)}; "
            "give two runs on the same environment"
        )
    envs = {env: _compare_env(env, first[env], second[env], anyway, with_paper) for env in common}
    p_values = {name: p for env in envs.values() for name, p in _p_values(env).items()}
    left_out = tuple(env for env in (*first, *second) if env not in common)
    return Comparison(envs=envs, left_out=left_out, family=holm(p_values))


def elicitation_differences(first: Run, second: Run) -> list[str]:
    """Return the differences in the questions, the rules or the data of two runs, most important first; empty where there are
    none.
    """
    one, two = first.manifest, second.manifest
    found = []
    if one.elicitation_fingerprint != two.elicitation_fingerprint:
        before, after = one.config.elicitation, two.config.elicitation
        found = [
            f"{name} is {_described(getattr(before, name))} in the first and {_described(getattr(after, name))} in the second"
            for name in Elicitation.model_fields
            if getattr(before, name) != getattr(after, name)
        ] or ["the fixed texts of the elicitation are those of another version of cotbench"]
    if one.played_dialect != two.played_dialect:
        found.append(f"the dialect of the data is {one.played_dialect!r} in the first and {two.played_dialect!r} in the second")
    elif one.instructions_sha256 != two.instructions_sha256:
        found.append("the environment's instructions are those of another version of cotbench")
    if first.summary.max_steps != second.summary.max_steps:
        found.append(f"max_steps is {first.summary.max_steps} in the first and {second.summary.max_steps} in the second")
    same_tasks = one.task_list == two.task_list
    for name in sorted({*one.data} & {*two.data}):
        if one.data[name] != two.data[name] and (same_tasks or name not in _OF_THE_TASKS):
            found.append(f"the data ({name}) is {one.data[name][:16]} in the first and {two.data[name][:16]} in the second")
    return found


def _described(value: object) -> str:
    """Return a value of an elicitation as a message has it: of a long text its length, and what tells it from another."""
    text = repr(value)
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"a text of {len(value) if isinstance(value, str) else len(text)} characters ({digest([text])[:8]})"


def _compare_env(env: str, first: Run, second: Run, anyway: bool, with_paper: bool) -> EnvComparison:
    otherwise = elicitation_differences(first, second)
    if otherwise and not anyway:
        raise UsageError(
            f"{first.path} and {second.path} were played with different settings: {otherwise[0]}; play one again, or compare "
            "them with --anyway"
        )
    common = {*first.manifest.task_list} & {*second.manifest.task_list}
    if not common:
        raise UsageError(
            f"{first.path} and {second.path} have no task in common: play both on the same split, --seed and --episodes"
        )
    # In the first run's order.
    tasks = [task for task in first.manifest.task_list if task in common]
    one, two = _by_key(rows_of(first.records)), _by_key(rows_of(second.records))
    played = [mode for mode in MODES if one.has(mode) and two.has(mode)]
    if not played:
        raise UsageError(f"{first.path} and {second.path} have no mode in common: play one of them again, in mode both")
    sides = [_side(first, len(common)), _side(second, len(common))]
    return EnvComparison(
        env=env,
        first=sides[0],
        second=sides[1],
        tasks=len(common),
        modes={mode: _mode(mode, tasks, one, two) for mode in played},
        gap=_gap(tasks, one, two) if len(played) == len(MODES) else None,
        consistency=_consistency(tasks, one, two),
        asked_otherwise=tuple(otherwise),
        reported=_reported(env, sides) if with_paper else (),
    )


def _reported(env: str, sides: Sequence[Side]) -> tuple[Success, ...]:
    """Return the numbers that the paper reports for the models of both sides on their splits, each once."""
    wanted = dict.fromkeys((side.model, side.split, side.scheme) for side in sides if side.model is not None)
    return tuple(row for model, split, scheme in wanted for row in reported(model, env, split, scheme))


@dataclass(frozen=True, slots=True)
class _Played:
    """The episodes of a run by task and mode.

    Attributes:
        finished: the samples that were played to their end, where there is one.
        failed: task and mode of those without any.
    """

    finished: Mapping[tuple[str, Mode], TaskRows]
    failed: frozenset[tuple[str, Mode]]

    def has(self, mode: Mode) -> bool:
        """Return whether an episode of the mode was recorded, finished or failed."""
        return any(key[1] == mode for key in (*self.finished, *self.failed))


def _by_key(rows: Sequence[EpisodeRow]) -> _Played:
    finished = {(one.task, mode): one for mode in MODES for one in by_task(row for row in rows if row.mode == mode)}
    return _Played(finished, frozenset((row.task, row.mode) for row in rows) - finished.keys())


def _side(run: Run, common: int) -> Side:
    manifest = run.manifest
    config = manifest.config
    return Side(
        folder=str(run.path),
        agent=config.agent,
        scheme=config.scheme,
        split=config.split if config.tasks is None else NAMED,
        seed=config.seed,
        elicitation=manifest.elicitation_fingerprint,
        tasks=len(manifest.task_list),
        left_out=len(manifest.task_list) - common,
        episodes=len(run.records),
        planned=len(manifest.task_list) * config.samples * (len(MODES) if config.mode == "both" else 1),
        errors=sum(row.error is not None for row in rows_of(run.records)),
        partial=manifest.partial,
        model=paper_model(config.agent, manifest.agent, ALIASES),
        samples=config.samples,
    )


def _finished(tasks: Sequence[str], modes: Sequence[Mode], sides: Sequence[_Played]) -> list[str]:
    """Return the tasks that both runs finished in these modes."""
    return [task for task in tasks if all((task, mode) in side.finished for side in sides for mode in modes)]


def _mode(mode: Mode, tasks: Sequence[str], one: _Played, two: _Played) -> ModeComparison:
    finished = _finished(tasks, (mode,), (one, two))
    pairs = [(one.finished[task, mode], two.finished[task, mode]) for task in finished]
    failed = sum((task, mode) in one.failed | two.failed for task in tasks)
    types = dict.fromkeys(sorted(a.task_type for a, _ in pairs))
    return ModeComparison(
        n=len(pairs),
        errors=failed,
        success=_success(pairs, tested=True),
        first_only=tuple(a.task for a, b in pairs if a.success > b.success),
        second_only=tuple(b.task for a, b in pairs if b.success > a.success),
        by_type={name: _success([pair for pair in pairs if pair[0].task_type == name], tested=False) for name in types},
        score=_score(pairs),
        steps=_mean(pairs, lambda row: row.steps),
        tokens=_mean(pairs, lambda row: row.generated_tokens),
    )


_Pairs = Sequence[tuple[TaskRows, TaskRows]]


def _success(pairs: _Pairs, *, tested: bool) -> Paired:
    first, second = [a.success for a, _ in pairs], [b.success for _, b in pairs]
    return Paired(
        first=estimates.score(first),
        second=estimates.score(second),
        difference=estimates.paired_score_difference(first, second),
        p=estimates.paired_test(first, second) if tested and len(pairs) > 1 else None,
    )


def _score(pairs: _Pairs) -> Paired:
    first, second = [a.score for a, _ in pairs], [b.score for _, b in pairs]
    same_as_success = all(row.score == row.success for pair in pairs for row in pair)
    return Paired(
        first=estimates.score(first),
        second=estimates.score(second),
        difference=estimates.paired_score_difference(first, second),
        p=estimates.permutation(first, second) if not same_as_success and len(pairs) > 1 else None,
    )


def _mean(pairs: _Pairs, count: Callable[[EpisodeRow], int]) -> Paired:
    first, second = [a.mean(count) for a, _ in pairs], [b.mean(count) for _, b in pairs]
    return Paired(
        first=estimates.mean(first),
        second=estimates.mean(second),
        difference=estimates.mean([b - a for a, b in zip(first, second, strict=True)]),
    )


def _gap(tasks: Sequence[str], one: _Played, two: _Played) -> Paired:
    finished = _finished(tasks, MODES, (one, two))
    won = [[[side.finished[task, mode].success for task in finished] for mode in MODES] for side in (one, two)]
    gaps = [[cot - prompt for prompt, cot in zip(*modes, strict=True)] for modes in won]
    return Paired(
        first=estimates.paired_score_difference(*won[0]),
        second=estimates.paired_score_difference(*won[1]),
        difference=estimates.mean([b - a for a, b in zip(*gaps, strict=True)]),
        p=estimates.permutation(*gaps) if len(finished) > 1 else None,
    )


def _consistency(tasks: Sequence[str], one: _Played, two: _Played) -> Paired | None:
    """Return the difference in consistency; None where a run recorded no prompt actions beside its CoT actions."""
    finished = _finished(tasks, ("cot",), (one, two))
    same, counts = [], []
    for side in (one, two):
        cot = [side.finished[task, "cot"] for task in finished]
        counts.append([float(each.total(lambda row: row.compared)) for each in cot])
        same.append([float(each.total(lambda row: row.compared - row.revised)) for each in cot])
    if not all(sum(side) for side in counts):
        return None
    return Paired(
        first=estimates.ratio(same[0], counts[0]),
        second=estimates.ratio(same[1], counts[1]),
        difference=estimates.paired_ratio_difference(same[0], counts[0], same[1], counts[1]),
        p=estimates.permutation(same[0], same[1], counts[0], counts[1]) if len(finished) > 1 else None,
    )


def _p_values(compared: EnvComparison) -> dict[str, float | None]:
    env = compared.env
    found: dict[str, float | None] = {}
    for mode, one in compared.modes.items():
        found[name_of_test(env, "success", mode)] = one.success.p
        found[name_of_test(env, "score", mode)] = one.score.p
    found[name_of_test(env, "gap")] = compared.gap.p if compared.gap is not None else None
    found[name_of_test(env, "consistency")] = compared.consistency.p if compared.consistency is not None else None
    return found
