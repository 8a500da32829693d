"""Descriptions of an environment's tasks that need no engine. Invariant: a split is played whole, or the caller allowed less
and learns how much is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from cotbench.errors import MissingDataError, UnknownNameError


class TaskSource(Protocol):
    """Description of an environment's tasks, without starting an engine."""

    def schemes(self) -> Mapping[str, Collection[str]]:
        """Return scheme -> names of its splits."""

    def tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids of a split.

        Args:
            scheme: `paper`, `official` or another of `schemes`.
            split: the split's name within the scheme.
        """

    def task_type(self, task: str) -> str:
        """Return the type under which a task is grouped in tables."""

    def scenario(self, task: str) -> Hashable:
        """Return a key that is equal for tasks that share what must not cross from training into a scored split.

        The task itself where nothing is shared.
        """

    def out_of_domain(self, scheme: str, split: str) -> bool:
        """Tell whether a split tests outside of what is trained on.

        Args:
            scheme: `paper`, `official` or another of `schemes`.
            split: the split's name within the scheme.
        """

    def missing(self, tasks: Sequence[str], data: Path | None) -> list[str]:
        """Return those of the tasks that cannot be played on this machine, because their data is not here.

        Args:
            tasks: task ids.
            data: the folder of the data; None means the environment's default.
        """

    def remedy(self, data: Path | None) -> str:
        """Return one clause for an error message: how to get the missing data.

        Args:
            data: the folder of the data; None means the environment's default.
        """

    def unpassable(self, tasks: Sequence[str]) -> list[str]:
        """Return those of the tasks on which upstream counts every right answer as wrong."""

    def data_version(self, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
        """Return versions and sha256 that identify the data of these tasks, for the manifest.

        Args:
            tasks: task ids.
            data: the folder of the data; None means the environment's default.
        """


@runtime_checkable
class DialectSource(Protocol):
    """A `TaskSource` whose data may be spelled in one of several dialects (`EnvEntry.dialects`)."""

    def dialect(self, tasks: Sequence[str], data: Path | None) -> str:
        """Return the name of the dialect of all these tasks.

        Args:
            tasks: task ids.
            data: the folder of the data; None means the environment's default.

        Raises:
            GameFileError: they are not all of one dialect, for a run tells a model one spelling.
        """


@runtime_checkable
class NestedSource(Protocol):
    """A `TaskSource` with splits that are larger than what a run plays unless it is told a number."""

    def first_tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids that come first in every draw from a split, whatever the seed.

        Args:
            scheme: `paper`, `official` or another of `schemes`.
            split: the split's name within the scheme.
        """


def first_tasks(source: TaskSource, scheme: str, split: str) -> tuple[str, ...]:
    """Return the tasks of a split that a run plays unless it is told a number, and that boards rank: all, or the first ones.

    Args:
        source: lists the tasks.
        scheme: the family of splits.
        split: the split's name within the scheme.
    """
    return source.first_tasks(scheme, split) if isinstance(source, NestedSource) else source.tasks(scheme, split)


class ListedTasks:
    """`TaskSource` for an environment whose tasks are listed and need no data.

    Args:
        schemes: scheme -> split -> the ids of its tasks.
        version: identifies the tasks in manifests.
    """

    def __init__(self, schemes: Mapping[str, Mapping[str, Sequence[str]]], version: str = "") -> None:
        self._schemes, self._version = schemes, version

    def schemes(self) -> Mapping[str, Collection[str]]:
        """Return scheme -> names of its splits."""
        return {scheme: list(splits) for scheme, splits in self._schemes.items()}

    def tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids of a split.

        Raises:
            UnknownNameError: no such scheme or split.
        """
        if scheme not in self._schemes:
            raise UnknownNameError("scheme", scheme, self._schemes)
        if split not in self._schemes[scheme]:
            raise UnknownNameError("split", split, self._schemes[scheme], f"of scheme {scheme!r}")
        return tuple(sorted(self._schemes[scheme][split]))

    def task_type(self, task: str) -> str:
        """Return the second part of an id such as `env/type/number`, or the first of a shorter one."""
        parts = task.split("/")
        return parts[1] if len(parts) > 2 else parts[0]

    def scenario(self, task: str) -> Hashable:
        """Return the task itself: nothing is shared."""
        return task

    def out_of_domain(self, scheme: str, split: str) -> bool:
        """Tell whether a split tests outside of what is trained on: its name begins with "ood"."""
        return split.startswith("ood")

    def missing(self, tasks: Sequence[str], data: Path | None) -> list[str]:
        """Return nothing: no data is needed."""
        return []

    def remedy(self, data: Path | None) -> str:
        """Return how to get missing data, of which there is none."""
        return "no data is needed"

    def unpassable(self, tasks: Sequence[str]) -> list[str]:
        """Return nothing: every task can be passed."""
        return []

    def data_version(self, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
        """Return the version that was given."""
        return {"version": self._version} if self._version else {}


def playable(source: TaskSource, tasks: Sequence[str], data: Path | None, split: str, available_only: bool) -> tuple[str, ...]:
    """Return the tasks that can be played here: all of them, unless `available_only` allows a part.

    Args:
        source: tells which are missing.
        tasks: the ids of the split.
        data: the folder of the data; None means the environment's default.
        split: the split's name, for messages.
        available_only: play what is there instead of raising an error.

    Raises:
        MissingDataError: some are missing and `available_only` is false, or all are.
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
