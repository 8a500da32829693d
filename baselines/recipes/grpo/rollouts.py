"""Rollouts by the model in training. Invariant: an episode depends on the weights, the task, the batch, its rollout number and
the seed alone: a training that is resumed plays what one that was never interrupted plays, and several processes play together
what one plays.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cotbench.agents.base import StreamingAgent
from cotbench.baselines.data.scored_tasks import check_tasks
from cotbench.baselines.recipes.grpo.config import GRPOConfig
from cotbench.baselines.recipes.grpo.policy import LIVE, Policy
from cotbench.baselines.training.processes import Processes
from cotbench.envs.registry import env_entry
from cotbench.envs.splits import DEV, TRAIN
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.query import derive_seed
from cotbench.runs.env_workers import EnvHandle, open_envs
from cotbench.runs.episode import Episode
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import RunPlan, make_plan
from cotbench.runs.rollout import RolloutRules, RolloutSpec, play


def train_plan(config: GRPOConfig, elicitation: Elicitation) -> RunPlan:
    """Return the tasks that are trained on, and how they are played: sampled at temperature 1.

    Args:
        config: the options.
        elicitation: of evaluation.

    Raises:
        UsageError: there are fewer tasks than groups, or a task that is scored or tuned on.
        UnknownNameError: no such environment or scheme.
    """
    sampled = elicitation.model_copy(update={"temperature": 1.0, "top_p": 1.0})
    plan = make_plan(_run(config, TRAIN, config.train_tasks, sampled))
    check_tasks(plan.tasks)
    if config.groups > len(plan.tasks):
        raise UsageError(
            f"{config.groups} groups are more than the {len(plan.tasks)} tasks of split train that are played: lower --groups, "
            "or raise --train-tasks"
        )
    return plan


def dev_plan(config: GRPOConfig, elicitation: Elicitation) -> RunPlan | None:
    """Return the tasks of split dev: `dev_episodes`, or all where it has fewer; None where none are played.

    They are asked as evaluation asks, and have the step budget of the rollouts.

    Args:
        config: the options.
        elicitation: of evaluation.

    Raises:
        UnknownNameError: no such environment, or its scheme has no split dev.
    """
    if not config.dev_episodes:
        return None
    tasks = env_entry(config.env).source().tasks(config.scheme, DEV)
    return make_plan(_run(config, DEV, min(config.dev_episodes, len(tasks)), elicitation))


def _run(config: GRPOConfig, split: str, episodes: int | None, elicitation: Elicitation) -> RunConfig:
    return RunConfig(
        agent=LIVE,
        env=config.env,
        scheme=config.scheme,
        split=split,
        mode="cot",
        episodes=episodes,
        seed=config.seed,
        max_steps=config.max_episode_steps,
        elicitation=elicitation,
    )


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """Tasks of one batch of rollouts.

    Attributes:
        update: which batch it is, counted from 0.
        epoch: how often all tasks were gone through before.
        progress: share of the training that lies before it, in [0, 1).
        tasks: the tasks of its groups; no two are the same.
    """

    update: int
    epoch: int
    progress: float
    tasks: tuple[str, ...]


def task_batches(tasks: Sequence[str], groups: int, updates: int, seed: int) -> list[TaskBatch]:
    """Return the tasks of each batch: all in random order, then all in another.

    Args:
        tasks: at least `groups`.
        groups: tasks of a batch.
        updates: number of batches.
        seed: of the order.
    """
    found: list[TaskBatch] = []
    epoch = 0
    while len(found) < updates:
        order = sorted(tasks)
        random.Random(f"cotbench-grpo-{seed}-{epoch}").shuffle(order)
        for start in range(0, len(order) - groups + 1, groups):
            if len(found) < updates:
                progress = len(found) / updates
                found.append(TaskBatch(len(found), epoch, progress, tuple(order[start : start + groups])))
        epoch += 1
    return found


@dataclass(slots=True)
class _Collector:
    """Observer that keeps the episodes, by their keys."""

    episodes: dict[str, Episode] = field(default_factory=dict)

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Do nothing."""

    def finished(self, episode: Episode) -> None:
        """Keep an episode."""
        self.episodes[episode.key] = episode


