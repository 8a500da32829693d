"""The runs below a folder. Invariant: a folder that cannot be read is named with the reason, and hides no other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotbench.errors import CotbenchError
from cotbench.json_text import parse_json
from cotbench.runs.episode import EPISODES
from cotbench.runs.folder_search import FoundFolder, find_folders
from cotbench.runs.manifest import MANIFEST
from cotbench.runs.run_status import FollowedRun, RunStatus


@dataclass(frozen=True, slots=True)
class Unread:
    """A folder that looks like a run's and is none that can be read.

    Attributes:
        folder: its path.
        reason: why.
    """

    folder: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunList:
    """The runs below a folder, and what could not be read."""

    runs: tuple[RunStatus, ...]
    unread: tuple[Unread, ...]


def list_runs(root: Path) -> RunList:
    """Return the runs below a folder, and in itself.

    Args:
        root: the folder.

    Raises:
        RunFolderError: there is no such folder.
    """
    return statuses_of(FollowedRun(found.path) for found in find_folders(root) if may_be_run(found))


def statuses_of(runs: Iterable[FollowedRun]) -> RunList:
    """Return how far some runs are.

    Args:
        runs: the runs.
    """
    read: list[RunStatus] = []
    unread: list[Unread] = []
    for run in runs:
        try:
            read.append(run.status())
        except CotbenchError as error:
            unread.append(Unread(str(run.folder), str(error)))
    return RunList(tuple(read), tuple(unread))


def may_be_run(found: FoundFolder) -> bool:
    """Return whether a folder is a run's, or should be: it has episodes, or a manifest that is not of another kind of result.

    Args:
        found: the folder.
    """
    return EPISODES in found.files or (MANIFEST in found.files and not _is_measurement(found.path / MANIFEST))


def _is_measurement(path: Path) -> bool:
    """Return whether a manifest is that of a probe or of a judge."""
    try:
        content: Any = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "probe" in content and "states_sha256" in content
