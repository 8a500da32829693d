"""Judges by rule, a player whose two actions differ, and the states that they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cotbench
from cotbench.envs import Instructions
from cotbench.judge.question import Pair
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.query import Decision, Query

GAMES = ("alfworld/gen/cool/1", "alfworld/gen/heat/1", "alfworld/gen/clean/2")
ASKED: list[Query] = []
"""What the judges below were asked, in order."""


class Player:
    """Reasons like the expert; without a trace it looks around at every other state."""

    name = "judge-test-player"
    needs = frozenset({"expert_action"})

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [self._act(query) for query in queries]

    def _act(self, query: Query) -> Decision:
        if query.mode == "cot":
            return Decision(query.expert_action or "look", "SECRET TRACE")
        return Decision("look" if query.step % 2 == 0 else query.expert_action or "look")

    def close(self) -> None: ...


class Judge:
    """Names a letter by a rule on the two actions that it is shown, or says what the rule says."""

    name = "judge-test"
    rule: Callable[[Query, str, str], object] = staticmethod(lambda query, a, b: "A")
    down = False
    interrupt_after: int | None = None
    described: dict[str, str] = {}

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        if self.interrupt_after is not None and len(ASKED) >= self.interrupt_after:
            raise KeyboardInterrupt
        ASKED.extend(queries)
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Decision:
        if type(self).down and query.task == GAMES[1] and query.step == 2:
            return Decision("", error="503 from the server")
        return Decision(str(type(self).rule(query, *shown(query))))

    def describe(self) -> dict[str, str]:
        return self.described

    def close(self) -> None: ...


cotbench.register_agent("judge-test")(Judge)


def shown(query: Query) -> tuple[str, str]:
    """The two actions as a judge sees them."""
    (text,) = query.dialogue.observations
    first, second = text.rpartition("A or B?\nA:\n")[2].split("\nB:\n")
    return first.removeprefix("    "), second.removeprefix("    ")


def pair(step: int = 1, prompt: str = "look", cot: str = "take mug 1", **more: Any) -> Pair:
    dialogue = Dialogue(Instructions("You act in a house.", ("examine mug 2",)), ("Your task is to: look.",))
    for turn in range(step):
        dialogue = dialogue.extended(f"go to desk {turn}", "SECRET TRACE", f"On the desk {turn} you see a mug.")
    fields = {
        "episode": "e",
        "env": "",
        "task": "t",
        "step": step,
        "dialogue": dialogue,
        "prompt_action": prompt,
        "cot_action": cot,
    }
    return Pair(**{**fields, **more})
