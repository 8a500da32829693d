"""All splits of all environments as one table. Invariant: a row for each task of each split, from the registry, sorted."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cotbench.envs.registry import env_entry, env_names

SPLITS_CSV = "splits.csv"


class SplitRow(NamedTuple):
    """A task of a split.

    Attributes:
        env, scheme, split: whose task it is.
        out_of_domain: whether the split tests outside of what is trained on.
        task: the task's id.
        task_type: its kind within the environment.
    """

    env: str
    scheme: str
    split: str
    out_of_domain: bool
    task: str
    task_type: str


def split_rows() -> Iterator[SplitRow]:
    """Yield the tasks of every split of the registered environments."""
    for env in env_names():
        source = env_entry(env).source()
        for scheme, splits in source.schemes().items():
            for split in splits:
                outside = source.out_of_domain(scheme, split)
                for task in source.tasks(scheme, split):
                    yield SplitRow(env, scheme, split, outside, task, source.task_type(task))


def write_split_table(folder: Path) -> Path:
    """Write the table as CSV, and return its file.

    Args:
        folder: where it is written.
    """
    path = folder / SPLITS_CSV
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(SplitRow._fields)
        rows.writerows(split_rows())
    return path
