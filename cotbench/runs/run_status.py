"""How far a run is, as a folder says. Invariant: looking changes nothing in the folder; of a finished run only the summary is
read, of any other the lines of its episodes that are new since the last look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cotbench.errors import RunFolderError
from cotbench.file_lock import is_locked
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.folder import LOCK
from cotbench.runs.followed_episodes import FollowedEpisodes
from cotbench.runs.manifest import MANIFEST, Manifest, read_manifest
from cotbench.runs.summary import SUMMARY, Summary
from cotbench.runs.task_rows import by_task
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

State = Literal["running", "finished", "interrupted"]
STATES: tuple[State, ...] = ("running", "finished", "interrupted")
NAMED = "tasks"
"""Stands for the split of a run whose tasks were named."""
T = TypeVar("T")


class RunStatus(BaseModel):
    """How far a run is, and what it has found so far.

    Attributes:
        folder: the run folder.
        split: "tasks" where the tasks were named.
        mode: `prompt`, `cot` or `both`.
        planned: episodes to play; `done` of them have ended, `errors` more ended in an error.
        success: success rate of each mode over its episodes that have ended, as in `ModeSummary`.
        state: `running`: a process writes to the folder; `finished`: all was played and summarised; `interrupted`: neither.
        created: when it began, in ISO format.
    """

    model_config = ConfigDict(frozen=True)

    folder: str
    agent: str
    env: str
    scheme: str
    split: str
    seed: int
    mode: Literal["prompt", "cot", "both"]
    planned: int
    done: int
    errors: int
    success: dict[Mode, Estimate]
    state: State
    created: str


def planned_episodes(manifest: Manifest) -> int:
    """Return how many episodes a run plays."""
    return len(manifest.task_list) * manifest.config.samples * (len(MODES) if manifest.config.mode == "both" else 1)


class FollowedRun:
    """A run folder that is looked at again and again.

    Args:
        folder: the run folder.

    Attributes:
        episodes: its episodes; up to date after `update_episodes`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.episodes = FollowedEpisodes(folder)
        self._manifest = _Cached(folder / MANIFEST, lambda: read_manifest(folder))
        self._summary = _Cached(folder / SUMMARY, lambda: _read_summary(folder))

    def manifest(self) -> Manifest:
        """Return the run's manifest.

        Raises:
            RunFolderError: not a run folder, or damaged.
        """
        found = self._manifest.get()
        return found if found is not None else read_manifest(self.folder)

    def summary(self) -> Summary | None:
        """Return the summary as written at the end of the run; None where it has not ended.

        Raises:
            RunFolderError: it is damaged.
        """
        return self._summary.get()

    def running(self) -> bool:
        """Return whether a process writes to the folder."""
        return is_locked(self.folder / LOCK)

    def update_episodes(self) -> FollowedEpisodes:
        """Read what is new of the episodes, and return them.

        Raises:
            RunFolderError: a line is damaged, or the file cannot be read.
        """
        try:
            self.episodes.update()
        except OSError as error:
            raise RunFolderError(f"cannot read the episodes of {self.folder} ({error.strerror})") from error
        return self.episodes

    def status(self) -> RunStatus:
        """Return how far the run is.

        Raises:
            RunFolderError: not a run folder, or a file in it is damaged.
        """
        manifest, summary, running = self.manifest(), self.summary(), self.running()
        planned = planned_episodes(manifest)
        ended = None if summary is None else sum(mode.n + mode.errors for mode in summary.modes.values())
        if summary is not None and not running and ended == planned:
            errors = sum(mode.errors for mode in summary.modes.values())
            success = {mode: numbers.success for mode, numbers in summary.modes.items()}
            return self._status(manifest, planned - errors, errors, success, "finished")
        rows = self.update_episodes().rows
        success = {
            mode: estimates.score([one.success for one in by_task(some)])
            for mode in MODES
            if (some := [row for row in rows if row.mode == mode and row.error is None])
        }
        errors = sum(row.error is not None for row in rows)
        return self._status(manifest, len(rows) - errors, errors, success, "running" if running else "interrupted")

    def _status(self, manifest: Manifest, done: int, errors: int, success: Mapping[Mode, Estimate], state: State) -> RunStatus:
        config = manifest.config
        return RunStatus(
            folder=str(self.folder),
            agent=config.agent,
            env=config.env,
            scheme=config.scheme,
            split=config.split if config.tasks is None else NAMED,
            seed=config.seed,
            mode=config.mode,
            planned=planned_episodes(manifest),
            done=done,
            errors=errors,
            success=dict(success),
            state=state,
            created=manifest.created,
        )


class _Cached(Generic[T]):
    """A file's content, read again where the file has changed."""

    def __init__(self, path: Path, read: Callable[[], T]) -> None:
        self._path, self._read = path, read
        self._seen: tuple[Any, ...] | None = None
        self._content: T | None = None

    def get(self) -> T | None:
        """Return the content; None where there is no file."""
        try:
            status = self._path.stat()
        except OSError:
            self._seen = self._content = None
            return None
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            self._content = None
            self._content, self._seen = self._read(), seen
        return self._content


def _read_summary(folder: Path) -> Summary:
    path = folder / SUMMARY
    try:
        return Summary.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        raise RunFolderError(f"{path} is damaged: remove it, and cotbench run --resume {folder} writes it again") from error
