"""What the page of a run shows. Invariant: the numbers of an episode's page and of its run's are computed once for one state of
the folder; while a run grows, they are computed anew the less often the longer that takes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cotbench.report.browser import browsed, episodes_json
from cotbench.report.page import BrowsedRun
from cotbench.runs.results import Run
from cotbench.runs.run_status import FollowedRun
from cotbench.runs.summary import Summary, summarize

EPISODE_BYTES = 8_000_000
"""For the episodes of a page: it comes from this machine, so it may be larger than a report's."""
_SHARE = 20.0
"""While a run grows, its numbers are computed anew after so many times what that took."""
_CACHED = 4
"""Runs whose episodes are kept as a page holds them."""
_CACHED_NUMBERS = 50
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class PageEpisodes:
    """The episodes of a page.

    Attributes:
        json: as `report.browser` has it.
        embedded: how many they are, of `of` in the run.
    """

    json: str
    embedded: int
    of: int


@dataclass(frozen=True, slots=True)
class _Numbers:
    version: int
    summary: Summary
    again: float


class RunPages:
    """Computes what pages of runs need, once.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers: OrderedDict[str, _Numbers] = OrderedDict()
        self._episodes: OrderedDict[tuple[str, int], PageEpisodes] = OrderedDict()

    def summary(self, name: str, run: FollowedRun) -> Summary:
        """Return the numbers of a run: as written, or of its episodes so far.

        Args:
            name: of the run.
            run: the run, looked at just now.

        Raises:
            RunFolderError: a file is damaged.
        """
        written = run.summary()
        if written is not None and not run.running():
            return written
        version = run.update_episodes().version
        before = self._numbers.get(name)
        if before is not None and (before.version == version or self._clock() < before.again):
            return before.summary
        began = time.perf_counter()
        summary = summarize(run.episodes.records(), run.manifest()) if version else summarize([], run.manifest())
        took = time.perf_counter() - began
        self._numbers[name] = _Numbers(version, summary, self._clock() + _SHARE * took)
        _shorten(self._numbers, _CACHED_NUMBERS)
        return summary

    def episodes(self, name: str, run: FollowedRun) -> PageEpisodes:
        """Return the episodes of a run's page.

        Args:
            name: of the run.
            run: the run.

        Raises:
            RunFolderError: a file is damaged.
        """
        version = run.update_episodes().version
        key = (name, version)
        if key not in self._episodes:
            rows = run.episodes.rows
            chosen = browsed([BrowsedRun(name, run.episodes.records())], EPISODE_BYTES) if rows else ()
            embedded = sum(len(one.episodes) for one in chosen)
            self._episodes[key] = PageEpisodes(episodes_json(chosen), embedded, len(rows))
            _shorten(self._episodes, _CACHED)
        self._episodes.move_to_end(key)
        return self._episodes[key]

    def whole(self, name: str, run: FollowedRun) -> Run:
        """Return a run with its numbers and episodes, for a comparison.

        Args:
            name: of the run.
            run: the run.

        Raises:
            RunFolderError: a file is damaged.
        """
        summary = self.summary(name, run)
        run.update_episodes()
        return Run(run.folder, run.manifest(), summary, run.episodes.records() if run.episodes.rows else ())


def _shorten(cached: OrderedDict[K, V], most: int) -> None:
    while len(cached) > most:
        cached.popitem(last=False)
