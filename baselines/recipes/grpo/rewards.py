"""Reward of an episode. Invariant: a pure function of the episode: its outcome less a penalty for malformed answers, bounded so
that no success is worth less than a failure.

Malformed under prefill, where the harness writes the opening tags: the model did not close its trace (its budget ran out, it
ended its turn, or it went on to the action), or did not close its action (budget, end of turn, end of the line), or wrote a tag
inside of it. That is `not Decision.format_ok`. An action that the environment does not know is not malformed: it does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cotbench.runs.episode import Episode

Outcome = Literal["success", "score"]
"""What an episode is rewarded for: 1 for a success, or its score in [0, 1]."""

PENALTY_CAP = 0.5
"""An episode loses at most this much for its malformed answers."""


@dataclass(frozen=True, slots=True)
class EpisodeReward:
    """Reward of an episode.

    Attributes:
        outcome: success (0 or 1) or score.
        malformed: for each turn, whether its answer was malformed.
        penalty: of one malformed answer, at least 0.
    """

    outcome: float
    malformed: tuple[bool, ...]
    penalty: float = 0.1

    @property
    def total(self) -> float:
        """Outcome less the penalties."""
        return self.outcome - min(PENALTY_CAP, self.penalty * sum(self.malformed))

    def turn_reward(self, turn: int) -> float:
        """Return the outcome less the penalty of one turn's own answer.

        Args:
            turn: counted from 0.
        """
        return self.outcome - min(PENALTY_CAP, self.penalty * self.malformed[turn])


def episode_reward(episode: Episode, outcome: Outcome, penalty: float) -> EpisodeReward:
    """Return the reward of a played episode.

    Args:
        episode: one that ended without an error.
        outcome: what it is rewarded for.
        penalty: of one malformed answer.
    """
    value = float(episode.success) if outcome == "success" else float(episode.score)
    return EpisodeReward(value, tuple(not step.decision.format_ok for step in episode.trajectory), penalty)
