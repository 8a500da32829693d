"""Games made from a seed. Invariant: a game that comes out can be won: its plan was written by the generator, who knows the
whole household, and replayed on our engine. Same type and seed, same game, on every machine.

The seed also determines the conditions that a game was made under, so that a test can hold out what training never shows:

| seeds | rooms | object and goal |
|---|---|---|
| 0 to 999,999 | kitchen, living room, bedroom | pairs that are not held out |
| 1,000,000 to 1,999,999 | bathroom | pairs that are not held out |
| 2,000,000 to 2,999,999 | kitchen, living room, bedroom | held-out pairs |
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from functools import cache

from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.goals import STATIONS, count_of
from cotbench.envs.alfworld.household import Household, furnish
from cotbench.envs.alfworld.household_statistics import HouseholdStatistics, household_statistics
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.errors import EngineError, UnknownNameError

VERSION = "2"
"""Version of the generator: changes whenever a seed gives another game than before."""

KINDS = {
    "pick": "pick_and_place_simple",
    "look": "look_at_obj_in_light",
    "clean": "pick_clean_then_place_in_recep",
    "heat": "pick_heat_then_place_in_recep",
    "cool": "pick_cool_then_place_in_recep",
    "two": "pick_two_obj_and_place",
}
"""Task types by the short names used in ids, with upstream's names."""

BAND = 1_000_000
"""Number of consecutive seeds that are made under one condition."""

_BANDS = (("usual", False), ("new", False), ("usual", True))
"""For each band of seeds: which rooms, and whether the pair of object and goal is a held-out one."""

_NEW_ROOM = "bathroom"
_HELD_OUT = 5
"""One in this number of pairs is held out."""

_TRIES = 1000


def held_out(thing: str, goal: str) -> bool:
    """Tell whether a pair of object type and receptacle (or lamp) type is kept out of training.

    Args:
        thing: upstream's object type ("Mug").
        goal: upstream's receptacle type, or lamp type for task type `look`.
    """
    return hashlib.sha256(f"{thing} {goal}".encode()).digest()[0] % _HELD_OUT == 0


def kinds_of(seed: int) -> list[str]:
    """Return the task types that exist for a seed: no food is heated in a bathroom."""
    rooms, _ = _band(seed)
    return [kind for kind, upstream in KINDS.items() if set(household_statistics().tasks[upstream]) & set(rooms)]


def generate(kind: str, seed: int) -> Game:
    """Make the game `alfworld/gen/<kind>/<seed>`.

    Args:
        kind: a key of `KINDS`.
        seed: 0 to 2,999,999; see the table above.

    Raises:
        UnknownNameError: there is no such game.
        MissingDataError: the alfworld wheel is not on this machine and cannot be fetched.
    """
    known = household_statistics()
    task = f"alfworld/gen/{kind}/{seed}"
    weights = _pairs(kind, seed)
    if not weights:
        raise UnknownNameError("task", task, [f"alfworld/gen/{other}/{seed}" for other in kinds_of(seed)])
    # String seeds go through sha512: the same on every machine and Python version, whatever PYTHONHASHSEED says.
    rng = random.Random(f"cotbench-alfworld-{VERSION}-{kind}-{seed}")
    # Drawn once: drawing again after a household that does not fit would favour what is common.
    room = rng.choices(list(weights), [sum(pairs.values()) for pairs in weights.values()])[0]
    thing, goal = rng.choices(list(weights[room]), list(weights[room].values()))[0]
    receptacles = frozenset(() if kind == "look" else (goal, STATIONS.get(kind, goal)))
    objects = {thing: count_of(kind)} | ({goal: 1} if kind == "look" else {})
    for _ in range(_TRIES):
        household = furnish(rng, known, room, receptacles, objects)
        targets = _targets(rng, known, kind, household, thing, goal)
        if targets:
            game = _game(rng, known, kind, task, household, targets, goal)
            _replay(game)
            return game
    raise EngineError(f"no household for {task} in {_TRIES} tries")


