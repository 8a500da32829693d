"""ScienceWorld as a Gymnasium environment. Invariant: texts and scores are upstream's; a simulator that dies or freezes is
replaced, and the episode goes on only if its replay gives the same texts, word for word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar, TypeVar

from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.reading import ActionParts
from cotbench.envs.scienceworld import actions
from cotbench.envs.scienceworld.server import GOLD_SECONDS, STEP_SECONDS, Server, ServerLostError, ServerReply
from cotbench.envs.scienceworld.tasks import ScienceWorldTasks, read_task, task_types
from cotbench.errors import EngineError, UnknownNameError

_T = TypeVar("_T")

_SYNONYMS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("activate", "turn on"): (),
    ("deactivate", "turn off"): (),
    ("eat", "consume"): (),
    ("focus on", "focus"): (),
    ("look around", "look"): (),
    ("look in",): (),
    ("look at", "look on", "examine"): (),
    ("mix", "stir"): (),
    ("pick up", "get", "take"): (),
    ("put down", "drop"): (),
    ("go to", "go", "go through", "go into", "walk to", "walk through", "move through", "move into"): (),
    ("move", "put"): ("to", "in", "into", "on"),
    ("pour",): ("into", "in", "on", "to"),
    ("connect",): ("to", "in", "into"),
    ("dunk",): ("in", "into"),
    ("use",): ("on", "with"),
}
"""Synonymous verbs of upstream's parser -> synonymous prepositions between two things; source: `registerAction` of upstream's
actions."""
_VERBS = sorted(
    ((verb, verbs[0], joints) for verbs, joints in _SYNONYMS.items() for verb in verbs), key=lambda one: -len(one[0])
)

SIMPLIFICATIONS = ("easy", "teleportAction", "selfWateringFlowerPots", "openContainers", "openDoors", "noElectricalAction")


class ScienceWorldEnv(TextEnv):
    """Elementary science in text: boil, melt, measure, build circuits, grow plants, find things, mix, test.

    ## Description
    A simulated house with laboratory and garden (Wang et al., 2022). 30 task types of ten topics in 7,207 variations.

    ## Observation Space
    `AnyText`: the simulator's text. The first observation holds the task and the first look around.

    ## Action Space
    `AnyText`: one action, such as `open door to kitchen`, `pick up thermometer`, `use thermometer on water`, `focus on seed`,
    `wait1`. Case, spacing and a final stop do not matter. To an ambiguous request the simulator answers with numbered options;
    then a number is the only action. `reset task` is refused.

    ## Rewards
    The gain in `score`, which is upstream's score (0 to 100) divided by 100. `raw_score` is upstream's, -100 after a wrong
    focus.

    ## Termination
    `terminated`: upstream calls the task completed, or a wrong focus lost it. `truncated`: the step budget of the task type.

    ## Registered Configurations
    `cotbench/ScienceWorld-v0`.

    Args:
        split: the split to draw tasks from.
        scheme: `paper` or `official` (upstream's train, dev, test).
        simplifications: any of upstream's, see `SIMPLIFICATIONS`.
        seconds: how long the simulator may take for an action.
        max_steps: the step budget; None means that of the task type.
        request: any of `admissible_actions`, `expert_action` (the gold path's next action while on it; both are slow).
        render_mode: None or "ansi".
    """

    instructions: ClassVar[str] = (
        "You act in a house with rooms, tools and substances to fulfil the task that is given below. You do one action at a "
        "time and are then told what happened. Doors and containers may have to be opened first. To focus on something says "
        "that it is the answer: focus only on what the task asks for. If you are asked which of several things you mean, "
        "answer with its number."
    )
    default_max_steps: ClassVar[int] = 900
    """The largest budget of a task type; see `step_budget`."""
    examples: ClassVar[tuple[str, ...]] = (
        "open door to kitchen",
        "go to kitchen",
        "look around",
        "pick up metal pot",
        "move metal pot to sink",
        "activate sink",
        "pour cup into beaker",
        "use thermometer on water",
        "connect battery anode to orange wire terminal 1",
        "mix beaker",
        "focus on seed",
        "wait1",
        "inventory",
    )

    def __init__(
        self,
        *,
        split: str = "id",
        scheme: str = "paper",
        simplifications: Collection[str] = (),
        seconds: float = STEP_SECONDS,
        max_steps: int | None = None,
        request: Collection[str] = (),
        render_mode: str | None = None,
    ) -> None:
        super().__init__(split=split, scheme=scheme, max_steps=max_steps, request=request, render_mode=render_mode)
        for name in simplifications:
            if name not in SIMPLIFICATIONS:
                raise UnknownNameError("simplification", name, SIMPLIFICATIONS)
        self._simplifications = ",".join(dict.fromkeys(simplifications))
        self._seconds = seconds
        self._tasks: Sequence[str] = ScienceWorldTasks().tasks(scheme, split)
        self._server: Server | None = None
        self._gold_server: Server | None = None
        self._golds: dict[str, list[str]] = {}
        self._current = ""
        self._opening = ""
        self._history: list[tuple[str, ServerReply]] = []
        self._options: list[str] = []
        self._on_path = True
        self._restarts = 0

    canonical = staticmethod(actions.canonical)

    @staticmethod
    def _meaning(action: str) -> str:
        """Return the action with each verb replaced by the first of its synonyms in upstream's parser."""
        for verb, first, joints in _VERBS:
            if f"{action} ".startswith(f"{verb} "):
                rest = action.removeprefix(verb)
                parts = re.split(rf" (?:{'|'.join(joints)}) ", rest) if joints else [rest]
                # Where two such words stand, one may belong to a name.
                return first + (f" {joints[0]} ".join(parts) if len(parts) == 2 else rest)
        return action

    @staticmethod
    def action_parts(action: str) -> ActionParts:
        """Return the verb, with the preposition between two things, and the things. Where several such words stand, the first
        counts.
        """
        held = "( in inventory)?"
        for verb, joints in (
            ("open door to", ()),
            ("close door to", ()),
            ("look around", ()),
            *((verb, joints) for verb, _, joints in _VERBS),
        ):
            if action == verb:
                return ActionParts(verb)
            if not action.startswith(f"{verb} "):
                continue
            rest = action.removeprefix(f"{verb} ")
            if joints and (found := re.fullmatch(rf"(.+?){held} ({'|'.join(joints)}) (.+?){held}", rest)):
                form = f"{verb} {{}}{found[2] or ''} {found[3]} {{}}{found[5] or ''}"
                return ActionParts(form, (found[1], found[4]))
            thing = rest.removesuffix(" in inventory")
            return ActionParts(f"{verb} {{}}{rest.removeprefix(thing)}", (thing,))
        if action.isdecimal():
            return ActionParts("{}", (action,))
        verb, _, rest = action.partition(" ")
        return ActionParts(f"{verb} {{}}", (rest,)) if rest else ActionParts(verb)

    @property
    def restarts(self) -> int:
        """Number of times that the simulator was lost in this episode, and replaced by one whose replay gave the same texts."""
        return self._restarts

    def step_budget(self, task: str) -> int:
        """Return the budget of the task's type, where none is given."""
        return self.max_steps if self.max_steps is not None else task_types()[read_task(task)[0]].steps

    def _split_tasks(self) -> Sequence[str]:
        return self._tasks

    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        read_task(task)
        self._current, self._history, self._options, self._on_path, self._restarts = task, [], [], True, 0
        text, goal = _twice(self._begin, self._end_server)
        self._opening = text
        return EnvOutcome(f"{goal}\n\n{text}"), goal

    def _begin(self) -> tuple[str, str]:
        if self._server is None:
            self._server = Server(self._seconds)
        self._server.load(*read_task(self._current), self._simplifications)
        text = self._server.reset()
        return text, self._server.description()

    def _act(self, action: str) -> EnvOutcome:
        last = self._history[-1][1] if self._history else ServerReply("", 0, False)
        if action in actions.REFUSED or not action:
            return self._outcome(action, ServerReply(actions.UNKNOWN, last.score, False))
        try:
            reply = self._running_server().step(action)
        except ServerLostError as error:
            self._recover(error)
            reply = self._running_server().step(action)
        self._on_path = self._on_path and self._next_gold() == action
        self._history.append((action, reply))
        self._options = actions.options(reply.text)
        return self._outcome(action, reply)

    def _outcome(self, action: str, reply: ServerReply) -> EnvOutcome:
        return EnvOutcome(
            observation=reply.text,
            score=max(0, reply.score) / 100,
            raw_score=float(reply.score),
            success=reply.score == 100,
            ended=reply.completed or reply.score < 0,
            invalid_action=actions.why_invalid(action, reply.text),
        )

    def _recover(self, error: ServerLostError) -> None:
        """Replace the lost simulator by a new one in the same state, verified by its texts.

        Raises:
            EngineError: the texts differ, or the new one is lost too.
        """
        self._end_server()
        self._restarts += 1
        if not _twice(self._repeat, self._end_server):
            raise EngineError(f"{error}, and the replay of {self._current} went another way") from error

    def _repeat(self) -> bool:
        """Execute the episode's actions again; return whether they gave the same texts."""
        text, _ = self._begin()
        server = self._running_server()
        return text == self._opening and all(server.step(action) == reply for action, reply in self._history)

    def _admissible_actions(self) -> list[str]:
        if self._options:
            return sorted(self._options)
        return [action for action in self._running_server().valid_actions() if action not in actions.REFUSED]

    def _expert_action(self) -> str | None:
        return self._next_gold() if self._on_path else None

    def _next_gold(self) -> str | None:
        if "expert_action" not in self._request:
            return None
        gold = self._gold()
        return gold[len(self._history)] if len(self._history) < len(gold) else None

    def _gold(self) -> list[str]:
        """Return the gold path.

        Computed in a simulator of its own, because one that has computed it does so again at every reset.
        """
        if self._current not in self._golds:
            self._golds = {self._current: _twice(self._find_gold, self._end_gold_server)}
        return self._golds[self._current]

    def _find_gold(self) -> list[str]:
        if self._gold_server is None:
            self._gold_server = Server(GOLD_SECONDS)
        self._gold_server.load(*read_task(self._current), self._simplifications, gold=True)
        return [actions.canonical(action) for action in self._gold_server.gold_path()]

    def _running_server(self) -> Server:
        if self._server is None:
            raise EngineError("the environment is closed: call reset() first")
        return self._server

    def _end_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def close(self) -> None:
        """End both Java processes; the environment can be reset again."""
        self._running = False
        self._end_server()
        self._end_gold_server()

    def _end_gold_server(self) -> None:
        gold, self._gold_server = self._gold_server, None
        if gold is not None:
            gold.close()


def _twice(work: Callable[[], _T], end: Callable[[], None]) -> _T:
    """Return the result of work on a simulator; where that is lost, end it and try once more with another.

    Raises:
        ServerLostError: the other is lost too.
    """
    try:
        return work()
    except ServerLostError:
        end()
        return work()
