"""Progress of a run: success so far in each mode, tokens and steps a second, and how long it still takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cotbench.agents.base import Agent, StreamingAgent, describe_agent, needs_of
from cotbench.agents.face import check_agent
from cotbench.cli.progress_display import Progress, shown_progress
from cotbench.prompting.elicitation import Mode
from cotbench.runs.episode import Episode, Step
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.forecast import Forecast, SmoothedEnd, usual_steps
from cotbench.runs.plan import RunPlan
from cotbench.runs.rollout import Observer, RolloutSpec
from cotbench.runs.runner import SilentObserver
from cotbench.runs.tables import NAMES

_WINDOW = 60.0
"""Seconds over which tokens and steps a second are counted."""
_BETWEEN = 0.25
"""Seconds between two states that are shown, at least."""
_COST = 50.0
"""A forecast is made anew after so many times what the last one took."""
_SHARED, _ALONE = 0.85, 0.15
"""Whether a step takes longer beside others (`Forecast.sharing`): on a processor, and on a large GPU or a server."""
_NOTES = 3
"""Errors that are printed at once; all are counted."""


class RecentRate:
    """Something counted, by the second, over the last minute.

    Args:
        now: the time in seconds.
    """

    def __init__(self, now: float) -> None:
        self._started = now
        self._counts: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, count: int, now: float) -> None:
        """Count."""
        self._counts.append((now, count))
        self._sum += count
        self._drop(now)

    def rate(self, now: float) -> float:
        """Return how many there are a second."""
        self._drop(now)
        seconds = min(_WINDOW, now - self._started)
        return self._sum / seconds if seconds > 0 else 0.0

    def _drop(self, now: float) -> None:
        while self._counts and self._counts[0][0] < now - _WINDOW:
            self._sum -= self._counts.popleft()[1]


class RunProgress:
    """Observes a run and shows how far it is.

    Args:
        shown: where it is shown.
        forecast: of the run.
        clock: returns the time in seconds, the forecast's too.
    """

    def __init__(self, shown: Progress, forecast: Forecast, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown, self._forecast, self._clock = shown, forecast, clock
        now = clock()
        self._tokens, self._steps = RecentRate(now), RecentRate(now)
        self._won: dict[Mode, int] = {}
        self._played: dict[Mode, int] = {}
        self._done = self._errors = 0
        self._end = SmoothedEnd()
        self._next_forecast = self._next_state = now

    def resumed(self, played: Sequence[EpisodeRow]) -> None:
        """Handle the episodes that are not played again."""
        for row in played:
            self._count(row)
            self._forecast.known(row.key, row.mode, row.steps)
        if played:
            self._show(self._clock())

    def executed(self, unit: RolloutSpec, step: Step) -> None:
        """Count the tokens of a step."""
        decisions = (step.decision, step.prompt_decision)
        self._tokens.add(sum(one.generated_tokens for one in decisions if one is not None), self._clock())

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Handle an executed step."""
        now = self._clock()
        self._steps.add(1, now)
        self._forecast.stepped(unit.key, unit.mode, step, now)
        if now >= self._next_state:
            self._show(now)

    def finished(self, episode: Episode) -> None:
        """Handle the end of an episode."""
        now = self._clock()
        self._count(episode)
        self._forecast.ended(episode.key, episode.mode, episode.steps, now, failed=episode.error is not None)
        if episode.error is not None and self._errors <= _NOTES:
            more = " (further errors are counted)" if self._errors == _NOTES else ""
            self._shown.note(f"error in {episode.key}: {episode.error}{more}")
        self._show(now)

    def _count(self, episode: Episode | EpisodeRow) -> None:
        self._done += 1
        if episode.error is not None:
            self._errors += 1
            return
        self._played[episode.mode] = self._played.get(episode.mode, 0) + 1
        self._won[episode.mode] = self._won.get(episode.mode, 0) + episode.success

    def _show(self, now: float) -> None:
        self._next_state = now + _BETWEEN
        if now >= self._next_forecast:
            began = time.perf_counter()
            self._end.update(now, self._forecast.seconds_left(now))
            self._next_forecast = now + max(1.0, _COST * (time.perf_counter() - began))
        self._shown.update(self._done, self._facts(now), self._end.left(now))

    def _facts(self, now: float) -> list[str]:
        rates = [
            f"{NAMES[mode]} {self._won[mode] / count:.2f} ({self._won[mode]}/{count} won)"
            for mode, count in sorted(self._played.items(), reverse=True)
        ]
        tokens, steps = self._tokens.rate(now), self._steps.rate(now)
        return [
            *rates,
            f"{self._errors} errors" if self._errors else "",
            f"{tokens:.0f} tokens/s" if tokens else "",
            f"{steps:.1f} steps/s" if steps else "",
        ]


@contextmanager
def progress(plan: RunPlan, *, quiet: bool, agent: Agent | None = None) -> Iterator[Observer]:
    """Return an observer that shows the progress of a run on standard error.

    Args:
        plan: the plan of the run.
        quiet: show nothing.
        agent: that plays; by it the first forecasts are made.

    Raises:
        UsageError: the agent is no agent.
    """
    if quiet:
        yield SilentObserver()
        return
    if agent is not None:
        check_agent(agent)
    rollouts = plan.rollouts
    most = plan.config.max_steps or plan.entry.max_steps()
    expert = plan.entry.sizes.expert_steps
    usual = expert if agent is not None and "expert_action" in needs_of(agent) else usual_steps(expert, most)
    with shown_progress("episodes", len(rollouts), quiet=quiet) as shown:
        forecast = Forecast(
            waiting={unit.key: unit.mode for unit in rollouts},
            max_steps=most,
            usual_steps=usual,
            sharing=_sharing(agent),
            now=time.monotonic(),
        )
        yield RunProgress(shown, forecast)


def _sharing(agent: Agent | None) -> float:
    """Return whether the episodes of an agent share a processor, as far as the agent says."""
    if not isinstance(agent, StreamingAgent):
        return _SHARED
    description: Mapping[str, Any] = describe_agent(agent)
    return _SHARED if str(description.get("device", "")).startswith("cpu") else _ALONE
