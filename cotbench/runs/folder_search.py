"""Folders of results below a folder. Invariant: the search follows no link, so that it never leaves the folder and always ends;
it reads names alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cotbench.errors import RunFolderError
from cotbench.runs.episode import EPISODES
from cotbench.runs.manifest import MANIFEST, SUITE

LIMIT = 50_000
"""Folders that are looked into, at most."""
_DEPTH = 12
_SKIPPED = ("checkpoint-", "__pycache__", "node_modules", "site-packages")
"""Beginnings of names of folders in which there are no results; neither are there any in hidden ones."""
MARKS = frozenset({MANIFEST, EPISODES, SUITE})
"""Files of which a folder of runs has one."""


@dataclass(frozen=True, slots=True)
class FoundFolder:
    """A folder, and the names of the files in it."""

    path: Path
    files: frozenset[str]


def find_folders(root: Path, marks: frozenset[str] = MARKS) -> Iterator[FoundFolder]:
    """Yield the folders below a folder, and itself, that hold one of some files, in the order of their names.

    Args:
        root: where to begin.
        marks: the names of the files.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not root.is_dir():
        raise RunFolderError(f"there is no folder {root}: name one that holds runs")
    waiting = [(root, 0)]
    for _ in range(LIMIT):
        if not waiting:
            return
        path, depth = waiting.pop()
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError:  # Removed meanwhile, or not ours to read.
            continue
        files = frozenset(entry.name for entry in found if not entry.is_dir(follow_symlinks=False))
        if files & marks:
            yield FoundFolder(path, files)
        if depth < _DEPTH:
            waiting += [(path / entry.name, depth + 1) for entry in found if _is_searched(entry)]


def _is_searched(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", *_SKIPPED))
