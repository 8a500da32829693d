"""Which tasks are scored. Invariant: nothing is trained on a task of a scored split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.envs.bfcl.tasks import scenario
from cotbench.envs.registry import env_entry, env_names
from cotbench.errors import UsageError


def check_trainable(demonstrations: Iterable[Demonstration]) -> None:
    """Refuse to train on what is scored.

    Raises:
        UsageError: names the first task that belongs to a scored split.
    """
    check_tasks(demonstration.task for demonstration in demonstrations)


def check_tasks(tasks: Iterable[str]) -> None:
    """Refuse tasks that are scored: those of every split but `train`, the training tasks of scheme `paper` excepted, and every
    BFCL task of a scenario that scheme `paper` scores.

    Raises:
        UsageError: names the first one.
    """
    scored, scenarios = _scored()
    for task in tasks:
        where = scenarios.get(scenario(task)) if task.startswith("bfcl/") else None
        where = where or scored.get(task)
        if where is not None:
            raise UsageError(
                f"{task} is scored ({where}): nothing may be trained on it; take tasks of split train (cotbench list tasks)"
            )


@cache
def _scored() -> tuple[Mapping[str, str], Mapping[int | None, str]]:
    """Each scored task, and each scenario of BFCL that scheme `paper` scores, with the split that does."""
    scored: dict[str, str] = {}
    scenarios: dict[int | None, str] = {}
    for env in env_names():
        source = env_entry(env).source()
        for scheme, splits in sorted(source.schemes().items(), reverse=True):  # `paper` before `official`: the nearer reason.
            for split in splits:
                if split == "train":
                    continue
                tasks = source.tasks(scheme, split)
                scored = dict.fromkeys(tasks, f"{env} {scheme}/{split}") | scored
                if env == "bfcl" and scheme == "paper":
                    scenarios = {scenario(task): f"{env} {scheme}/{split} has its scenario" for task in tasks} | scenarios
        for task in source.tasks("paper", "train"):
            scored.pop(task, None)  # Upstream's BFCL has no training split: its categories hold our training tasks too.
    return scored, scenarios
