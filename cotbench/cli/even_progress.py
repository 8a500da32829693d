"""Progress of work whose parts take about the same time: states of a probe or of a judge, steps of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cotbench.cli.progress_display import Progress
from cotbench.runs.forecast import EvenForecast, SmoothedEnd


class EvenProgress:
    """Shows how far such work is.

    Args:
        shown: where it is shown.
        total: parts of the work.
        done: parts that were done before.
        clock: returns the time in seconds.
    """

    def __init__(self, shown: Progress, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown, self._total, self._done, self._clock = shown, total, done, clock
        self._forecast = EvenForecast(total, done, clock())
        self._end = SmoothedEnd()
        if done:
            shown.update(done, (), None)

    def advance(self, facts: Sequence[str] = (), done: int | None = None) -> None:
        """Show that a part is done.

        Args:
            facts: what else to show, most important first.
            done: how many parts are done; one more where left out.
        """
        self._done = self._done + 1 if done is None else done
        now = self._clock()
        self._forecast.advance(self._done, now)
        self._end.update(now, self._forecast.seconds_left())
        self._shown.update(self._done, facts, self._end.left(now))