def _band(seed: int) -> tuple[list[str], bool]:
    if not 0 <= seed < BAND * len(_BANDS):
        raise UnknownNameError("seed", str(seed), [f"0 to {BAND * len(_BANDS) - 1}"])
    rooms, new_pair = _BANDS[seed // BAND]
    return [room for room in household_statistics().rooms if (room == _NEW_ROOM) == (rooms == "new")], new_pair


def _pairs(kind: str, seed: int) -> Mapping[str, Mapping[tuple[str, str], int]]:
    """Return room -> (object type, goal) -> weight: as often as real training games ask for it."""
    rooms, new_pair = _band(seed)
    return _weights(kind, tuple(rooms), new_pair)


@cache
def _weights(kind: str, rooms: tuple[str, ...], new_pair: bool) -> Mapping[str, Mapping[tuple[str, str], int]]:
    result: dict[str, dict[tuple[str, str], int]] = {}
    for room, pairs in household_statistics().tasks[KINDS[kind]].items():
        split = {(thing, goal): count for pair, count in pairs.items() for thing, goal in [pair.split()]}
        fitting = {pair: count for pair, count in split.items() if held_out(*pair) == new_pair}
        if room in rooms and fitting:
            result[room] = fitting
    return result


def _targets(
    rng: random.Random, known: HouseholdStatistics, kind: str, household: Household, thing: str, goal: str
) -> list[str]:
    """Return the objects that the plan brings (two of them for `two`), or nothing if the household does not allow the task."""
    lying = household.lying(thing)
    # As in the real games: no object starts at its goal, nor at the appliance that treats it.
    fits = bool(household.lying(goal)) if kind == "look" else not household.lying(thing, STATIONS.get(kind, goal))
    if kind in STATIONS:
        lying = [name for name in lying if name not in household.cold]
    count = count_of(kind)
    if not fits or len(lying) < count:
        return []
    rng.shuffle(lying)
    # A real plan takes what is at hand before it opens anything.
    return sorted(lying, key=lambda name: household.receptacles[household.place[name]] in known.openable)[:count]


def _game(
    rng: random.Random, known: HouseholdStatistics, kind: str, task: str, household: Household, targets: list[str], goal: str
) -> Game:
    wanted = known.goals[KINDS[kind]]
    words = {"obj": household.objects[targets[0]], "recep": goal, "toggle": goal}
    sentence = rng.choice(wanted["templates"]).format(**{key: word.lower() for key, word in words.items()})
    return Game(
        task=task,
        pddl_domain=known.domain,
        pddl_problem=_problem(known, household, wanted["pddl"].replace("#", "-").format(**words), task),
        grammar=known.grammar.replace("UNKNOWN GOAL", sentence),
        walkthrough=_plan(known, household, kind, targets, goal),
    )


def _replay(game: Game) -> None:
    engine = NativeEngine(game)
    engine.reset()
    won = [engine.step(command).won for command in game.walkthrough]
    if won.count(True) != 1 or not won[-1]:
        raise EngineError(f"the plan of {game.task} does not win: {list(game.walkthrough)}")


class _Walk:
    """Plan under construction: its commands, where the agent stands and what it opened."""

    def __init__(self, known: HouseholdStatistics, household: Household) -> None:
        self._known, self._household = known, household
        self._at = ""
        self._opened: set[str] = set()
        self.commands: list[str] = []

    def reach(self, receptacle: str, inside: bool) -> None:
        """Add the commands that lead to a receptacle, and that open it if something is to be taken out or put in."""
        home = self._household
        if self._at != home.location[receptacle]:
            self.commands.append(f"go to {home.names[receptacle]}")
            self._at = home.location[receptacle]
        if inside and home.receptacles[receptacle] in self._known.openable and receptacle not in self._opened:
            self.commands.append(f"open {home.names[receptacle]}")
            self._opened.add(receptacle)

    def first(self, kind: str) -> str:
        """Return the first receptacle of a type."""
        return next(name for name, of in self._household.receptacles.items() if of == kind)


def _plan(known: HouseholdStatistics, household: Household, kind: str, targets: list[str], goal: str) -> tuple[str, ...]:
    names, walk = household.names, _Walk(known, household)
    where = household.place[household.lying(goal)[0]] if kind == "look" else walk.first(goal)
    for target in targets:
        source = household.place[target]
        walk.reach(source, inside=True)
        walk.commands.append(f"take {names[target]} from {names[source]}")
        if kind in STATIONS:
            station = walk.first(STATIONS[kind])
            walk.reach(station, inside=False)
            walk.commands.append(f"{kind} {names[target]} with {names[station]}")
        walk.reach(where, inside=kind != "look")
        if kind == "look":
            walk.commands.append(f"use {names[household.lying(goal)[0]]}")
        else:
            walk.commands.append(f"move {names[target]} to {names[where]}")
    return tuple(walk.commands)


def _problem(known: HouseholdStatistics, household: Household, goal: str, task: str) -> str:
    receptacles, objects, place, location = household.receptacles, household.objects, household.place, household.location
    receptacle_types = sorted(set(receptacles.values()))
    object_types = sorted(set(objects.values()))
    declared = ["agent1 - agent", "loc_bar_00 - location"]
    declared += [f"{where} - location" for where in sorted(set(location.values()))]
    declared += [f"{name} - receptacle" for name in receptacles] + [f"{name} - object" for name in objects]
    declared += [f"{of}Type - rtype" for of in receptacle_types] + [f"{of}Type - otype" for of in object_types]
    facts = ["atLocation agent1 loc_bar_00"]
    facts += [f"receptacleType {name} {of}Type" for name, of in receptacles.items()]
    facts += [f"objectType {name} {of}Type" for name, of in objects.items()]
    facts += [f"canContain {w}Type {o}Type" for w in receptacle_types for o in object_types if o in known.holds.get(w, ())]
    facts += [f"pickupable {name}" for name, of in objects.items() if of in known.movable]
    facts += [f"isReceptacleObject {name}" for name, of in objects.items() if of in known.vessels]
    facts += [f"openable {name}" for name, of in receptacles.items() if of in known.openable]
    for ability in ("Cleanable", "Heatable", "Coolable", "Sliceable", "Toggleable"):
        facts += [f"{ability.lower()} {name}" for name, of in objects.items() if of in known.able[ability]]
    facts += [f"isCool {name}" for name in household.cold]
    facts += [f"inReceptacle {name} {where}" for name, where in place.items()]
    facts += [f"receptacleAtLocation {name} {where}" for name, where in location.items()]
    facts += [f"objectAtLocation {name} {location[where]}" for name, where in place.items()]
    problem = task.replace("/", "_")
    lines = [f"(define (problem {problem})", "(:domain alfred)", "(:objects", *declared, ")"]
    lines += ["(:init", *(f"({fact})" for fact in facts), ")"]
    return "\n".join(lines) + "\n" + goal
