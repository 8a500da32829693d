"""The expert that knows the whole household from the start, and how many steps it needs. Invariant: its plan is a function of
the game's state alone, so the number of steps left is one too; it can take over from any player.

It is the expert "seen" (`expert`) that has looked into every receptacle already: it never searches. Where several objects will
do it takes the one that is nearest: here, else in an open receptacle, else in a closed one. That is its own plan, and not
proved to be the shortest.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from cotbench.envs.alfworld.actions import MOVE, Dialect
from cotbench.envs.alfworld.expert import Expert
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.errors import GameFileError

MAX_STEPS = 60
"""A plan that is longer has come to no end: the task cannot be solved from there, or is not understood."""


class InformedExpert(Expert):
    """Player that has been told what every receptacle holds.

    Args:
        first: the first observation.
        game: the game in its first state; what it holds is read out of copies of it.
        dialect: the game's.

    Raises:
        GameFileError: the observation holds no task that it understands.
    """

    def __init__(self, first: str, game: NativeEngine, dialect: Dialect = MOVE) -> None:
        super().__init__(first, None, dialect)
        for place in self._places:
            copy = game.clone()
            arrived = copy.step(f"go to {place}").text
            self._read(arrived)
            if place not in self._contents:
                closed = place in self._closed
                for verb in ("open", "examine"):
                    text = copy.step(f"{verb} {place}").text
                    self._read(text)
                if closed:
                    self._closed.add(place)

    def _find(self, kind: str) -> list[tuple[str, str]]:
        return sorted(super()._find(kind), key=lambda pair: (pair[1] != self._at, pair[1] in self._closed))

    def _best(self, kind: str) -> str:
        fitting = [place for place in self._places if place.rpartition(" ")[0] == kind]
        usable = [place for place in fitting if f"move {self._holds} to {place}" not in self._refused] or fitting
        if not usable:
            raise GameFileError(f"there is no {kind} in this room: {', '.join(self._places)}")
        return min(usable, key=lambda place: (place != self._at, place in self._closed, self._rank[place]))


class InformedPlayer:
    """An informed expert beside a running episode that others play.

    Args:
        task: the task id.
        game: the running game, in any state; it is not changed.
        dialect: the game's.
    """

    def __init__(self, task: str | None, game: NativeEngine, dialect: Dialect) -> None:
        self._task = task
        self._game = game.clone()
        self._done: list[str] = []
        first = self._game.reset()
        try:
            self._expert: InformedExpert | None = InformedExpert(first, self._game, dialect)
        except GameFileError:  # It does not understand the task.
            self._expert = None

    def began(self, task: str | None, actions: Sequence[str]) -> bool:
        """Return whether what it has observed is the beginning of an episode."""
        return task == self._task and list(actions[: len(self._done)]) == self._done

    def follow(self, actions: Sequence[str]) -> None:
        """Observe an episode as far as it has gone.

        Args:
            actions: all its executed actions, spelled as the game spells them.
        """
        for action in actions[len(self._done) :]:
            text = self._game.step(action).text
            if self._expert is not None:
                self._expert.observe(action, text)
            self._done.append(action)

    def steps_left(self, first: str | None = None) -> int | None:
        """Return how many steps the expert takes to the end of the task.

        Args:
            first: an action that is executed before it takes over, not counted; None: none.

        Returns:
            The number of steps; None where it does not understand the task, or its plan comes to no end.
        """
        if self._expert is None:
            return None
        expert, game, action, steps = deepcopy(self._expert), self._game.clone(), first, 0
        while steps <= MAX_STEPS:
            if action is not None:
                feedback = game.step(action)
                if feedback.won:
                    return steps
                expert.observe(action, feedback.text)
            try:
                action = expert.mind().action
            except GameFileError:  # It looks for something that this room does not have.
                return None
            steps += 1
        return None