class Player:
    """Plays episodes with a model that is being trained.

    Args:
        policy: the model, as an agent; whoever changes the weights calls its `refresh`.
        train: the tasks that are trained on, and how they are played.
        dev: the same of split dev; None where it is not played.
        seed: of the training.
        workers: processes that the environments live in; 0: this one.
        processes: that train together, and share out split dev; default: this one alone.
    """

    def __init__(
        self,
        policy: Policy,
        train: RunPlan,
        dev: RunPlan | None,
        *,
        seed: int,
        workers: int = 1,
        processes: Processes | None = None,
    ) -> None:
        self._processes = processes or Processes()
        self._policy = policy
        self._train, self._dev, self._seed, self._workers = train, dev, seed, workers
        self._envs: list[EnvHandle] = []
        policy.require(train.config.elicitation)

    def groups(self, batch: TaskBatch, size: int) -> list[list[Episode]]:
        """Return the rollouts of each task of a batch, in CoT mode, with the token ids of every answer.

        Args:
            batch: the tasks, or this process's share of them.
            size: rollouts of each.
        """
        if not batch.tasks:
            return []
        source = self._train.entry.source()
        units = [[RolloutSpec(task, source.task_type(task), "cot", number) for number in range(size)] for task in batch.tasks]
        rules = replace(_rules(self._train), seed=derive_seed(self._seed, "grpo", batch.update), return_tokens=True)
        flat = [unit for group in units for unit in group]
        with self._policy.answering() as agent:
            if not self._envs:
                self._envs = self._open(self._train, min(len(flat), agent.batch))
            episodes = _played(flat, agent, self._envs, rules)
        return [[episodes[unit.key] for unit in group] for group in units]

    def dev_success(self) -> dict[str, float]:
        """Return mode -> the share of the tasks of split dev that are solved, asked as in evaluation and played for as many
        steps as the rollouts; empty without any.

        Each process plays its share of them.

        Raises:
            AgentError: an episode ended in an error: it has no score.
        """
        if self._dev is None:
            return {}
        self._policy.refresh()
        outcomes = self._processes.together(self._dev_outcomes)
        won = {mode: [success for one in outcomes for success in one.get(mode, ())] for mode in MODES}
        return {mode: sum(one) / len(one) for mode, one in won.items() if one}

    def _dev_outcomes(self) -> dict[str, list[bool]]:
        """Return mode -> which tasks of this process's share of split dev are solved."""
        tasks = self._processes.share(self._dev.tasks) if self._dev is not None else ()
        if self._dev is None or not tasks:
            return {}
        source = self._dev.entry.source()
        units = [RolloutSpec(task, source.task_type(task), mode) for task in tasks for mode in MODES]
        with self._policy.answering() as agent:
            envs = self._open(self._dev, min(len(units), agent.batch))
            try:
                episodes = _played(units, agent, envs, _rules(self._dev)).values()
            finally:
                _close(envs)
        failed = next((episode for episode in episodes if episode.error is not None), None)
        if failed is not None:
            raise AgentError(f"split dev cannot be played, {failed.key} ended in an error: {failed.error}")
        return {mode: [episode.success for episode in episodes if episode.mode == mode] for mode in MODES}

    def close(self) -> None:
        """Free the environments, and what answers; the model stays as it is."""
        _close(self._envs)
        self._envs = []
        self._policy.close()

    def _open(self, plan: RunPlan, count: int) -> list[EnvHandle]:
        """Return environments."""
        request: set[str] = {"admissible_actions"} if plan.config.elicitation.needs_admissible else set()
        settings = plan.env_settings(request, None, dialect=plan.entry.dialect_of(plan.tasks, None))
        return open_envs(settings, count, min(count, self._workers))


def _played(
    units: Sequence[RolloutSpec], agent: StreamingAgent, envs: Sequence[EnvHandle], rules: RolloutRules
) -> dict[str, Episode]:
    collector = _Collector()
    play(units, agent, envs, rules, collector)
    return collector.episodes


def _rules(plan: RunPlan) -> RolloutRules:
    return plan.rules(plan.entry.dialect_of(plan.tasks, None))


def _close(envs: Sequence[EnvHandle]) -> None:
    for env in envs:
        with suppress(OSError):
            env.close()
