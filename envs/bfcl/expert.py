"""The ground truth as an expert. Invariant: in every state that its own calls led to, its next action is one with which the
episode can still be won; elsewhere it gives none, or, as style "resume", waits for a turn at which the state is its own again.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from cotbench.envs.bfcl import calls, data
from cotbench.envs.bfcl.answers import expert_answer

_MOST_RESPONSES = 20


class Expert:
    """Player of one task's ground truth.

    Args:
        task: the task id.
        style: "turn" (one response a turn), "call" (one a call), or "resume": one a turn, and it steps in again where another
            player's turns have passed, because then the services are in the state to which the ground truth leads.
    """

    def __init__(self, task: str, style: str) -> None:
        self._single = data.category_of(task) not in data.MULTI_TURN
        self._answer = expert_answer(task) if self._single else ""
        self._turns = [] if self._single else [[_named(text, task) for text in turn] for turn in data.ground_truth(task)]
        self._style = style
        self._turn = 0
        self._executed = 0
        self._on_path = True
        self._all_passed = True

    def next_action(self) -> str | None:
        """Return the next response, or None off the path."""
        if self._single:
            return self._answer
        if not self._on_path or self._turn >= len(self._turns):
            return None
        truth = self._turns[self._turn]
        size = len(truth) if self._style != "call" else -(-len(truth) // _MOST_RESPONSES)
        return calls.canonical("[" + ", ".join(truth[self._executed : self._executed + size]) + "]")

    def executed(self, texts: Sequence[str]) -> None:
        """Note executed calls: the path goes on if they are the next ones of the ground truth.

        Args:
            texts: the calls as `CallAnswer.texts` writes them.
        """
        following = self._turns[self._turn][self._executed : self._executed + len(texts)]
        same = len(texts) == len(following) and [calls.canonical(text) for text in texts] == list(
            map(calls.canonical, following)
        )
        self._on_path = self._on_path and same
        self._executed += len(texts)

    def turn_ended(self, passed: bool) -> None:
        """Note the end of a turn and its verdict: a turn that failed leaves the path."""
        self._all_passed = self._all_passed and passed
        compared = self._turn < len(self._turns) and bool(self._turns[self._turn])  # Others pass without a look at the state.
        back = self._style == "resume" and compared and self._all_passed
        self._turn, self._executed, self._on_path = self._turn + 1, 0, (self._on_path and passed) or back


def _named(text: str, task: str) -> str:
    """Return a call of the ground truth with its positional arguments named, for a response cannot have any."""
    node = ast.parse(text, mode="eval").body
    if not isinstance(node, ast.Call):
        raise TypeError(f"the ground truth of {task} holds {text!r}, which is no call")
    if not node.args:
        return ast.unparse(node)
    names = list(_parameters(node.func.id if isinstance(node.func, ast.Name) else "", task))
    placed = [ast.keyword(name, value) for name, value in zip(names, node.args, strict=False)]
    return ast.unparse(ast.Call(node.func, [], [*placed, *node.keywords]))


def _parameters(function: str, task: str) -> dict[str, Any]:
    described = next((one for one in data.functions(task) if one["name"] == function), None)
    found: dict[str, Any] = described["parameters"]["properties"] if described is not None else {}
    return found
