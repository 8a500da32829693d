"""The plan of a run: the tasks that are played. Invariant: a plan is a function of the config and of the data on this
machine.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.envs.tasks import first_tasks, playable
from cotbench.errors import UnknownNameError, UsageError
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.env_workers import EnvSettings
from cotbench.runs.manifest import RunConfig
from cotbench.runs.rollout import RolloutRules, RolloutSpec


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run's tasks, chosen before anything is started.

    Attributes:
        entry: the environment.
        tasks: what is played, in order.
        split_tasks: how many tasks the whole split has.
        partial: whether games of the split were left out because they are not on this machine.
    """

    config: RunConfig
    entry: EnvEntry
    tasks: tuple[str, ...]
    split_tasks: int
    partial: bool

    @property
    def rollouts(self) -> list[RolloutSpec]:
        """Episodes to play: each task in each mode, as often as there are samples."""
        modes: Sequence[Mode] = MODES if self.config.mode == "both" else (self.config.mode,)
        source = self.entry.source()
        return [
            RolloutSpec(task, source.task_type(task), mode, sample)
            for task in self.tasks
            for sample in range(self.config.samples)
            for mode in modes
        ]

    def env_settings(self, request: Collection[str], data: Path | None, *, dialect: str, expert: str = "") -> EnvSettings:
        """Return how the environments of the run are made.

        Args:
            request: what they report beyond the observation: "admissible_actions", "expert_action".
            data: the folder with game data, where given.
            dialect: how the data spell actions; empty: the environment's own.
            expert: whose actions are reported; empty: the environment's usual one.
        """
        config = self.config
        arguments = {
            "split": config.split,
            "scheme": config.scheme,
            "max_steps": config.max_steps,
            "request": sorted(request),
            **({"expert": expert} if expert else {}),
            **({"data": data} if self.entry.takes_data else {}),
        }
        return EnvSettings(config.env, arguments, dialect=dialect)

    def rules(self, dialect: str) -> RolloutRules:
        """Return what is the same for all episodes of the run.

        Args:
            dialect: how the data spell actions; empty: the environment's own.
        """
        config, entry = self.config, self.entry.in_dialect(dialect)
        return RolloutRules(
            env=config.env,
            instructions=entry.instructions(),
            elicitation=config.elicitation,
            seed=config.seed,
            both=config.mode == "both",
            canonical=entry.canonical(),
        )


def make_plan(config: RunConfig, data: Path | None = None) -> RunPlan:
    """Choose the tasks of a run; start no engine and no model.

    `episodes` tasks are drawn from the split by the seed; a smaller number gives the first ones of a larger. Without a number,
    the tasks are the split's first ones, which is all of most splits (`envs.tasks.first_tasks`).

    Args:
        config: the settings of the run.
        data: the folder with game data, for environments that read one.

    Raises:
        UnknownNameError: no such environment, scheme, split, task or expert.
        MissingDataError: games are not on this machine.
        UsageError: more episodes than the split has tasks, or options that contradict each other.
    """
    entry = env_entry(config.env)
    _check_expert(config, entry)
    source = entry.source()
    all_tasks = source.tasks(config.scheme, config.split)
    if data is not None and not entry.takes_data:
        raise UsageError(f"environment {config.env!r} does not read a data folder: omit --data")
    if config.tasks is not None:
        if config.episodes is not None:
            raise UsageError("--task names the tasks and --episodes draws them: give one of the two")
        known = {
            task for scheme, splits in source.schemes().items() for split in splits for task in source.tasks(scheme, split)
        }
        for task in config.tasks:
            if task not in known:
                raise UnknownNameError("task", task, known, f"of {config.env}")
        named = tuple(dict.fromkeys(config.tasks))
        tasks = playable(source, named, data, "given", config.available_only)
        return RunPlan(config, entry, tasks, len(named), len(tasks) < len(named))
    available = playable(source, all_tasks, data, config.split, config.available_only)
    first = frozenset(first_tasks(source, config.scheme, config.split))
    chosen = [task for task in available if task in first]
    if config.episodes is not None:
        if config.episodes > len(available):
            raise UsageError(
                f"--episodes {config.episodes} is more than the {len(available)} tasks of "
                f"{config.env} {config.scheme}/{config.split}"
            )
        chosen = draw_tasks(available, config.episodes, config.seed, first)
    return RunPlan(config, entry, tuple(chosen), len(all_tasks), len(available) < len(all_tasks))


def _check_expert(config: RunConfig, entry: EnvEntry) -> None:
    if config.expert is None:
        return
    if entry.experts is None:
        raise UsageError(f"environment {entry.name!r} has one expert: omit --expert")
    if config.expert not in entry.experts:
        raise UnknownNameError("expert", config.expert, entry.experts, f"of {entry.name}")
    if config.expert_actions is False:
        raise UsageError(f"--expert {config.expert} records its actions and --no-expert-actions none: give one of the two")


def draw_tasks(tasks: Sequence[str], episodes: int, seed: int, first: Collection[str]) -> list[str]:
    """Draw tasks by a seed; a smaller number gives the first ones of a larger.

    Args:
        tasks: task ids to draw from.
        episodes: how many to draw.
        seed: of the random order.
        first: tasks that are drawn before all others, whatever the seed.
    """
    rng = random.Random(f"cotbench-tasks-{seed}")
    ahead, others = [task for task in tasks if task in first], [task for task in tasks if task not in first]
    rng.shuffle(ahead)
    rng.shuffle(others)
    return [*ahead, *others][:episodes]
