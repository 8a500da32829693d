"""Statistics of ALFWorld's households, for the generator of games. Invariant: they come from two sources and nowhere else: the
pinned alfworld wheel, read as data (domain, grammar, sentences, what can be done to what), and the counts of real training
games that ship with the package.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from cotbench.envs import wheels

_PACKAGE = "cotbench.envs.alfworld"


@dataclass(frozen=True, slots=True)
class Room:
    """Statistics of one room type.

    Attributes:
        scenes: for each real room of the type, how many of each receptacle it has.
        objects: object type -> histogram: how many games have 0, 1, 2, … of it lying in receptacles.
        places: object type -> receptacle type -> how many lay there.
        shared_location: share of receptacles that stand at one place with another.
    """

    scenes: Sequence[Mapping[str, int]]
    objects: Mapping[str, Sequence[int]]
    places: Mapping[str, Mapping[str, int]]
    shared_location: float


@dataclass(frozen=True, slots=True)
class HouseholdStatistics:
    """Everything that the generator of games draws from.

    Attributes:
        holds: receptacle type -> what may be put there.
        able: property ("Heatable") -> the object types that have it.
        movable: object types that can be picked up.
        vessels: object types that hold others.
        openable: receptacle types that open and close.
        goals: upstream's task type -> its goal and sentences.
        rooms: room type -> what it is like.
        tasks: upstream's task type -> room type -> "object receptacle" -> number of training games.
        cold_in_fridge: share of the things in a fridge that are cold at first.
    """

    holds: Mapping[str, frozenset[str]]
    able: Mapping[str, frozenset[str]]
    movable: frozenset[str]
    vessels: frozenset[str]
    openable: frozenset[str]
    goals: Mapping[str, Mapping[str, Any]]
    domain: str
    grammar: str
    rooms: Mapping[str, Room]
    tasks: Mapping[str, Mapping[str, Mapping[str, int]]]
    cold_in_fridge: float


@cache
def household_statistics() -> HouseholdStatistics:
    """Read the wheel and the counts: literals are parsed, nothing is run.

    Raises:
        MissingDataError: the wheel is not on this machine and cannot be fetched.
    """
    constants = _literals(wheels.read("alfworld", "alfworld/gen/constants.py"))
    counts = _counts()
    return HouseholdStatistics(
        holds={name: frozenset(things) for name, things in counts["holds"].items()},
        able={name: frozenset(things) for name, things in constants["VAL_ACTION_OBJECTS"].items()},
        movable=frozenset(counts["movable"]),
        vessels=frozenset(constants["MOVABLE_RECEPTACLES"]),
        openable=frozenset(constants["OPENABLE_CLASS_LIST"]),
        goals=_goals(wheels.read("alfworld", "alfworld/gen/goal_library.py")),
        domain=wheels.read("alfworld", "alfworld/data/alfred.pddl"),
        grammar=wheels.read("alfworld", "alfworld/data/alfred.twl2"),
        rooms=rooms(),
        tasks=counts["tasks"],
        cold_in_fridge=counts["cold_in_fridge"],
    )


@cache
def rooms() -> Mapping[str, Room]:
    """Return room type -> its statistics, from the counts alone: needs no wheel."""
    return {name: Room(**room) for name, room in _counts()["rooms"].items()}


@cache
def _counts() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files(_PACKAGE).joinpath("households.json").read_text("utf-8"))
    return loaded


def _literals(source: str) -> dict[str, Any]:
    """Return name -> value of every `NAME = literal` of a module."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # An expression, not a literal: not data.
    return found


def _goals(source: str) -> dict[str, Mapping[str, Any]]:
    """Return name -> value of every `gdict["name"] = literal` of upstream's goal library."""
    return {
        node.targets[0].slice.value: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Subscript)
        and isinstance(node.targets[0].slice, ast.Constant)
        and isinstance(node.targets[0].slice.value, str)
    }
