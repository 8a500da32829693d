"""An agent that repeats the decisions of a recorded run. Invariant: it answers only for states of the recording; any other
query is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from cotbench.prompting.query import Decision, Query
from cotbench.runs.episode import Step, read_episodes

_HELD = 64
"""Episodes held in memory: those that are being played."""


class ReplayAgent:
    """Replays the decisions of a run folder, task by task and step by step.

    Args:
        run: the run folder.
    """

    name = "replay"

    def __init__(self, run: str) -> None:
        self._run = run
        self._episodes = read_episodes(Path(run))
        self._last = lru_cache(maxsize=_HELD)(self._episodes.get)

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return the recorded decision for each query."""
        return [self._recorded(query) for query in queries]

    def _recorded(self, query: Query) -> Decision:
        episode = self._last(query.episode)
        if episode is None or episode.error is not None or query.step >= len(episode.trajectory):
            return Decision("", error=f"{self._run} holds no decision for step {query.step} of {query.episode}")
        seen = episode.trajectory[query.step - 1].observation if query.step else episode.first_observation
        if query.dialogue.observations[-1] != seen:
            return Decision("", error=f"step {query.step} of {query.episode} is not the state that {self._run} holds")
        step: Step = episode.trajectory[query.step]
        decision = step.decision if query.mode == episode.mode else step.prompt_decision
        missing = f"{self._run} holds no {query.mode} decision for step {query.step} of {query.episode}"
        return decision or Decision("", error=missing)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
