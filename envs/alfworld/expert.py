"""The expert that sees no more than a player does. Invariant: it knows the observations of its episode and the statistics of
training households, never the hidden state; the same observations and the same seed give the same actions.

It looks first where the things it needs lie most often (counts of the real training games), remembers all it saw, and keeps
its state of mind as data: what it seeks, where it looked, what it holds, what comes next.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from cotbench.envs.alfworld.actions import MOVE, NOTHING_HAPPENS, Dialect
from cotbench.envs.alfworld.goals import STATIONS, Goal, read_goal
from cotbench.envs.alfworld.household_statistics import Room, rooms
from cotbench.errors import GameFileError

OPENABLE = frozenset(("cabinet", "drawer", "fridge", "microwave", "safe", "laundryhamper", "box"))
"""Receptacle types that are closed more often than not: looking into one costs an action more."""

_THINGS = re.compile(r"\ban? ([a-z]+ \d+)")
_SURROUNDINGS = re.compile(r"you see (.+?)\.\s*(?:\n|$)")
_TASK = re.compile(r"Your task is to: (.+?)\.?\s*$")
_INSIDE = re.compile(r"(?:(?:On|In) the ([a-z]+ \d+), you see|The ([a-z]+ \d+) is open\. In it, you see) (.+?)\.$")
_CLOSED = re.compile(r"The ([a-z]+ \d+) is closed\.")


@dataclass(frozen=True, slots=True)
class Mind:
    """State of mind of the expert before an action.

    Attributes:
        goal: what the task asks for.
        intent: "find", "take", "treat", "bring" or "light": what the action serves.
        seeks: the type of what it still has to find ("mug"), or "".
        looked: the receptacles it has looked into, in order.
        unseen: the receptacles it has not looked into.
        known: every object it saw and has not moved -> the receptacle where it saw it last.
        at: the receptacle where it stands, or "".
        holds: the object in its hand, or "".
        treated: whether that object has been cleaned, heated or cooled as the task asks.
        brought: the objects it has put where they belong.
        target: the thing that the action is about.
        action: what it does next, spelled as the game does.
    """

    goal: Goal
    intent: str
    seeks: str
    looked: tuple[str, ...]
    unseen: tuple[str, ...]
    known: Mapping[str, str]
    at: str
    holds: str
    treated: bool
    brought: tuple[str, ...]
    target: str
    action: str


def split_goal(first: str) -> tuple[str, str]:
    """Return a first observation in two parts: the text before the goal, and the goal with what ends the text.

    Args:
        first: the first observation of an episode.

    Raises:
        GameFileError: it tells no goal.
    """
    task = _TASK.search(first)
    if task is None:
        raise GameFileError(f"not the first observation of a game: {first[:80]!r}")
    return first[: task.start(1)], first[task.start(1) :]


class Expert:
    """Player of one episode that acts on observations alone.

    Args:
        first: the first observation, which lists the room and ends with the task.
        seed: breaks ties between places that are equally likely; None: the one that the room's list names first.
        dialect: the game's.

    Raises:
        GameFileError: the observation holds no task that it understands.
    """

    def __init__(self, first: str, seed: int | None = 0, dialect: Dialect = MOVE) -> None:
        task = _TASK.search(first)
        seen = _SURROUNDINGS.search(first)
        if task is None or seen is None:
            raise GameFileError(f"not the first observation of a game: {first[:80]!r}")
        self._dialect = dialect
        self._goal = read_goal(task[1])
        self._places: list[str] = _THINGS.findall(seen[1])
        order = list(self._places)
        if seed is not None:
            random.Random(f"cotbench-alfworld-expert-{seed}").shuffle(order)
        self._rank = {place: rank for rank, place in enumerate(order)}
        self._room = _nearest_room(tuple(_kind(place) for place in self._places))
        self._contents: dict[str, tuple[str, ...]] = {}
        self._closed: set[str] = set()
        self._looked: list[str] = []
        self._refused: set[str] = set()
        self._at = ""
        self._holds = ""
        self._treated = False
        self._taken_from = ""
        self._finished: dict[str, str] = {}

    def mind(self) -> Mind:
        """Return the expert's state of mind, with the action that follows from it."""
        intent, target, action = self._decide()
        return Mind(
            goal=self._goal,
            intent=intent,
            seeks=self._seeks(),
            looked=tuple(self._looked),
            unseen=tuple(place for place in self._places if place not in self._contents),
            known=self._known(),
            at=self._at,
            holds=self._holds,
            treated=self._treated,
            brought=tuple(self._brought()),
            target=target,
            action=self._dialect.canonical(action),
        )

    def observe(self, action: str, observation: str) -> None:
        """Update the state of mind with an action, the expert's own or another player's, and its observation.

        Args:
            action: the executed action.
            observation: the text that the environment returned.
        """
        action = MOVE.canonical(action)  # The one spelling of its memory and of its decisions.
        if observation.strip() == NOTHING_HAPPENS:
            self._learn_from_refusal(action)
            return
        verb, _, rest = action.partition(" ")
        if action.startswith("go to "):
            self._at = action.removeprefix("go to ")
        elif verb == "open":
            self._closed.discard(rest)
        elif verb == "close":
            self._closed.add(rest)
        elif verb == "take":
            thing, _, place = rest.partition(" from ")
            self._holds, self._treated, self._taken_from = thing, False, place
            self._contents[place] = tuple(other for other in self._contents.get(place, ()) if other != thing)
            self._finished.pop(thing, None)
        elif verb == "move":
            thing, _, place = rest.partition(" to ")
            self._contents[place] = (*self._contents.get(place, ()), thing)
            if _kind(place) == self._goal.place and (self._treated or self._goal.kind not in STATIONS):
                self._finished[thing] = place
            self._holds, self._treated = "", False
        elif verb in STATIONS and rest.startswith(f"{self._holds} with "):
            # Heating undoes cooling and the other way round; neither makes dirty.
            self._treated = verb == self._goal.kind or (self._treated and self._goal.kind == "clean")
        self._read(observation)
        if len(self._brought()) >= self._goal.count:
            # The game goes on, so some belief about these things was wrong: they have to be done again.
            self._finished.clear()

    def _read(self, observation: str) -> None:
        if found := _INSIDE.search(observation):
            place = found[1] or found[2]
            self._closed.discard(place)
            self._contents[place] = () if found[3] == "nothing" else tuple(_THINGS.findall(found[3]))
            if place in self._looked:
                self._looked.remove(place)
            self._looked.append(place)
        elif found := _CLOSED.search(observation):
            self._closed.add(found[1])

    def _learn_from_refusal(self, action: str) -> None:
        verb, _, rest = action.partition(" ")
        thing, _, place = rest.partition(" from " if verb == "take" else " to ")
        if action.startswith("go to "):
            # Where one stands already, another receptacle may be within reach too; then "go to" is refused.
            place = action.removeprefix("go to ")
            if place in self._places:
                self._at = place
        # Only commands that would be refused again are stored: not those that another player tried too early.
        elif verb in ("open", "examine"):
            if rest == self._at:
                self._refused.add(action)
        elif (
            verb in ("take", "move")
            and place == self._at
            and place not in self._closed
            and self._holds == ("" if verb == "take" else thing)
        ):
            self._refused.add(action)

    def _brought(self) -> list[str]:
        """Return the things that are where they belong: two of them only if they are in one receptacle."""
        place = self._goal_place()
        return [thing for thing, where in self._finished.items() if where == place]

    def _goal_place(self) -> str:
        """Return the receptacle that holds most of what was brought, or ""."""
        places = list(self._finished.values())
        return max(places, key=places.count) if places else ""

    def _known(self) -> dict[str, str]:
        return {thing: place for place, things in self._contents.items() for thing in things if thing != self._holds}

    def _seeks(self) -> str:
        goal = self._goal
        if goal.kind == "look" and self._holds and _kind(self._holds) == goal.thing:
            return "" if self._find(goal.place) else goal.place
        return "" if self._holds or self._find(goal.thing) else goal.thing

    def _find(self, kind: str) -> list[tuple[str, str]]:
        """Return (object, receptacle) of the known things of a type: here first, then in the order in which they were seen."""
        brought = self._brought()
        found = [(thing, place) for thing, place in self._known().items() if _kind(thing) == kind and thing not in brought]
        found = [(thing, place) for thing, place in found if f"take {thing} from {place}" not in self._refused]
        return sorted(found, key=lambda pair: pair[1] != self._at)

    def _decide(self) -> tuple[str, str, str]:
        goal = self._goal
        if self._holds and _kind(self._holds) != goal.thing:
            # Another player left it in our hand.
            return "bring", self._holds, self._put_away()
        if not self._holds:
            return self._fetch(goal.thing)
        if goal.kind == "look":
            lamps = self._find(goal.place)
            if not lamps:
                return self._search(goal.place)
            lamp, place = lamps[0]
            return "light", lamp, self._reach(place, inside=False) or f"use {lamp}"
        if goal.kind in STATIONS and not self._treated:
            station = self._best(STATIONS[goal.kind].lower())
            action = f"{goal.kind} {self._holds} with {station}"
            return "treat", station, self._reach(station, inside=False) or action
        place = self._goal_place() or self._best(goal.place)
        return "bring", place, self._reach(place, inside=True) or f"move {self._holds} to {place}"

    def _fetch(self, kind: str) -> tuple[str, str, str]:
        found = self._find(kind)
        if not found:
            return self._search(kind)
        thing, place = found[0]
        return "take", thing, self._reach(place, inside=True) or f"take {thing} from {place}"

    def _search(self, kind: str) -> tuple[str, str, str]:
        unseen = [place for place in self._places if place not in self._contents and f"examine {place}" not in self._refused]
        if not unseen:
            # Everything was looked into: things may have been moved since, so begin anew with what was seen longest ago.
            if not self._looked:
                return "find", "", "look"
            place = self._looked[0]
            return "find", place, self._reach(place, inside=True) or f"examine {place}"
        place = min(unseen, key=lambda place: (-self._worth(kind, place), self._rank[place]))
        return "find", place, self._reach(place, inside=True) or f"examine {place}"

    def _worth(self, kind: str, place: str) -> float:
        """Return how likely a look finds the thing, for each action that the look costs."""
        if place == self._at:
            return float("inf")  # Already there: a look costs the least.
        cost = 2 if place in self._closed or _kind(place) in OPENABLE else 1
        return _chance(self._room, kind, _kind(place)) / cost

    def _reach(self, place: str, inside: bool) -> str:
        """Return the next action on the way to a receptacle (and into it), or "" when there."""
        if self._at != place:
            return f"go to {place}"
        if inside and place in self._closed and f"open {place}" not in self._refused:
            return f"open {place}"
        if inside and place not in self._contents and place not in self._closed:
            return f"examine {place}"
        return ""

    def _best(self, kind: str) -> str:
        """Return a receptacle of a type: here, else one known to be open, else any."""
        fitting = [place for place in self._places if _kind(place) == kind]
        usable = [place for place in fitting if f"move {self._holds} to {place}" not in self._refused] or fitting
        if not usable:
            raise GameFileError(f"there is no {kind} in this room: {', '.join(self._places)}")
        return min(usable, key=lambda place: (place != self._at, place not in self._contents, self._rank[place]))

    def _put_away(self) -> str:
        """Return an action that gets rid of what is held: here if such things lie in places like this, else where it came
        from.
        """
        free = [place for place in self._places if f"move {self._holds} to {place}" not in self._refused]
        if not free:
            return "inventory"

        def fitness(place: str) -> tuple[bool, bool, float]:
            chance = _chance(self._room, _kind(self._holds), _kind(place))
            return place == self._at and chance > 0, place == self._taken_from, chance

        place = max(free, key=lambda place: (fitness(place), -self._rank[place]))
        return self._reach(place, inside=True) or f"move {self._holds} to {place}"


def _kind(name: str) -> str:
    return name.rpartition(" ")[0]


@lru_cache(maxsize=1024)
def _nearest_room(kinds: tuple[str, ...]) -> str:
    """Return the room type of the known scene whose receptacles are most like these."""
    counts = {kind: kinds.count(kind) for kind in kinds}

    def distance(scene: Mapping[str, int]) -> int:
        lower = {kind.lower(): count for kind, count in scene.items()}
        return sum(abs(lower.get(kind, 0) - counts.get(kind, 0)) for kind in {*lower, *counts})

    return min(rooms(), key=lambda name: min(distance(scene) for scene in rooms()[name].scenes))


@cache
def _chances(room: str) -> Mapping[str, Mapping[str, float]]:
    """Return object type -> receptacle type -> how often such an object lay in one such receptacle, relative to others."""
    look: Room = rooms()[room]
    standing: dict[str, int] = {}
    for scene in look.scenes:
        for kind, count in scene.items():
            standing[kind] = standing.get(kind, 0) + count
    return {
        thing.lower(): {where.lower(): count / standing[where] for where, count in places.items()}
        for thing, places in look.places.items()
    }


def _chance(room: str, thing: str, where: str) -> float:
    return _chances(room).get(thing, {}).get(where, 0.0)
