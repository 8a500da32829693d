"""Games made from a seed. Invariant: a game that comes out is winnable: the generator writes its plan against the same
household that it writes as PDDL, and the tests replay it on the engine. Same type and seed, same game, on every machine.

A first, small generator: kitchens only, four task types. What the domain allows, what fits where, and the task sentences are
read out of the pinned alfworld wheel; how many of what a kitchen has follows the real training games.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cotbench.envs import wheels
from cotbench.envs.alfworld.game import Game

VERSION = "1"
"""Changes whenever a seed gives another game than before."""

KINDS = {
    "pick": "pick_and_place_simple",
    "clean": "pick_clean_then_place_in_recep",
    "heat": "pick_heat_then_place_in_recep",
    "cool": "pick_cool_then_place_in_recep",
}
"""Task types by the short names used in ids, with upstream's names."""

_TREATMENT = {
    "clean": ("Cleanable", "SinkBasin", "clean"),
    "heat": ("Heatable", "Microwave", "heat"),
    "cool": ("Coolable", "Fridge", "cool"),
}
"""Task type -> property the object needs, receptacle where it is done, verb."""

# Smallest and largest number in a kitchen, and how many objects lie there on average: from 242 real training kitchens.
_RECEPTACLES = {
    "Cabinet": (4, 12, 5.8),
    "CoffeeMachine": (1, 1, 0.4),
    "CounterTop": (1, 3, 15.7),
    "DiningTable": (0, 1, 7.8),
    "Drawer": (3, 8, 3.3),
    "Fridge": (1, 1, 4.3),
    "GarbageCan": (1, 1, 1.4),
    "Microwave": (1, 1, 1.2),
    "SinkBasin": (1, 1, 2.3),
    "Shelf": (0, 3, 0.8),
    "StoveBurner": (4, 4, 2.7),
    "Toaster": (1, 1, 0.1),
}
_OBJECTS = [
    "Apple",
    "Bowl",
    "Bread",
    "ButterKnife",
    "Cup",
    "DishSponge",
    "Egg",
    "Fork",
    "Knife",
    "Ladle",
    "Lettuce",
    "Mug",
    "Pan",
    "PepperShaker",
    "Plate",
    "Pot",
    "Potato",
    "SaltShaker",
    "SoapBottle",
    "Spatula",
    "Spoon",
    "Tomato",
]


@dataclass(frozen=True, slots=True)
class Lore:
    """What the alfworld wheel says: which receptacle may hold what, what can be done to what, sentences, domain, grammar."""

    holds: Mapping[str, frozenset[str]]
    able: Mapping[str, frozenset[str]]
    movable: frozenset[str]
    openable: frozenset[str]
    goals: Mapping[str, Mapping[str, Any]]
    domain: str
    grammar: str


@cache
def lore() -> Lore:
    """Read the pinned wheel as data: literals are parsed, nothing is run."""
    constants = _literals(wheels.read("alfworld", "alfworld/gen/constants.py"))
    holds = {name: frozenset(things) for name, things in constants["VAL_RECEPTACLE_OBJECTS"].items()}
    holds["DiningTable"] = holds["TableTop"]
    return Lore(
        holds=holds,
        able={name: frozenset(things) for name, things in constants["VAL_ACTION_OBJECTS"].items()},
        movable=frozenset(constants["MOVABLE_RECEPTACLES"]),
        openable=frozenset(constants["OPENABLE_CLASS_LIST"]),
        goals=_goals(wheels.read("alfworld", "alfworld/gen/goal_library.py")),
        domain=wheels.read("alfworld", "alfworld/data/alfred.pddl"),
        grammar=wheels.read("alfworld", "alfworld/data/alfred.twl2"),
    )


def _literals(source: str) -> dict[str, Any]:
    """Every `NAME = literal` of a module."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # An expression, not a literal: not data.
    return found


def _goals(source: str) -> dict[str, Mapping[str, Any]]:
    """Every `gdict["name"] = literal` of upstream's goal library."""
    return {
        node.targets[0].slice.value: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Subscript)
        and isinstance(node.targets[0].slice, ast.Constant)
        and isinstance(node.targets[0].slice.value, str)
    }


@dataclass(frozen=True, slots=True)
class Household:
    """Receptacles (name and type), objects (name and type), and which object lies in which receptacle."""

    receptacles: Mapping[str, str]
    objects: Mapping[str, str]
    place: Mapping[str, str]


def generate(kind: str, seed: int) -> Game:
    """The game `alfworld/gen/<kind>/<seed>`.

    Args:
        kind: a key of `KINDS`.
        seed: any non-negative number.
    """
    known = lore()
    # String seeds go through sha512: the same on every machine and Python version, whatever PYTHONHASHSEED says.
    rng = random.Random(f"cotbench-alfworld-{VERSION}-{kind}-{seed}")
    while True:
        household = _furnish(rng, known)
        choice = _choose(rng, known, kind, household)
        if choice is not None:
            break
    target, destination = choice
    goal = known.goals[KINDS[kind]]
    obj, recep = household.objects[target], destination
    sentence = rng.choice(goal["templates"]).format(obj=obj.lower(), recep=recep.lower())
    task = f"alfworld/gen/{kind}/{seed}"
    return Game(
        task=task,
        pddl_domain=known.domain,
        pddl_problem=_problem(known, household, goal["pddl"].replace("#", "-").format(obj=obj, recep=recep), task),
        grammar=known.grammar.replace("UNKNOWN GOAL", sentence),
        walkthrough=_plan(known, household, kind, target, destination),
    )


