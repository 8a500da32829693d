"""What an environment says about its tasks before any engine is started. Invariant: a split is played whole, or the caller
asked for less and is told how much less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cotbench.errors import MissingDataError


class TaskSource(Protocol):
    """What an environment says about its tasks without starting an engine."""

    def schemes(self) -> Mapping[str, Collection[str]]:
        """Scheme -> names of its splits."""

    def tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """The sorted ids of a split."""

    def task_type(self, task: str) -> str:
        """The type under which a task is grouped in tables."""

    def missing(self, tasks: Sequence[str], data: Path | None) -> list[str]:
        """Which of these tasks cannot be played on this machine, because their data is not here."""

    def remedy(self, data: Path | None) -> str:
        """How to get the missing data: one clause for an error message."""

    def unpassable(self, tasks: Sequence[str]) -> list[str]:
        """Those on which upstream counts every right answer as wrong."""

    def data_version(self, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
        """What identifies the data of these tasks: versions and sha256, for the manifest."""


def playable(source: TaskSource, tasks: Sequence[str], data: Path | None, split: str, available_only: bool) -> tuple[str, ...]:
    """The tasks that can be played here; all of them, unless `available_only` allows a part.

    Raises:
        MissingDataError: some are missing and that was not allowed, or all are.
    """
    missing = set(source.missing(tasks, data))
    if not missing:
        return tuple(tasks)
    if not available_only or len(missing) == len(tasks):
        raise MissingDataError(
            f"split {split!r}: {len(missing)} of {len(tasks)} games are missing, the first is {min(missing)}: "
            + source.remedy(data)
            + ("" if len(missing) == len(tasks) else ", or play what is there: --available-only")
        )
    return tuple(task for task in tasks if task not in missing)
