"""Our own engine: the game files' PDDL and grammar, played in plain Python. Invariant: its texts are the stock engine's.

A running game is a few references to things that never change, so that copying one is nearly free.
"""

from __future__ import annotations

from cotbench.envs.alfworld.actions import NOTHING_HAPPENS
from cotbench.envs.alfworld.engine import Feedback
from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.names import spoken_names
from cotbench.envs.alfworld.pddl.problem import Arguments
from cotbench.envs.alfworld.pddl.relations import State
from cotbench.envs.alfworld.pddl.world import Action, World
from cotbench.errors import EngineError, GameFileError

_Call = tuple[Action, Arguments]


class NativeEngine:
    """One running game.

    Raises:
        GameFileError: a part of the game is damaged, or uses a feature that is not supported; the message names both.
    """

    __slots__ = ("_calls", "_closed", "_commands", "_sorted", "_state", "_task", "_won", "_world")

    def __init__(self, game: Game) -> None:
        self._task = game.task
        try:
            self._world = World(game.pddl_domain, game.pddl_problem, game.grammar, spoken_names)
        except GameFileError as error:
            raise GameFileError(f"cannot load the game of {game.task}: {error}") from error
        except RecursionError:
            raise GameFileError(f"cannot load the game of {game.task}: its brackets or rules are nested too deeply") from None
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._state: State = self._world.initial
        self._commands: list[list[tuple[str, Arguments]] | None] = [None] * len(self._world.actions)
        self._calls: dict[str, _Call] | None = None
        self._sorted: list[str] | None = None
        self._won = self._world.goal.holds(self._state)

    def reset(self) -> str:
        """Start the game anew and return the first observation."""
        self._check()
        self._begin()
        try:
            return self._world.intro()
        except (GameFileError, RecursionError) as error:
            raise self._rendering_error(error) from error

    def step(self, command: str) -> Feedback:
        """Execute one command, spelled as `admissible` lists it."""
        self._check()
        call = self._callable().get(command.strip())
        if call is None:
            return Feedback(NOTHING_HAPPENS, self._won, False)
        action, arguments = call
        world = self._world
        try:
            state, changed = world.apply(action, arguments, self._state)
            text = world.feedback(action, arguments, state)
        except (GameFileError, RecursionError) as error:
            raise self._rendering_error(error) from error
        if changed:
            self._state = state
            stale = [place for place, other in enumerate(world.actions) if not other.depends.isdisjoint(changed)]
            if stale:
                # A new list, since a copy of this game may hold the old one.
                self._commands = list(self._commands)
                for place in stale:
                    self._commands[place] = None
                self._calls = self._sorted = None
            if not world.goal_depends.isdisjoint(changed):
                self._won = world.goal.holds(state)
        return Feedback(text, self._won, True)

    def admissible(self) -> list[str]:
        """Return the commands that do something now, sorted and without duplicates."""
        self._check()
        if self._sorted is None:
            self._sorted = sorted(self._callable())
        return list(self._sorted)

    def names(self) -> frozenset[str]:
        """Return the names of the things in the game, as texts and commands use them ("mug 1")."""
        entities = self._world.entities
        return frozenset(entities[id].name.strip() for id in self._world.spoken_of)

    def clone(self) -> NativeEngine:
        """Return a second game in the same state, independent of this one from here on."""
        self._check()
        copy = NativeEngine.__new__(NativeEngine)
        for slot in self.__slots__:
            setattr(copy, slot, getattr(self, slot))
        return copy

    def close(self) -> None:
        """Refuse further calls; nothing is held outside the process's memory."""
        self._closed = True

    def _callable(self) -> dict[str, _Call]:
        if self._calls is None:
            world, state = self._world, self._state
            calls: dict[str, _Call] = {}
            try:
                for place, action in enumerate(world.actions):
                    commands = self._commands[place]
                    if commands is None:
                        commands = self._commands[place] = world.doable(action, state)
                    for command, arguments in commands:
                        call = action, arguments
                        # Two actions with one command: upstream does whichever its planner lists first, we the one whose
                        # name and arguments come first in the alphabet. No official game has such commands.
                        other = calls.setdefault(command, call)
                        if other is not call and _order(call) < _order(other):
                            calls[command] = call
            except (GameFileError, RecursionError) as error:
                raise self._rendering_error(error) from error
            self._calls = calls
        return self._calls

    def _rendering_error(self, error: Exception) -> EngineError:
        reason = "a rule of the grammar leads back to itself" if isinstance(error, RecursionError) else error
        return EngineError(f"the game of {self._task} cannot be told: {reason}")

    def _check(self) -> None:
        if self._closed:
            raise EngineError(f"the engine of {self._task} is closed")


def _order(call: _Call) -> tuple[str, Arguments]:
    return call[0].schema.name, call[1]
