"""The runs and studies below a folder, as they are now. Invariant: what is looked up by a name is one of the folders that were
found, without following a link; a file of theirs that is a link out of the folder is not read.

Searching takes longer than looking at what was found, so it is done now and then, the less often the longer it takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cotbench.errors import CotbenchError, RunFolderError
from cotbench.runs.episode import EPISODES
from cotbench.runs.folder import LOCK
from cotbench.runs.folder_search import MARKS, FoundFolder, find_folders
from cotbench.runs.manifest import MANIFEST
from cotbench.runs.run_list import Unread, may_be_run
from cotbench.runs.run_status import FollowedRun, RunStatus
from cotbench.runs.summary import SUMMARY
from cotbench.study.folder import DONE, STUDY
from cotbench.view.followed_study import FollowedStudy, StudyStatus

_SEARCH, _SEARCH_SHARE = 3.0, 20.0
"""Seconds between two searches, at least; and how many times as long as a search takes."""
_FRESH = 1.0
"""Seconds for which a listing is given again as it was."""
_FILES = (MANIFEST, EPISODES, SUMMARY, STUDY, DONE, LOCK)
F = TypeVar("F", FollowedRun, FollowedStudy)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Listing:
    """What is below a folder; every `folder` in it is relative to that.

    Attributes:
        runs: the runs, the latest first.
        studies: the studies, the latest first.
        unread: folders that cannot be read, with the reason.
    """

    runs: tuple[RunStatus, ...]
    studies: tuple[StudyStatus, ...]
    unread: tuple[Unread, ...]


class Library:
    """A folder of runs and studies.

    Args:
        root: the folder.
        clock: returns the time in seconds.

    Attributes:
        lock: held by who looks at a run or a study, which remember what they have read.

    Raises:
        RunFolderError: there is no such folder.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        if not root.is_dir():
            raise RunFolderError(f"there is no folder {root}: name one that holds runs, as in cotbench view runs")
        self.root, self._clock = root.resolve(), clock
        self.lock = threading.RLock()
        self._runs: dict[str, FollowedRun] = {}
        self._studies: dict[str, FollowedStudy] = {}
        self._next_search = self._fresh_until = float("-inf")
        self._listing = Listing((), (), ())

    def listing(self) -> Listing:
        """Return what there is now."""
        with self.lock:
            now = self._clock()
            self._search(now)
            if now >= self._fresh_until:
                self._listing = self._look()
                self._fresh_until = self._clock() + _FRESH
            return self._listing

    def run(self, name: str) -> FollowedRun:
        """Return a run.

        Args:
            name: its folder, relative to the root.

        Raises:
            RunFolderError: there is none, or a file of it is a link out of the root.
        """
        with self.lock:
            self._search(self._clock())
            return self._checked(self._runs.get(name), f"run {name[:200]!r}")

    def study(self, name: str) -> FollowedStudy:
        """Return a study; the arguments and errors are those of `run`."""
        with self.lock:
            self._search(self._clock())
            return self._checked(self._studies.get(name), f"study {name[:200]!r}")

    def _checked(self, found: F | None, title: str) -> F:
        if found is None:
            raise RunFolderError(f"there is no {title} here")
        self._check_links(found.folder)
        return found

    def _check_links(self, folder: Path) -> None:
        for name in _FILES:
            path = folder / name
            if path.is_symlink() and not path.resolve().is_relative_to(self.root):
                raise RunFolderError(f"{path} is a link that leads out of {self.root}: it is not read")

    def _search(self, now: float) -> None:
        if now < self._next_search:
            return
        began = time.perf_counter()
        found = list(find_folders(self.root, MARKS | {STUDY}))
        runs = {self._name(one): one.path for one in found if may_be_run(one)}
        studies = {self._name(one): one.path for one in found if STUDY in one.files}
        self._runs = {name: self._runs.get(name) or FollowedRun(path) for name, path in runs.items()}
        self._studies = {name: self._studies.get(name) or FollowedStudy(path) for name, path in studies.items()}
        self._next_search = now + max(_SEARCH, _SEARCH_SHARE * (time.perf_counter() - began))

    def _name(self, found: FoundFolder) -> str:
        return found.path.relative_to(self.root).as_posix()

    def _look(self) -> Listing:
        unread: list[Unread] = []

        def read(known: dict[str, F], status: Callable[[F], S]) -> list[S]:
            statuses = []
            for name, one in known.items():
                try:
                    self._check_links(one.folder)
                    statuses.append(status(one))
                except (CotbenchError, OSError) as error:
                    unread.append(Unread(name, str(error)))
            return statuses

        runs = read(self._runs, lambda run: run.status().model_copy(update={"folder": self._relative(run.folder)}))
        studies = read(self._studies, lambda study: replace(study.status(), folder=self._relative(study.folder)))
        return Listing(
            tuple(sorted(runs, key=lambda run: (run.created, run.folder), reverse=True)),
            tuple(sorted(studies, key=lambda study: (study.changed, study.folder), reverse=True)),
            tuple(unread),
        )

    def _relative(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()
