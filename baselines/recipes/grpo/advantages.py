"""Advantages of the episodes of a group. Invariant: a pure function of the rewards: what the masks leave out, which tokens
there are and how they are weighed changes no advantage; a group whose rewards are all equal has none.

Source: DeepSeekMath (arXiv 2402.03300, 4.1.2): an episode's advantage is its reward less the group's mean, divided by the
group's standard deviation, the same for all of its tokens. Here it is the sample's (n - 1), as in TRL, without TRL's 1e-4 in
the denominator: groups without variance are told apart instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from cotbench.baselines.recipes.grpo.rewards import EpisodeReward

AdvantageUnit = Literal["episode", "step"]
"""What mean and deviation are taken over. `episode`: the group's episodes, one advantage for all turns of each. `step`: all
turns of the group, each with its episode's outcome less the penalty of its own answer (as verl-agent does), so that a long
episode weighs more.
"""

Variance = Literal["outcome", "penalty", "none"]
"""What the rewards of a group differ by: the outcomes, the penalties alone, or nothing."""

_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class GroupAdvantages:
    """Advantages of a group.

    Attributes:
        turns: for each episode the advantage of each of its turns.
        variance: what the rewards differ by; with "none" all advantages are 0 and nothing is learned from the group.
    """

    turns: tuple[tuple[float, ...], ...]
    variance: Variance


def normalised(rewards: Sequence[float]) -> tuple[float, ...]:
    """Return rewards less their mean, divided by their standard deviation (of a sample); zeros where they are equal.

    Args:
        rewards: at least two.
    """
    if max(rewards) - min(rewards) <= _EQUAL:
        return (0.0,) * len(rewards)
    mean, deviation = fmean(rewards), stdev(rewards)
    return tuple((reward - mean) / deviation for reward in rewards)


def group_advantages(group: Sequence[EpisodeReward], unit: AdvantageUnit = "episode") -> GroupAdvantages:
    """Return the advantages of a group's episodes.

    The deviation is not taken over the penalties alone, which would blow up the smallest of them to the size of a success:
    where the outcomes are all equal, an advantage is the reward less the mean, undivided.

    Args:
        group: the rewards of the rollouts of one task; at least two. An episode has at least one turn.
        unit: what mean and deviation are taken over.

    Raises:
        ValueError: there are fewer than two episodes.
    """
    if len(group) < 2:
        raise ValueError(f"a group of {len(group)} has no mean to compare with: at least 2 rollouts")
    lengths = [len(one.malformed) for one in group]
    if unit == "step":
        rewards = [one.turn_reward(turn) for one in group for turn in range(len(one.malformed))]
    else:
        rewards = [one.total for one in group]
    variance = _variance([one.outcome for one in group], rewards)
    values = iter(_advantages(rewards, variance))
    if unit == "step":
        return GroupAdvantages(tuple(tuple(next(values) for _ in range(length)) for length in lengths), variance)
    return GroupAdvantages(tuple((next(values),) * length for length in lengths), variance)


def _variance(outcomes: Sequence[float], rewards: Sequence[float]) -> Variance:
    """Return what the rewards that are compared differ by, those of episodes or those of turns."""
    if max(outcomes) - min(outcomes) > _EQUAL:
        return "outcome"
    return "penalty" if max(rewards) - min(rewards) > _EQUAL else "none"


def _advantages(rewards: Sequence[float], variance: Variance) -> tuple[float, ...]:
    """Return what each reward is above the mean of all, in units of their deviation where outcomes differ."""
    if variance == "none":
        return (0.0,) * len(rewards)
    if variance == "outcome":
        return normalised(rewards)
    mean = fmean(rewards)
    return tuple(reward - mean for reward in rewards)
