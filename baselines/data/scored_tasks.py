"""Tasks that nothing is trained on. Invariant: neither a task of a scored split or of one for tuning, nor one that shares its
scenario.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.envs.registry import EnvEntry, env_entry, env_names
from cotbench.envs.splits import DEV, TRAIN
from cotbench.errors import UsageError

_PAPER = "paper"


def check_trainable(demonstrations: Iterable[Demonstration]) -> None:
    """Refuse to train on what is scored or tuned on.

    Raises:
        UsageError: names the first task that belongs to a scored split or to `dev`.
    """
    check_tasks(demonstration.task for demonstration in demonstrations)


def check_tasks(tasks: Iterable[str]) -> None:
    """Refuse tasks that are scored or tuned on.

    These are the tasks of every split but `train`, the training tasks of scheme `paper` excepted, and every task of a scenario
    that scheme `paper` scores or tunes on.

    Args:
        tasks: task ids of any environment.

    Raises:
        UsageError: names the first one.
    """
    scored = _scored_tasks(tuple(env_names()))
    for task in tasks:
        if task in scored:
            raise UsageError(
                f"{task} is {scored[task]}: it must not be trained on; use tasks of split train (cotbench list tasks)"
            )


@cache
def _scored_tasks(envs: tuple[str, ...]) -> Mapping[str, str]:
    """Return each task that nothing may be trained on, with the reason: "scored (alfworld-gen paper/id)"."""
    found: dict[str, str] = {}
    for env in envs:
        found |= _scored_of(env_entry(env))
    return found


def _scored_of(entry: EnvEntry) -> dict[str, str]:
    source = entry.source()
    splits = [  # `paper` before `official`, so that it is named as the reason.
        (scheme, split, source.tasks(scheme, split))
        for scheme, names in sorted(source.schemes().items(), reverse=True)
        for split in names
    ]
    scored: dict[str, str] = {}
    scenarios: dict[object, str] = {}
    for scheme, split, tasks in splits:
        if split == TRAIN:
            continue
        reason = f"{'for tuning' if split == DEV else 'scored'} ({entry.name} {scheme}/{split}"
        scored = dict.fromkeys(tasks, f"{reason})") | scored
        if scheme == _PAPER:
            shared = {source.scenario(task) for task in tasks if source.scenario(task) != task}
            scenarios = dict.fromkeys(shared, f"{reason} has its scenario)") | scenarios
    for scheme, split, tasks in splits:
        if (scheme, split) == (_PAPER, TRAIN):
            for task in tasks:  # A benchmark without a training split of its own holds our training tasks in what it scores.
                scored.pop(task, None)
    everything = {task for _, _, tasks in splits for task in tasks} if scenarios else set()
    return scored | {task: scenarios[source.scenario(task)] for task in everything if source.scenario(task) in scenarios}
