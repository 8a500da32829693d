"""Environment `counting`: say the numbers from one up, in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.registry import TokenSizes, register_env
from cotbench.envs.tasks import ListedTasks

TASKS = ListedTasks(
    {
        "paper": {
            "train": [f"counting/short/{length}" for length in (2, 4)],
            "id": [f"counting/short/{length}" for length in (3, 5)],
            "ood": [f"counting/long/{length}" for length in (7, 8)],
        }
    },
    version="1",
)


@register_env(
    "counting",
    title="Counting",
    gym_id="toy/Counting-v0",
    task_source=lambda: TASKS,
    license="Apache-2.0",
    sizes=TokenSizes(first_prompt=80, step=15, answer=15, expert_steps=4),
)
class CountingEnv(TextEnv):
    """Say the numbers from one up, in order.

    Description:
        The task names a number; each step says one. A wrong number loses.

    Observation Space:
        Text: the task, then what was said.

    Action Space:
        Text: `say NUMBER`.

    Rewards:
        The gain in `score`, the share of the numbers that were said.

    Episode End:
        `terminated`: all numbers were said, or a wrong one. `truncated`: `max_steps` steps (12) were taken.
    """

    instructions: ClassVar[str] = "You count aloud, one number a step."
    examples: ClassVar[tuple[str, ...]] = ("say 4",)
    default_max_steps: ClassVar[int] = 12

    @staticmethod
    def canonical(action: str) -> str:
        """Return the action in lower case, with single blanks."""
        return " ".join(action.lower().split())

    def _split_tasks(self) -> Sequence[str]:
        return TASKS.tasks(self.scheme, self.split)

    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        self._length, self._said = int(task.rsplit("/", 1)[1]), 0
        goal = f"count to {self._length}"
        return EnvOutcome(f"Your task is to {goal}. Nothing was said yet."), goal

    def _act(self, action: str) -> EnvOutcome:
        found = re.fullmatch(r"say (\d{1,3})", action)
        if found is None:
            return self._outcome("Nobody understood.", invalid="not of the form say NUMBER")
        if int(found[1]) != self._said + 1:
            return self._outcome(f"{found[1]} is wrong.", lost=True)
        self._said += 1
        return self._outcome(f"{self._said} was said.")

    def _outcome(self, observation: str, lost: bool = False, invalid: str | None = None) -> EnvOutcome:
        won = self._said == self._length
        score = self._said / self._length
        return EnvOutcome(observation, score, score, won, won or lost, invalid)

    def _admissible_actions(self) -> list[str]:
        return [f"say {number}" for number in range(1, 10)]

    def _expert_action(self) -> str | None:
        return f"say {self._said + 1}"
