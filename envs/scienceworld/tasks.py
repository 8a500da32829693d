"""Registered ScienceWorld tasks. Invariant: upstream's own train, dev and test variations; a variation that does not exist is
refused, where upstream would load something called "unknown".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from cotbench.envs.splits import Rule, is_out_of_domain, manifest, split_tasks
from cotbench.errors import UnknownNameError
from cotbench.installation import install_command

_PACKAGE = "cotbench.envs.scienceworld"
PREFIX = "scienceworld/"


@dataclass(frozen=True, slots=True)
class TaskType:
    """One of the 30 task types.

    Attributes:
        id: upstream's number, topic and place in it ("1-4").
        variations: upstream's split -> its first and last variation.
        steps: the step budget: what the literature gives a type (ETO), but at least the longest of six gold paths and a fifth.
    """

    id: str
    variations: Mapping[str, tuple[int, int]]
    steps: int

    @property
    def count(self) -> int:
        """Number of variations."""
        return max(last for _, last in self.variations.values()) + 1


@cache
def task_types() -> Mapping[str, TaskType]:
    """Return name -> task type, sorted."""
    table = json.loads(files(_PACKAGE).joinpath("variations.json").read_text("utf-8"))
    return {
        name: TaskType(row["id"], {split: (row[split][0], row[split][1]) for split in ("train", "dev", "test")}, row["steps"])
        for name, row in table.items()
    }


def read_task(task: str) -> tuple[str, int]:
    """Return type and variation of a task id.

    Raises:
        UnknownNameError: there is no such task.
    """
    name, _, number = task.removeprefix(PREFIX).partition("/")
    types = task_types()
    if not task.startswith(PREFIX) or name not in types:
        raise UnknownNameError("task", task, [f"{PREFIX}{known}/0" for known in types])
    plain = number.isascii() and number.isdecimal() and len(number) <= 9 and str(int(number)) == number
    if not plain or int(number) >= types[name].count:
        raise UnknownNameError("task", task, [f"{PREFIX}{name}/0 to {PREFIX}{name}/{types[name].count - 1}"])
    return name, int(number)


class ScienceWorldTasks:
    """Variations of upstream's 30 task types, 7,207 in all; everything is in its package."""

    def schemes(self) -> Mapping[str, Sequence[str]]:
        """Return scheme -> names of its splits."""
        return {scheme: list(splits) for scheme, splits in manifest(_PACKAGE)["scienceworld"].items()}

    def tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids of a split."""
        return split_tasks(_PACKAGE, "scienceworld", scheme, split, expand)

    def task_type(self, task: str) -> str:
        """Return the second part of the id."""
        return read_task(task)[0]

    def scenario(self, task: str) -> str:
        """Return the task itself: nothing is shared."""
        return task

    def out_of_domain(self, scheme: str, split: str) -> bool:
        """Tell whether a split tests outside of what is trained on."""
        return is_out_of_domain(_PACKAGE, "scienceworld", scheme, split)

    def missing(self, tasks: Sequence[str], data: Path | None) -> list[str]:
        """Return no task: the simulator brings its tasks."""
        return []

    def remedy(self, data: Path | None) -> str:
        """Return the command that installs the simulator."""
        return install_command("scienceworld")

    def unpassable(self, tasks: Sequence[str]) -> list[str]:
        """Return no task: all can be won."""
        return []

    def data_version(self, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
        """Return the simulator's version."""
        return {"scienceworld": version("scienceworld")}


def expand(rule: Rule) -> list[str]:
    """Return the ids of a manifest's rule: upstream's `variations` of the `types`, at most `cap` of a type, spread evenly.

    Args:
        rule: the split's entry in `splits.json`.
    """
    ids = []
    for name in rule["types"]:
        first, last = task_types()[name].variations[rule["variations"]]
        count = last - first + 1
        size = min(count, rule.get("cap", count))
        ids += [f"{PREFIX}{name}/{first + index * count // size}" for index in range(size)]
    return ids
