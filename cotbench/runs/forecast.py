"""How long a run still takes. Invariant: a forecast follows from what was observed of this run and from its step budget, with a
fixed seed; it never looks at the clock itself.

Dividing the elapsed time by the finished episodes goes wrong in three ways: the episodes that end first are the short ones,
those that still run are worth something, and the last ones run alone. So the number of steps of an episode is estimated by mode
with a hazard for each step (Kaplan and Meier 1958), in which running episodes count as censored; the seconds of a step are
measured by mode over the last steps; and the rest of the schedule is played through with lengths drawn from that.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cotbench.prompting.elicitation import Mode

_DRAWS = 8
"""Schedules that are played through for one forecast."""
_PRIOR_ENDS = 1.0
"""How many ends of episodes the expectation from before the run is worth."""
_PRIOR_RISK = 2.0
"""How many episodes at a step the average hazard is worth there."""
_PRIOR_SQUARES = 2.0
"""How much the expected sharing is worth: a step with half of the environments at work is worth log(2)**2."""
_FADING = 50
"""Steps of a mode over which the seconds of a step are averaged, at least; else six for each environment."""
_SIMULATED = 8
"""Waiting episodes for each environment whose order is played through; those before them are counted by their mean."""
_TINY = 1e-6


class StepCounts:
    """How many steps the episodes of a mode take.

    Args:
        most: the step budget of an episode.
        usual: how many steps are expected before any episode has ended.
    """

    def __init__(self, most: int, usual: float) -> None:
        self._most, self._usual = max(1, most), max(1.0, usual)
        self._ends = [0] * (self._most + 1)
        self._lengths: list[int] = []

    def add(self, steps: int) -> None:
        """Count an episode that has ended."""
        steps = min(max(steps, 1), self._most)
        self._lengths.append(steps)
        if steps < self._most:  # One that has spent the budget did not end by itself.
            self._ends[steps] += 1

    def survival(self, running: Sequence[int]) -> list[float]:
        """Return S(t) for t = 0 to the budget: the chance that an episode takes more than t steps.

        Args:
            running: the steps so far of the episodes that have not ended.
        """
        most = self._most
        reached = [0] * (most + 2)
        for steps in (*self._lengths, *(min(steps, most - 1) for steps in running)):
            reached[steps] += 1
        at_risk, above = [0] * (most + 1), 0
        for step in range(most, 0, -1):
            above += reached[step]
            at_risk[step] = above
        ends = sum(self._ends)
        # Before the first end there is no telling how likely one is: those steps say nothing of the later ones.
        first = next((step for step in range(1, most) if self._ends[step]), most)
        exposed = sum(at_risk[first:]) if ends else sum(self._lengths)
        usual = (ends + _PRIOR_ENDS) / (exposed + _PRIOR_ENDS * self._usual)
        chances = [1.0]
        for step in range(1, most):
            hazard = (self._ends[step] + _PRIOR_RISK * usual) / (at_risk[step] + _PRIOR_RISK)
            chances.append(chances[-1] * (1.0 - min(1.0, hazard)))
        return [*chances, 0.0]


@dataclass(slots=True)
class _Running:
    """An episode that is being played: its steps so far, and the time of the last of them."""

    mode: Mode
    steps: int
    since: float


@dataclass(slots=True)
class _Pace:
    """The seconds of a step with every environment at work, and their logarithm, averaged with weights that fade."""

    seconds: float = 0.0
    logs: float = 0.0
    steps: float = 0.0

    def add(self, seconds: float, fading: int) -> None:
        keep = 1.0 - 1.0 / fading
        self.seconds, self.logs = self.seconds * keep + seconds, self.logs * keep + math.log(max(seconds, _TINY))
        self.steps = self.steps * keep + 1.0

    @property
    def mean(self) -> float:
        return self.seconds / self.steps


@dataclass(slots=True)
class _Sharing:
    """How the time of a step depends on how many episodes are played: it goes with (k / width) ** exponent.

    0: a step takes as long beside few as beside many; 1: the episodes share one processor. It is expected from the agent, and
    learned when the first environments have nothing left to play.
    """

    expected: float
    products: float = 0.0
    squares: float = 0.0

    def add(self, share: float, ratio: float) -> None:
        """Take a step: the share of the environments that are at work, and log(its seconds / those with all at work)."""
        self.products += math.log(share) * ratio
        self.squares += math.log(share) ** 2

    @property
    def exponent(self) -> float:
        found = (_PRIOR_SQUARES * self.expected + self.products) / (_PRIOR_SQUARES + self.squares)
        return min(1.0, max(0.0, found))


@dataclass(slots=True)
class Forecast:
    """The rest of a run.

    Args:
        waiting: key -> mode of the episodes to play, in the order in which they begin.
        max_steps: the step budget of an episode.
        usual_steps: how many steps an episode takes where nothing is known yet.
        sharing: whether the episodes share a processor (1) or each waits for a large machine or for its own (0).
        now: when the run begins, in seconds on any clock; all other times are on the same one.
    """

    waiting: dict[str, Mode]
    max_steps: int
    usual_steps: float
    sharing: float
    now: float
    _running: dict[str, _Running] = field(default_factory=dict)
    _counts: dict[Mode, StepCounts] = field(default_factory=dict)
    _paces: dict[Mode, _Pace] = field(default_factory=dict)
    _learned: _Sharing = field(init=False)
    _width: int = 0
    _underway: bool = False

    def __post_init__(self) -> None:
        self._learned = _Sharing(self.sharing)

    def known(self, key: str, mode: Mode, steps: int) -> None:
        """Handle an episode that was played before: it is not played again, and its length is known.

        Args:
            key: of the episode.
            mode: of the episode.
            steps: that it took.
        """
        self.waiting.pop(key, None)
        self._steps_of(mode).add(steps)

    def stepped(self, key: str, mode: Mode, steps: int, now: float) -> None:
        """Handle an executed step.

        Args:
            key: of the episode.
            mode: of the episode.
            steps: of the episode so far.
            now: the time.
        """
        episode = self._running.get(key)
        if episode is None:
            self.waiting.pop(key, None)
            episode = self._running[key] = _Running(mode, 0, self.now)
        self._width = max(self._width, len(self._running))
        self._underway = self._underway or steps > 1
        seconds, pace = now - episode.since, self._paces.setdefault(mode, _Pace())
        if self.waiting or len(self._running) == self._width or not pace.steps:
            pace.add(seconds, max(_FADING, 6 * self._width))
        else:
            share = len(self._running) / self._width
            self._learned.add(share, math.log(max(seconds, _TINY)) - pace.logs / pace.steps)
        episode.steps, episode.since = steps, now

    def ended(self, key: str, mode: Mode, steps: int, now: float, *, failed: bool = False) -> None:
        """Handle the end of an episode; the next one that waits begins now.

        Args:
            key: of the episode.
            mode: of the episode.
            steps: that it took.
            now: the time.
            failed: whether an error ended it; then its length says nothing.
        """
        self._running.pop(key, None)
        self.waiting.pop(key, None)
        if not failed:
            self._steps_of(mode).add(steps)
            self._underway = True
        if self._width and self.waiting:
            following, its_mode = next(iter(self.waiting.items()))
            del self.waiting[following]
            self._running[following] = _Running(its_mode, 0, now)

    def seconds_left(self, now: float) -> float | None:
        """Return how long the rest takes; None until the environments have begun and one has gone on to a second step.

        Args:
            now: the time.
        """
        known = [pace.mean for pace in self._paces.values() if pace.steps]
        if not known or not self._underway:
            return None
        modes = {*self.waiting.values(), *(episode.mode for episode in self._running.values())}
        usual = sum(known) / len(known)
        paces = {mode: self._paces[mode].mean if mode in self._paces else usual for mode in modes}
        chances = {mode: self._survival(mode) for mode in modes}
        waiting, width = list(self.waiting.values()), max(1, self._width)
        simulated = waiting[-_SIMULATED * width - 64 :]
        before = sum(sum(chances[mode]) * paces[mode] for mode in waiting[: len(waiting) - len(simulated)]) / width
        total = 0.0
        for draw in range(_DRAWS):
            rng = random.Random(draw)
            begun = [self._rest(one, chances[one.mode], paces[one.mode], now, rng) for one in self._running.values()]
            work = [_drawn(chances[mode], 0, rng) * paces[mode] for mode in simulated]
            total += _duration(begun, work, width, self._learned.exponent)
        return before + total / _DRAWS

    def _steps_of(self, mode: Mode) -> StepCounts:
        return self._counts.setdefault(mode, StepCounts(self.max_steps, self.usual_steps))

    def _survival(self, mode: Mode) -> list[float]:
        running = [episode.steps for episode in self._running.values() if episode.mode == mode and episode.steps]
        return self._steps_of(mode).survival(running)

    @staticmethod
    def _rest(episode: _Running, chances: Sequence[float], pace: float, now: float, rng: random.Random) -> float:
        """Return the seconds that a running episode still takes beside as many as there are environments, by one draw."""
        steps = _drawn(chances, min(episode.steps, len(chances) - 2), rng) - episode.steps
        return max(0.0, steps * pace - min(pace, now - episode.since))


def _drawn(chances: Sequence[float], after: int, rng: random.Random) -> int:
    """Draw a number of steps larger than `after`: the first t with S(t) <= u S(after)."""
    level = (1.0 - rng.random()) * chances[after]
    # Ascending for `bisect`: -S.
    return max(after + 1, bisect_left(chances, -level, key=lambda chance: -chance))


def _duration(begun: Sequence[float], waiting: Iterable[float], width: int, sharing: float) -> float:
    """Return how long some jobs take, each of which begins as soon as one of `width` slots is free, in order.

    Args:
        begun: seconds that the running jobs still take with all slots at work.
        waiting: seconds that the others take, likewise.
        width: slots.
        sharing: see `_Sharing`: with k jobs left, each takes (k / width) ** sharing of its seconds.
    """
    free = [*begun, *[0.0] * (width - len(begun))]
    heapq.heapify(free)
    full = 0.0  # Until then all slots are at work.
    for seconds in waiting:
        full = free[0]
        heapq.heapreplace(free, full + seconds)
    took, before = full, full
    for place, end in enumerate(sorted(free)):
        took += max(0.0, end - before) * ((len(free) - place) / width) ** sharing
        before = max(before, end)
    return took


@dataclass(slots=True)
class SmoothedEnd:
    """When something ends, by forecasts that differ: each moves the time a little, the first ones more."""

    _end: float | None = None
    _begun: float | None = None
    _at: float = 0.0

    def update(self, now: float, left: float | None) -> None:
        """Take a forecast.

        Args:
            now: the time in seconds.
            left: seconds left by the forecast; None: there is none.
        """
        if left is None:
            return
        if self._end is None or self._begun is None:
            self._end, self._begun, self._at = now + left, now, now
            return
        memory = min(60.0, max(1e-9, (now - self._begun) / 10))
        weight = 1.0 - math.exp(-(now - self._at) / memory)
        self._end += weight * (now + left - self._end)
        self._at = now

    def left(self, now: float) -> float | None:
        """Return the seconds left, at least 0; None before the first forecast."""
        return None if self._end is None else max(0.0, self._end - now)


class EvenForecast:
    """The rest of work whose parts take about the same time: steps of a training, states of a probe.

    The pace is that of the last half of the time, so that slow beginnings fade, and parts that are done already count for
    nothing.

    Args:
        total: parts.
        done: those that are done before the start.
        now: the time in seconds.
    """

    def __init__(self, total: int, done: int, now: float) -> None:
        self._total = total
        self._marks = [(now, done)]

    def advance(self, done: int, now: float) -> None:
        """Note how many parts are done.

        Args:
            done: parts, with those that were done before the start.
            now: the time in seconds.
        """
        if done > self._marks[-1][1]:
            self._marks.append((now, done))

    def seconds_left(self) -> float | None:
        """Return how long the rest takes; None before anything was done."""
        if len(self._marks) == 1:
            return None
        last, done = self._marks[-1]
        half = (self._marks[0][0] + last) / 2
        place = bisect_left(self._marks, half, key=lambda mark: mark[0])
        if place == len(self._marks) - 1:
            place -= 1
        since, before = self._marks[place]
        return (self._total - done) * (last - since) / (done - before)


def usual_steps(expert: int, most: int) -> float:
    """Return how many steps an episode takes where nothing is known: between an expert's and the step budget.

    Args:
        expert: steps of an expert.
        most: the step budget.
    """
    return math.sqrt(max(1, min(expert, most)) * max(1, most))
