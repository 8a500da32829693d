"""Trackers of a run: tensorboard, wandb, mlflow, and what else accelerate knows. Invariant: a tracker sees a run and never
changes it: what fails in one is a warning, and the run goes on without that tracker.

What is reported: while it plays, the rates so far by mode, over the number of episodes played; at the end every number of the
summary, its interval too. Trackers are set up by their own environment variables; the project is `$NAME_PROJECT` or "cotbench".
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cotbench.errors import MissingExtraError, UsageError, did_you_mean

if TYPE_CHECKING:
    from cotbench.prompting.elicitation import Mode
    from cotbench.runs.episode import Episode
    from cotbench.runs.episode_row import EpisodeRow
    from cotbench.runs.manifest import Manifest
    from cotbench.runs.summary import Summary

_log = logging.getLogger(__name__)

NONE, ALL = "none", "all"
"""Names that stand for no tracker, and for all that are installed."""

_PROJECT = "cotbench"
_SECONDS = 1.0
"""Seconds between two reports of progress: a tracker must not slow down short episodes."""


def chosen_trackers(names: Sequence[str], known: Collection[str], installed: Callable[[], Iterable[str]]) -> list[str]:
    """Return the trackers that the values of `--report-to` name.

    Args:
        names: the values.
        known: names of trackers.
        installed: returns those that are installed, for `all`.

    Raises:
        UsageError: an unknown name, or `none` or `all` beside another.
    """
    if set(names) <= {NONE}:
        return []
    if set(names) == {ALL}:
        return list(installed())
    for name in names:
        if name in (NONE, ALL):
            raise UsageError(f"--report-to {name} excludes other trackers: omit them")
        if name not in known:
            choices = [*sorted(known), ALL, NONE]
            raise UsageError(f"unknown tracker {name!r}{did_you_mean(name, choices) or '; known: ' + ', '.join(choices)}")
    return list(dict.fromkeys(names))


def require_trackers(names: Sequence[str]) -> list[str]:
    """Return the trackers that a run reports to; raise an error before anything is played where one cannot be used.

    Args:
        names: the values of `--report-to`.

    Raises:
        MissingExtraError: accelerate is not installed.
        UsageError: an unknown name, or a tracker that is not installed.
    """
    if set(names) <= {NONE}:
        return []
    if find_spec("accelerate") is None or find_spec("torch") is None:
        raise MissingExtraError("--report-to", "hf")
    from accelerate import tracking
    from accelerate.utils import LoggerType

    own = [name for name in tracking.LOGGER_TYPE_TO_CLASS if name not in LoggerType.list()]  # Registered by the user.
    installed = [*map(str, tracking.get_available_trackers()), *own]
    chosen = chosen_trackers(names, tracking.LOGGER_TYPE_TO_CLASS, lambda: installed)
    for name in chosen:
        if name not in installed:
            raise missing_tracker(name)
    return chosen


def missing_tracker(name: str, package: str | None = None) -> UsageError:
    """Return the error for a tracker that is not installed.

    Args:
        name: of the tracker.
        package: what pip installs, where that has another name.
    """
    return UsageError(f"--report-to {name} needs what is not installed: pip install {package or name}")


def first_line(error: BaseException) -> str:
    """Return type and message of a tracker's exception, on one line, cut."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


class RunTracker(AbstractContextManager["RunTracker"]):
    """The open trackers of a run.

    Args:
        names: as `require_trackers` returns them.
        folder: the run folder; a tracker that writes files writes them there.
        manifest: of the run.
        played: the rows of episodes that are done already.
    """

    def __init__(self, names: Sequence[str], folder: Path, manifest: Manifest, played: Iterable[EpisodeRow] = ()) -> None:
        self._trackers: dict[str, Any] = {}
        self._rates = _Rates()
        self._reported = 0.0
        for episode in played:
            self._rates.add(episode)
        for name in names:
            self._try(name, partial(self._open, name, folder, manifest))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._trackers:
            name, tracker = self._trackers.popitem()
            self._try(name, tracker.finish)

    def finished(self, episode: Episode) -> None:
        """Report the end of an episode."""
        self._rates.add(episode)
        if time.monotonic() - self._reported >= _SECONDS:
            self._report(self._rates.values())
            self._reported = time.monotonic()

    def summarized(self, summary: Summary) -> None:
        """Report the numbers of the finished run."""
        sections = {name: one for name, one in summary.model_dump(mode="json").items() if isinstance(one, Mapping)}
        numbers = {name: one for name, one in _flat(sections, "summary").items() if isinstance(one, int | float)}
        self._report(self._rates.values() | numbers)

    def _report(self, values: Mapping[str, float]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, partial(tracker.log, dict(values), step=self._rates.episodes))

    def _open(self, name: str, folder: Path, manifest: Manifest) -> None:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # accelerate's trackers log through it.
        project = os.environ.get(f"{name.upper()}_PROJECT", _PROJECT)
        kind = LOGGER_TYPE_TO_CLASS[name]
        tracker = kind(project, str(folder)) if kind.requires_logging_directory else kind(project)
        tracker.start()
        self._trackers[name] = tracker
        config = manifest.config.model_dump(mode="json", exclude={"tasks"})
        about = {"folder": str(folder), "tasks": len(manifest.task_list), "fingerprint": manifest.elicitation_fingerprint}
        tracker.store_init_configuration(_flat(config | about))

    def _try(self, name: str, report: Callable[[], object]) -> None:
        try:
            with redirect_stdout(sys.stderr):  # Standard output holds the results, perhaps as JSON.
                report()
        except Exception as error:  # Whatever a tracker's client raises.
            failed = self._trackers.pop(name, None)
            with suppress(Exception):
                if failed is not None:
                    failed.finish()
            _log.warning("tracker %s is switched off for the rest of the run: %s", name, first_line(error))


class _Rates:
    """Sums over the episodes so far, by mode."""

    def __init__(self) -> None:
        self.episodes = self._errors = 0
        self._sums: dict[Mode, dict[str, float]] = {}

    def add(self, episode: Episode | EpisodeRow) -> None:
        """Add an episode; one that ended in an error is counted and no more."""
        self.episodes += 1
        if episode.error is not None:
            self._errors += 1
            return
        sums = self._sums.setdefault(episode.mode, dict.fromkeys(("episodes", "success", "score", "steps"), 0.0))
        for name, value in (("episodes", 1), ("success", episode.success), ("score", episode.score), ("steps", episode.steps)):
            sums[name] += value

    def values(self) -> dict[str, float]:
        """Return the means so far."""
        found: dict[str, float] = {"episodes": self.episodes, "errors": self._errors}
        for mode, sums in self._sums.items():
            count = sums["episodes"]
            found |= {f"{mode}/{name}": value / (1 if name == "episodes" else count) for name, value in sums.items()}
        return found


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested data as one level, names joined by slashes; None and lists are left out."""
    found: dict[str, Any] = {}
    for name, one in value.items():
        path = f"{before}/{name}" if before else name
        if isinstance(one, Mapping):
            found |= _flat(one, path)
        elif isinstance(one, str | int | float):
            found[path] = one
    return found
