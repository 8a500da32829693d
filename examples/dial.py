"""Environment `dial`: a number is to be found; each answer says whether it is higher or lower.

`python dial.py` lets the expert and a random player play. From the command line:
`cotbench run --import dial.py --env dial --agent expert`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import cotbench
from cotbench.envs.base import EnvOutcome
from cotbench.envs.tasks import ListedTasks

SPLITS = {
    "train": [f"dial/small/{number}" for number in (2, 5, 9, 12)],
    "id": [f"dial/small/{number}" for number in (1, 4, 6, 8, 11, 15)],
    "ood": [f"dial/large/{number}" for number in (19, 23, 28, 32)],
}
TASKS = ListedTasks({"paper": SPLITS}, version="1")


@cotbench.register_env("dial", title="Dial", gym_id="example/Dial-v0", task_source=lambda: TASKS, license="Apache-2.0")
class Dial(cotbench.TextEnv):
    """Find a number.

    Description:
        A dial has numbers from 1 to 16, or to 32 out of domain; one of them opens the lock.

    Observation Space:
        Text: the task, then whether the number is higher or lower.

    Action Space:
        Text: `turn to NUMBER`.

    Rewards:
        1 when the lock opens.

    Episode End:
        `terminated`: the lock is open. `truncated`: 6 steps were taken.
    """

    instructions: ClassVar[str] = "You open a lock by turning a dial to the right number."
    examples: ClassVar[tuple[str, ...]] = ("turn to 3",)
    default_max_steps: ClassVar[int] = 6

    @staticmethod
    def canonical(action: str) -> str:
        """Return the action in lower case, with single blanks."""
        return " ".join(action.lower().split())

    def _split_tasks(self) -> Sequence[str]:
        return TASKS.tasks(self.scheme, self.split)

    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        _, size, number = task.split("/")
        self._number, self._low, self._high = int(number), 1, 16 if size == "small" else 32
        self._last = self._high
        goal = f"find the number between 1 and {self._high}"
        return EnvOutcome(f"Your task is to {goal}."), goal

    def _act(self, action: str) -> EnvOutcome:
        found = re.fullmatch(r"turn to (\d+)", action)
        if found is None or not 1 <= int(found[1]) <= self._last:
            return EnvOutcome("The dial does not move.", invalid_action="not of the form: turn to NUMBER")
        tried = int(found[1])
        if tried == self._number:
            return EnvOutcome("The lock opens.", score=1.0, raw_score=1.0, success=True, ended=True)
        if tried < self._number:
            self._low = max(self._low, tried + 1)
            return EnvOutcome(f"It is higher than {tried}.")
        self._high = min(self._high, tried - 1)
        return EnvOutcome(f"It is lower than {tried}.")

    def _admissible_actions(self) -> list[str]:
        return sorted(f"turn to {number}" for number in range(1, self._last + 1))

    def _expert_action(self) -> str | None:
        return f"turn to {(self._low + self._high) // 2}"


if __name__ == "__main__":
    for agent in ("expert", "random"):
        played = cotbench.run(cotbench.RunConfig(agent=agent, env="dial", mode="cot"))
        success = played.summary.modes["cot"].success
        print(f"{agent}: success {success.mean:.2f} [{success.low:.2f}, {success.high:.2f}] of {success.n} tasks")
