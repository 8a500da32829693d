"""How long a study still takes.

The time of a stage is what `cost` says of it before anything is measured, times what the stages of its kind have taken more; so
that it can be said what a study takes as soon as one stage is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cotbench.study import cost
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