def _furnish(rng: random.Random, known: Lore) -> Household:
    receptacles = {
        _identifier(kind, index): kind
        for kind, (fewest, most, _) in _RECEPTACLES.items()
        for index in range(1, rng.randint(fewest, most) + 1)
    }
    objects = {_identifier(kind, index): kind for kind in _OBJECTS for index in range(1, rng.randint(1, 3) + 1)}
    present = sorted(set(receptacles.values()))
    place = {}
    for name, kind in objects.items():
        fitting = [where for where in present if kind in known.holds[where]]
        where = rng.choices(fitting, [_RECEPTACLES[where][2] for where in fitting])[0]
        place[name] = rng.choice([recep for recep, of in receptacles.items() if of == where])
    return Household(receptacles, objects, place)


def _identifier(kind: str, index: int) -> str:
    # ALFWorld names things by what stands before the first `_bar_`; a basin belongs to the sink it is in.
    if kind == "SinkBasin":
        return f"Sink_bar_{index:02d}_bar_SinkBasin"
    return f"{kind}_bar_{index:02d}"


def _choose(rng: random.Random, known: Lore, kind: str, household: Household) -> tuple[str, str] | None:
    """An object and a type of receptacle to bring it to, so that the task is possible and not done already."""
    needed = known.able[_TREATMENT[kind][0]] if kind in _TREATMENT else None
    present = sorted(set(household.receptacles.values()))
    pairs = []
    for target, of in household.objects.items():
        if needed is not None and of not in needed:
            continue
        for destination in present:
            if of not in known.holds[destination] or destination == "Toaster":
                continue
            there = [
                name
                for name, recep in household.place.items()
                if household.objects[name] == of and household.receptacles[recep] == destination
            ]
            if not there:
                pairs.append((target, destination))
    return rng.choice(pairs) if pairs else None


def _plan(known: Lore, household: Household, kind: str, target: str, destination: str) -> tuple[str, ...]:
    names = _spoken_names(household)
    source = household.place[target]
    thing = names[target]
    plan = _go_and_open(known, household, names, source)
    plan.append(f"take {thing} from {names[source]}")
    here = source
    if kind in _TREATMENT:
        _, station_type, verb = _TREATMENT[kind]
        station = next(name for name, of in household.receptacles.items() if of == station_type)
        if station != here:
            plan.append(f"go to {names[station]}")
        plan.append(f"{verb} {thing} with {names[station]}")
        here = station
    goal = next(name for name, of in household.receptacles.items() if of == destination)
    if goal != here:
        plan += _go_and_open(known, household, names, goal)
    elif destination in known.openable and goal != source:
        plan.append(f"open {names[goal]}")
    plan.append(f"move {thing} to {names[goal]}")
    return tuple(plan)


def _go_and_open(known: Lore, household: Household, names: Mapping[str, str], place: str) -> list[str]:
    plan = [f"go to {names[place]}"]
    if household.receptacles[place] in known.openable:
        plan.append(f"open {names[place]}")
    return plan


def _spoken_names(household: Household) -> dict[str, str]:
    """The engine's names: ids sorted, numbered from the last one up (upstream: `Demangler`)."""
    everything = {**household.receptacles, **household.objects}
    names: dict[str, str] = {}
    for of in sorted(set(everything.values())):
        ids = sorted((name for name in everything if everything[name] == of), key=str.lower)
        for number, name in enumerate(reversed(ids), start=1):
            names[name] = f"{of.lower()} {number}"
    return names


def _problem(known: Lore, household: Household, goal: str, task: str) -> str:
    receptacles, objects, place = household.receptacles, household.objects, household.place
    location = {name: f"loc_bar_{index:02d}" for index, name in enumerate(receptacles, start=1)}
    receptacle_types = sorted(set(receptacles.values()))
    object_types = sorted(set(objects.values()))
    declared = ["agent1 - agent", "loc_bar_00 - location"]
    declared += [f"{where} - location" for where in location.values()]
    declared += [f"{name} - receptacle" for name in receptacles] + [f"{name} - object" for name in objects]
    declared += [f"{of}Type - rtype" for of in receptacle_types] + [f"{of}Type - otype" for of in object_types]
    facts = ["atLocation agent1 loc_bar_00"]
    facts += [f"receptacleType {name} {of}Type" for name, of in receptacles.items()]
    facts += [f"objectType {name} {of}Type" for name, of in objects.items()]
    facts += [f"canContain {w}Type {o}Type" for w in receptacle_types for o in object_types if o in known.holds[w]]
    facts += [f"pickupable {name}" for name in objects]
    facts += [f"isReceptacleObject {name}" for name, of in objects.items() if of in known.movable]
    facts += [f"openable {name}" for name, of in receptacles.items() if of in known.openable]
    for ability in ("Cleanable", "Heatable", "Coolable", "Sliceable"):
        facts += [f"{ability.lower()} {name}" for name, of in objects.items() if of in known.able[ability]]
    facts += [f"inReceptacle {name} {where}" for name, where in place.items()]
    facts += [f"receptacleAtLocation {name} {where}" for name, where in location.items()]
    facts += [f"objectAtLocation {name} {location[where]}" for name, where in place.items()]
    problem = task.replace("/", "_")
    lines = [f"(define (problem {problem})", "(:domain alfred)", "(:objects", *declared, ")"]
    lines += ["(:init", *(f"({fact})" for fact in facts), ")"]
    return "\n".join(lines) + "\n" + goal
