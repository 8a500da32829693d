"""The time that a replay may take, by the clock. Invariant: it grows with the tasks and the actions of an entry, never with
what a submission says of time; what is not finished in it is not checked, which is neither agreement nor a difference.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from cotbench.envs.registry import EnvEntry
from cotbench.runs.episode import Episode

START_SECONDS: Final = 60.0
"""For an entry, and for an episode within it: processes and engines start, or start again."""
FAST: Final = (1.0, 0.25)
"""Seconds for an episode and for each of its actions where the engine is fast: ten times what honest ones take on a busy
machine.
"""
SLOW: Final = (60.0, 3.0)
"""The same where the expert is not at hand: a simulator starts, and a gold path is looked for."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left for an entry.

    Attributes:
        end: of the entry's time, on the monotonic clock, which all processes of a machine share.
        seconds: of the entry, in all.
        episode, step: seconds for an episode, and for each of its actions.
    """

    end: float
    seconds: float
    episode: float
    step: float

    @classmethod
    def of(cls, entry: EnvEntry, episodes: Sequence[Episode]) -> Self:
        """Return the budget of an entry, from now on.

        Args:
            entry: its environment.
            episodes: those that are replayed.
        """
        episode, step = FAST if entry.expert_at_hand else SLOW
        seconds = START_SECONDS + sum(episode + step * len(one.trajectory) for one in episodes)
        return cls(time.monotonic() + seconds, seconds, episode, step)

    def seconds_of(self, episode: Episode) -> float:
        """Return the seconds that an episode may take, where the entry has as many left."""
        return START_SECONDS + self.episode + self.step * len(episode.trajectory)

    def deadline(self, episode: Episode) -> float:
        """Return when an episode that begins now has to end, on the monotonic clock."""
        return min(self.end, time.monotonic() + self.seconds_of(episode))
