"""The finished episodes of one task in one mode. Invariant: statistics over tasks take a task as one unit, however many samples
of it were played; with one sample its numbers are the episode's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cotbench.runs.episode_row import EpisodeRow


@dataclass(frozen=True, slots=True)
class TaskRows:
    """The samples of a task in one mode that were played to their end; at least one.

    Attributes:
        task, task_type: the task's id, and its kind within the environment.
        rows: of the samples.
    """

    task: str
    task_type: str
    rows: tuple[EpisodeRow, ...]

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.rows)

    @property
    def success(self) -> float:
        """The share of the samples that succeeded."""
        return self.wins / self.samples

    @property
    def wins(self) -> int:
        """How many samples succeeded."""
        return self.total(lambda row: row.success)

    @property
    def score(self) -> float:
        """The mean score of the samples, in [0, 1]."""
        return self.mean(lambda row: row.score)

    def total(self, count: Callable[[EpisodeRow], int]) -> int:
        """Return the sum of a number over the samples."""
        return sum(map(count, self.rows))

    def mean(self, value: Callable[[EpisodeRow], float]) -> float:
        """Return the mean of a number over the samples."""
        return math.fsum(map(value, self.rows)) / self.samples

    def pass_at(self, k: int) -> float:
        """Return the probability that at least one of k samples succeeds, without bias.

        Source: Chen et al. 2021, "Evaluating large language models trained on code": 1 - C(n - c, k) / C(n, k) for c successes
        of n samples.

        Args:
            k: at most the number of samples.
        """
        return 1 - math.comb(self.samples - self.wins, k) / math.comb(self.samples, k)


def by_task(rows: Iterable[EpisodeRow]) -> list[TaskRows]:
    """Return the finished episodes of one mode by their tasks, in the order in which these first stand there.

    Args:
        rows: of one mode; those that ended in an error are left out.
    """
    groups: dict[str, list[EpisodeRow]] = {}
    for row in rows:
        if row.error is None:
            groups.setdefault(row.task, []).append(row)
    return [TaskRows(task, some[0].task_type, tuple(some)) for task, some in groups.items()]


def by_type(tasks: Sequence[TaskRows]) -> dict[str, list[TaskRows]]:
    """Return tasks by their types, in the order in which these first stand there."""
    types: dict[str, list[TaskRows]] = {}
    for one in tasks:
        types.setdefault(one.task_type, []).append(one)
    return types
