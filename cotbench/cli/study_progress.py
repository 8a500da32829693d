"""Progress of a study, on standard error: its stages, the running ones, and how long the rest takes.

The time of a stage is what `study.cost` says of it before anything is measured, times what the stages of its kind have taken
more; so that it can be said what a study takes as soon as one stage is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cotbench.cli.progress_display import Progress, format_duration
from cotbench.cli.terminal import echo_error
from cotbench.runs.forecast import SmoothedEnd
from cotbench.study import cost
from cotbench.study.folder import seconds_of
from cotbench.study.plan import StudyPlan
from cotbench.study.stage import Stage

_SOON = 0.1
"""Share of its time that a running stage is expected to take at least, though it has taken longer than expected."""
_PRIOR_STAGES = 0.5
"""How many stages of a kind all other stages together are worth, for the ratio of measured to expected time."""


def expected_seconds(stage: Stage) -> float:
    """Return the seconds that a stage is expected to take before anything is measured.

    Args:
        stage: the stage.
    """
    model = stage.place.model or ""
    operations = cost.flops(model, stage.tokens, stage.trained) if model else 0.0
    return cost.seconds(operations or 0.0, cost.usual_speed(model))


@dataclass(frozen=True, slots=True)
class Took:
    """The expected and the measured seconds of stages."""

    expected: float = 0.0
    measured: float = 0.0
    stages: int = 0

    def __add__(self, other: Took) -> Took:
        return Took(self.expected + other.expected, self.measured + other.measured, self.stages + other.stages)


def seconds_left(stages: Iterable[Stage], done: Mapping[str, float], running: Mapping[str, float], jobs: int) -> float | None:
    """Return how long a study still takes; None before a stage is done.

    Args:
        stages: all stages.
        done: name -> seconds of each stage that is done.
        running: name -> seconds so far.
        jobs: stages at a time.
    """
    stages = list(stages)
    by_kind: dict[str, Took] = {}
    for stage in stages:
        if stage.name in done:
            by_kind[stage.kind] = by_kind.get(stage.kind, Took()) + Took(expected_seconds(stage), done[stage.name], 1)
    overall = sum(by_kind.values(), Took())
    if not overall.stages:
        return None
    usual = overall.measured / overall.expected
    left = longest = 0.0
    for stage in stages:
        if stage.name not in done:
            took, expected = by_kind.get(stage.kind, Took()), expected_seconds(stage)
            prior = _PRIOR_STAGES * (took.expected / took.stages if took.stages else 1.0)
            rest = expected * (took.measured + prior * usual) / (took.expected + prior)
            if stage.name in running:
                rest = max(rest - running[stage.name], _SOON * rest)
            left, longest = left + rest, max(longest, rest)
    return max(longest, left / max(1, jobs))


class StudyProgress:
    """Observes a study and shows how far it is.

    Args:
        shown: where it is shown.
        plan: its stages.
        target: its folder.
        done: names of the stages that are done already.
        lines: print a line for each stage that ends, and let nothing else be shown.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        shown: Progress,
        plan: StudyPlan,
        target: Path,
        done: Collection[str],
        *,
        lines: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shown, self._stages, self._lines, self._clock = shown, plan.stages, lines, clock
        self._took = {
            stage.name: took for stage in plan.stages if stage.name in done and (took := seconds_of(target, stage)) is not None
        }
        self._done = set(done)
        self._running: dict[str, float] = {}
        self._jobs = 1
        self._end = SmoothedEnd()
        if lines and done:
            echo_error(f"{len(done)} of {len(plan.stages)} stages are done already")

    def began(self, stage: Stage) -> None:
        """Handle the beginning of a stage."""
        self._running[stage.name] = self._clock()
        self._jobs = max(self._jobs, len(self._running))
        self.moment()

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """Handle the end of a stage."""
        self._running.pop(stage.name, None)
        if error is None:
            self._done.add(stage.name)
            self._took[stage.name] = seconds
        self.moment()
        ending = "done" if error is None else f"FAILED: {error}"
        if self._lines:
            left = self._end.left(self._clock())
            more = "" if left is None or len(self._done) == len(self._stages) else f", about {format_duration(left)} left"
            echo_error(f"{len(self._done)}/{len(self._stages)} {stage.name}: {ending}, {format_duration(seconds)}{more}")
        elif error is not None:
            self._shown.note(f"{stage.name} {ending}")

    def moment(self) -> None:
        """Show how long each stage has been running."""
        now = self._clock()
        running = {name: now - since for name, since in self._running.items()}
        self._end.update(now, seconds_left(self._stages, self._took, running, self._jobs))
        facts = [f"{name} {format_duration(took)}" for name, took in running.items()]
        if not self._lines:
            self._shown.update(len(self._done), facts, self._end.left(now))
