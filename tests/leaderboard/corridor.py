"""Environment `corridor` and agent `walker`, registered by importing this file: a whole split in a moment, players that differ
by a number, an expert that is known at every state.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import ClassVar

from cotbench.agents.decisions import tagged_decision
from cotbench.agents.registry import register_agent
from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.registry import register_env
from cotbench.envs.tasks import ListedTasks
from cotbench.prompting.query import Decision, Query

DOORS, LENGTH = 4, 5
TASKS = ListedTasks(
    {"paper": {"train": ["corridor/long/100"], "id": [f"corridor/long/{number}" for number in range(12)]}}, version="1"
)


def _door(*where: object) -> int:
    return int(hashlib.sha256(repr(where).encode()).hexdigest(), 16) % DOORS


@register_env("corridor", title="Corridor", gym_id="made/Corridor-v0", task_source=lambda: TASKS, license="Apache-2.0")
class Corridor(TextEnv):
    """Go through one of four doors, five times.

    Description:
        One door is right in each place; the score is the share of right ones.

    Observation Space:
        Text: the place.

    Action Space:
        Text: `door NUMBER`; `wait NUMBER` takes a hundredth of that many seconds.

    Rewards:
        The gain in `score`.

    Episode End:
        `terminated`: five doors were passed. `truncated`: `max_steps` steps (8) were taken.
    """

    instructions: ClassVar[str] = "You walk through doors."
    examples: ClassVar[tuple[str, ...]] = ("door 3",)
    default_max_steps: ClassVar[int] = 8

    @staticmethod
    def canonical(action: str) -> str:
        """Return the action in lower case, with single blanks."""
        return " ".join(action.lower().split())

    def _split_tasks(self) -> Sequence[str]:
        return TASKS.tasks(self.scheme, self.split)

    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        self._where, self._right, self._place = task, 0, 0
        return EnvOutcome("You stand in a corridor."), "walk"

    def _act(self, action: str) -> EnvOutcome:
        word, _, number = action.partition(" ")
        if word == "wait" and number.isdigit():
            time.sleep(int(number) / 100)
        if word != "door" or not number.isdigit():
            return self._outcome("Nothing happens.", "not of the form door NUMBER")
        self._right += int(number) == _door(self._where, self._place)
        self._place += 1
        return self._outcome(f"You are at place {self._place}.")

    def _outcome(self, observation: str, invalid: str | None = None) -> EnvOutcome:
        score = self._right / LENGTH
        return EnvOutcome(observation, score, score, self._right == LENGTH, self._place == LENGTH, invalid)

    def _admissible_actions(self) -> list[str]:
        return [f"door {number}" for number in range(DOORS)]

    def _expert_action(self) -> str | None:
        return f"door {_door(self._where, self._place)}"


@register_agent("walker")
class Walker:
    """Takes doors by a number of its own; in prompt mode others than in CoT mode.

    Args:
        number: which walker it is.
    """

    name = "walker"

    def __init__(self, *, number: int = 1) -> None:
        self._number = number

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return one decision a query."""
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        where = (self._number, query.mode, query.dialogue.observations[0], len(query.dialogue.actions), query.episode)
        return tagged_decision(query, f"door {_door(*where)}", "This one looks right.")

    def close(self) -> None:
        """Free nothing."""
