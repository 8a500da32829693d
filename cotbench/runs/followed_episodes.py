"""The episodes of a folder that another process may be writing to. Invariant: after an update they are those of the file, and
only lines that are new were read; a file that was replaced, or changed in its middle, is read anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cotbench.errors import RunFolderError
from cotbench.runs.episode import EPISODES, Episode, Journal
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.line_digest import carries_digests
from cotbench.runs.manifest import MANIFEST
from cotbench.runs.records import Place, Records


class FollowedEpisodes:
    """The episodes of a run folder, each once, as they are written.

    Args:
        folder: the run folder.

    Attributes:
        version: another number whenever the episodes may be others.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / EPISODES
        self._seen: tuple[int, int, int, int] | None = None
        self._places: dict[Any, Place[EpisodeRow]] = {}
        self._size = self._lines = 0
        self._damage: tuple[tuple[int, int, int, int], RunFolderError] | None = None
        self.version = 0

    @property
    def rows(self) -> list[EpisodeRow]:
        """The rows of the episodes."""
        return [place.row for place in self._places.values()]

    def records(self) -> Records[Episode, EpisodeRow]:
        """Return the episodes, to be read when they are wanted.

        Raises:
            OSError: there is no file.
        """
        return Records(self._path, self._places, Journal.decoder(carries_digests(self._folder / MANIFEST)))

    def update(self) -> None:
        """Read what is new.

        Raises:
            RunFolderError: a line is damaged.
            OSError: the file cannot be read.
        """
        try:
            found = _seen(self._path.stat())
        except FileNotFoundError:
            if self._seen is not None:
                self._forget()
            return
        if found == self._seen:
            return
        if self._damage is not None and self._damage[0] == found:
            raise self._damage[1]
        before = self._seen
        if before is None or before[:2] != found[:2] or found[2] <= before[2] or found[2] < self._size:
            self._forget()
        try:
            decode = Journal.decoder(carries_digests(self._folder / MANIFEST))
            with self._path.open("rb") as file:
                opened = _seen(os.fstat(file.fileno()))
                if opened[:2] != found[:2]:
                    self._forget()
                file.seek(self._size)
                self._size, self._lines = Journal.read_on(self._path, file, decode, self._places, self._size, self._lines)
        except RunFolderError as error:
            self._forget()
            self._damage = (found, error)
            raise
        self._seen = opened
        self.version += 1

    def _forget(self) -> None:
        self._seen, self._places, self._size, self._lines = None, {}, 0, 0
        self.version += 1


def _seen(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells a file from an earlier state of it: device, inode, size, time of change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
