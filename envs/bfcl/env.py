"""BFCL as a Gymnasium environment. Invariant: success is the verdict of upstream's evaluation on the same responses; a model's
text is read as data, and its calls are executed by name in a process of their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Sequence
from typing import Any, ClassVar, Literal

from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.bfcl import calls, data
from cotbench.envs.bfcl.expert import Expert
from cotbench.envs.bfcl.host import SECONDS, Host
from cotbench.envs.bfcl.meaning import meaning
from cotbench.envs.bfcl.services import failed
from cotbench.envs.bfcl.tasks import BFCLTasks
from cotbench.envs.reading import ActionParts
from cotbench.errors import UnknownNameError

TURN_STEPS = 20
"""Upstream: `MAXIMUM_STEP_LIMIT`. A turn's 21st executed response ends the conversation."""

_EXPERTS = ("turn", "call", "resume")
_MOST_TURNS = 8
MORE_FUNCTIONS = "I have updated some more functions you can choose from. What about now?"
OVER = "The conversation is over."


class BFCLEnv(TextEnv):
    """Function calling: a user's requests, turn by turn, fulfilled by calls to simulated services.

    ## Description
    The Berkeley Function Calling Leaderboard, version 4 (Patil et al., 2025): 800 conversations of 1 to 8 turns over file
    system, vehicle, trading and travel services, and 3,641 single requests whose answers are judged by their form.

    ## Observation Space
    `AnyText`: the user's text, or the results of the calls, one a line, as upstream gives them.

    ## Action Space
    `AnyText`: one response, a list of calls that are executed in order: `[cd(folder="x"), ls(a=True)]`, or as JSON
    `[{"name": "cd", "arguments": {"folder": "x"}}]`, also in the form of OpenAI's tool calls. A response without a call ends
    the turn. A single-turn task takes one response. Upstream drops positional arguments, so they are dropped here.

    ## Rewards
    1 at the end of a conversation (or answer) that upstream's checkers pass, else 0. In the categories irrelevance and
    live_irrelevance they pass every answer without a call, and as such everything that cannot be read as calls: words, and
    also broken calls. The verdict here is the same; a run's table says how many of the right answers were what.

    ## Termination
    `terminated`: the last turn ended, a turn took 21 responses, or the one answer was given.

    ## Registered Configurations
    `cotbench/BFCL-v0`.

    Args:
        split: the split to draw tasks from.
        scheme: `paper` or `official` (one split a category).
        expert: the ground truth as one response a `turn`, or one a `call` (a turn of more than 20 calls: evenly in 20); it is
            silent once it was left. `resume` is `turn`, and speaks again at the next turn where all turns so far have passed.
        seconds: after how much time by the clock the executing process is taken for frozen.
        max_steps: the step budget; None means that upstream's own limit is the only one.
        request: any of `admissible_actions` (a call of each function with plain values, where that can be executed now:
            examples, chosen without a look at the ground truth), `expert_action`.
        render_mode: None or "ansi".
    """

    instructions: ClassVar[str] = (
        "You fulfil a user's requests by calling the functions that are listed below. An action is a list of calls, executed "
        "in order; you are then told their results and can call again. When the request is fulfilled, or when it cannot be "
        "fulfilled because a function or a value is missing, act with the empty list: the user then says more. Arguments are "
        "given by name. For Java and JavaScript functions, give every value as a string that holds it in that language."
    )
    default_max_steps: ClassVar[int] = _MOST_TURNS * (TURN_STEPS + 1)
    examples: ClassVar[tuple[str, ...]] = (
        "[function_name(text='value', number=3)]",
        "[first_function(flag=True), second_function(items=['a', 'b'])]",
        "[]",
    )

    def __init__(
        self,
        *,
        split: str = "id",
        scheme: str = "paper",
        expert: Literal["turn", "call", "resume"] = "turn",
        seconds: float = SECONDS,
        max_steps: int | None = None,
        request: Collection[str] = (),
        render_mode: str | None = None,
    ) -> None:
        super().__init__(split=split, scheme=scheme, max_steps=max_steps, request=request, render_mode=render_mode)
        if expert not in _EXPERTS:
            raise UnknownNameError("expert", expert, _EXPERTS)
        self._expert_style = expert
        self._tasks: Sequence[str] = BFCLTasks().tasks(scheme, split)
        self._host = Host(seconds)
        self._current = ""
        self._user_turns: list[str] = []
        self._functions: list[dict[str, Any]] = []
        self._held_out: dict[int, list[dict[str, Any]]] = {}
        self._passed: list[bool] = []
        self._taken = 0
        self._recorded: str | None = None
        self._expert: Expert | None = None

    @staticmethod
    def canonical(action: str) -> str:
        """Return the calls by name and in order, without positional arguments; `[]` for words without a call."""
        return calls.canonical(action)

    @staticmethod
    def _meaning(action: str) -> Hashable:
        """Return the calls, without the order among those that cannot affect each other."""
        return meaning(action)

    @staticmethod
    def action_parts(action: str) -> ActionParts:
        """Return the calls with a place for each value, also for those inside of lists and objects, and the values."""
        return calls.action_parts(action)

    @classmethod
    def leniently_judged(cls, task: str, answer: str) -> str | None:
        """Return what a right answer was, on a task on which nothing is to be called; else None."""
        if "irrelevance" not in task:
            return None
        try:
            calls.read(answer)
            return "the empty list" if answer.strip() else "an empty text"
        except calls.UnreadableError:
            return "words" if calls.canonical(answer) == calls.NO_CALL else "calls that cannot be read"

    @property
    def restarts(self) -> int:
        """Number of times that the executing process was lost in this episode, and its calls repeated in a new one."""
        return self._host.restarts

    def step_budget(self, task: str) -> int:
        """Return the largest number of steps that upstream's limits allow, where no budget is given."""
        if self.max_steps is not None:
            return self.max_steps
        return len(data.turns(task)) * (TURN_STEPS + 1) if data.category_of(task) in data.MULTI_TURN else 1

    def expect(self, observation: str) -> None:
        """Take from a recorded observation which calls of the next action took too long; the others are not hurried."""
        self._recorded = observation.removesuffix(f"\n\n{OVER}")

    def _split_tasks(self) -> Sequence[str]:
        return self._tasks

    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        multi_turn = data.category_of(task) in data.MULTI_TURN
        self._current, self._user_turns = task, data.turns(task)
        self._passed, self._taken, self._expert, self._recorded = [], 0, None, None
        names = data.held_out(task)
        held = {name for late in names.values() for name in late}
        schemas = data.schemas(task)
        self._functions = [schema for schema in schemas if schema["name"] not in held]
        self._held_out = {turn: [s for s in schemas if s["name"] in late] for turn, late in names.items()}
        if multi_turn:
            self._host.start(task)
        if "expert_action" in self._request:
            self._expert = Expert(task, self._expert_style)
        text = self._request_text()
        return EnvOutcome(text), text

    def _request_text(self) -> str:
        """Return the user's text at the beginning of the current turn, with the functions that are added in it."""
        added = self._held_out.get(self._turn, [])
        if not added:
            return self._user_turns[self._turn]
        self._functions = [*self._functions, *added]
        return "\n".join((*map(json.dumps, added), MORE_FUNCTIONS))

    @property
    def _turn(self) -> int:
        return len(self._passed)

    def _act(self, action: str) -> EnvOutcome:
        try:
            return self._respond(action)
        finally:
            self._recorded = None

    def _respond(self, action: str) -> EnvOutcome:
        if data.category_of(self._current) not in data.MULTI_TURN:
            return self._answer(action)
        texts, unreadable = _texts(action)
        if not texts:
            return self._end_turn(unreadable)
        results = self._host.call(texts, self._recorded)
        self._taken += 1
        if self._expert is not None:
            self._expert.executed(texts)
        observation, failure = "\n".join(results), next(filter(failed, results), None)
        if self._taken <= TURN_STEPS:
            return EnvOutcome(observation, invalid_action=failure)
        if self._turn < len(self._user_turns) - 1:
            return EnvOutcome(f"{observation}\n\n{OVER}", ended=True, invalid_action="more responses than a turn may have")
        return self._end_turn(failure, observation)

    def _end_turn(self, invalid: str | None, results: str = "") -> EnvOutcome:
        verdict = self._host.end_turn(patient=self._recorded is not None)
        self._passed = [*self._passed, verdict.valid]
        self._taken = 0
        if self._expert is not None:
            self._expert.turn_ended(verdict.valid)
        if self._turn < len(self._user_turns):
            return EnvOutcome(self._request_text(), invalid_action=invalid)
        won = all(self._passed)
        text = f"{results}\n\n{OVER}" if results else OVER
        return EnvOutcome(text, float(won), float(won), won, ended=True, invalid_action=invalid)

    def _answer(self, action: str) -> EnvOutcome:
        verdict = self._host.judge(self._current, action, patient=self._recorded is not None)
        self._passed = [verdict.valid]
        won = verdict.valid
        invalid = None if data.language_of(data.category_of(self._current)) != "python" else _texts(action)[1]
        return EnvOutcome(OVER, float(won), float(won), won, ended=True, invalid_action=invalid)

    def _more_info(self) -> dict[str, Any]:
        """Return the `info` entries that only BFCL has.

        `functions`: JSON schemas of what can be called now; `turn` of `turns`, and `turns_passed`, the verdicts on those that
        ended.
        """
        return {
            "functions": list(self._functions),
            "turn": min(self._turn + 1, len(self._user_turns)),
            "turns": len(self._user_turns),
            "turns_passed": list(self._passed),
        }

    def _admissible_actions(self) -> list[str]:
        plain = {calls.canonical(calls.spell([{schema["name"]: _plain_arguments(schema)}])) for schema in self._functions}
        if data.category_of(self._current) in data.MULTI_TURN and self._running:
            # Some functions fail on plain values, or before another one was called.
            texts = {action: text for action in sorted(plain) for text in _texts(action)[0]}
            possible = self._host.possible(list(texts.values()))
            plain = {action for action, possible_now in zip(texts, possible, strict=True) if possible_now}
        return sorted(plain | {calls.NO_CALL})

    def _expert_action(self) -> str | None:
        return self._expert.next_action() if self._expert is not None and self._running else None

    def close(self) -> None:
        """End the executing process; the environment can be reset again."""
        self._running = False
        self._host.close()


def _texts(action: str) -> tuple[list[str], str | None]:
    """Return the calls of a response as they are executed, and why it could not be read."""
    try:
        return calls.read(action).texts(), None
    except calls.UnreadableError as error:
        return [], f"not readable as calls, so nothing was called: {error}"


_PLAIN: dict[str, Any] = {
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "array": [],
    "object": {"key": "value"},
    "string": "text",
}


def _plain_arguments(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the required arguments of a function, each with its default, its first choice, or a plain value of its type."""
    properties, required = schema["parameters"].get("properties", {}), schema["parameters"].get("required", [])
    described = {name: properties[name] for name in required if name in properties}
    return {
        name: inner.get("default", (inner.get("enum") or [_PLAIN.get(inner.get("type", "string"), "text")])[0])
        for name, inner in described.items()
    }
