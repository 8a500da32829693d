"""What ALFWorld's households are like: counted in games, real or generated, by one and the same function.

`python -m tests.reference households --data DIR` counts the real training games and writes the table from which the generator
draws (`envs/alfworld/households.json`). Counts only: nothing of a game file is kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cotbench.envs.alfworld.game import Game, read_game
from cotbench.envs.alfworld.pddl.domain import compile_domain
from cotbench.envs.alfworld.pddl.problem import read_problem
from cotbench.errors import GameFileError, MissingDataError

_DECLARED = re.compile(r"\b(\w+)Type - [or]type")
_SCENE = re.compile(r"-(\w+)-(\w+)-(\w+)-(\d+)/trial_")
_GOAL_TYPE = re.compile(r"\(objectType \?\w+ (\w+)Type\)|\(receptacleType \?\w+ (\w+)Type\)")

ROOMS = {0: "kitchen", 2: "livingroom", 3: "bedroom", 4: "bathroom"}
"""AI2-THOR's numbers of scenes, by hundreds."""


@dataclass
class Home:
    """One household, in types: receptacles, and what lies in each."""

    receptacles: Counter[str]
    contents: list[tuple[str, str]]
    objects: Counter[str]
    holds: set[tuple[str, str]]
    movable: set[str]
    shared: int
    cold: int
    goal: tuple[str, str]


@dataclass
class Tally:
    """Counts over the homes of one room type."""

    objects: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    places: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    totals: list[tuple[int, int]] = field(default_factory=list)
    shared: int = 0


def home_of(game: Game) -> Home:
    """Read a game as a household."""
    problem = read_problem(game.pddl_problem, compile_domain(game.pddl_domain))
    spelled = {name.lower(): name for name in _DECLARED.findall(game.pddl_problem)}
    facts = problem.facts

    def kinds(predicate: str) -> dict[str, str]:
        return {
            name: spelled[kind.removesuffix("type")] for name, kind in facts[predicate] if kind.removesuffix("type") in spelled
        }

    receptacles, objects = kinds("receptacletype"), kinds("objecttype")
    inside = sorted((objects[thing], receptacles[where]) for thing, where in facts["inreceptacle"] if thing in objects)
    lying = {thing for thing, _ in facts["inreceptacle"] if thing in objects}
    places = Counter(where for _, where in facts["receptacleatlocation"])
    found = _GOAL_TYPE.findall(game.pddl_problem[game.pddl_problem.index("(:goal") :])
    wanted = next(obj for obj, _ in reversed(found) if obj)
    destination = next((recep for _, recep in found if recep), "DeskLamp")
    return Home(
        receptacles=Counter(receptacles.values()),
        contents=inside,
        objects=Counter(objects[thing] for thing in lying),
        holds={
            (spelled[where.removesuffix("type")], spelled[thing.removesuffix("type")]) for where, thing in facts["cancontain"]
        },
        movable={objects[thing] for (thing,) in facts["pickupable"] if thing in objects},
        shared=sum(count for count in places.values() if count > 1),
        cold=len(facts["iscool"]),
        goal=(wanted, destination),
    )


def tally(homes: Iterable[Home]) -> Tally:
    """Count homes."""
    result = Tally()
    every = list(homes)
    for home in every:
        for thing, where in home.contents:
            result.places[thing][where] += 1
        result.totals.append((home.receptacles.total(), home.objects.total()))
        result.shared += home.shared
    for kind in sorted({kind for home in every for kind in home.objects}):
        for home in every:
            result.objects[kind][home.objects[kind]] += 1
    return result


def real_homes(root: Path) -> dict[str, dict[int, list[tuple[str, Home]]]]:
    """Room type -> scene -> (task type, home) of the real training games."""
    rooms: dict[str, dict[int, list[tuple[str, Home]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((root / "json_2.1.1" / "train").rglob("game.tw-pddl")):
        scene = _SCENE.search(str(path))
        if scene is None or int(scene[4]) // 100 not in ROOMS:
            raise GameFileError(f"{path} does not lie where a training game lies")
        home = home_of(read_game(path, path.parent.name))
        kind = path.parent.parent.name.split("-")[0]
        rooms[ROOMS[int(scene[4]) // 100]][int(scene[4])].append((kind, home))
    if not rooms:
        raise MissingDataError(f"0 training games in {root}")
    return rooms


def table(root: Path) -> dict[str, Any]:
    """The generator's table."""
    holds: set[tuple[str, str]] = set()
    movable: set[str] = set()
    rooms: dict[str, Any] = {}
    tasks: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    lying = cold = 0
    for room, scenes in sorted(real_homes(root).items()):
        homes = [home for games in scenes.values() for _, home in games]
        counted = tally(homes)
        rooms[room] = {
            "scenes": [_plain(games[0][1].receptacles) for _, games in sorted(scenes.items())],
            "objects": {kind: _histogram(counts) for kind, counts in sorted(counted.objects.items())},
            "places": {kind: _plain(counts) for kind, counts in sorted(counted.places.items())},
            "shared_location": round(counted.shared / sum(receptacles for receptacles, _ in counted.totals), 4),
        }
        for games in scenes.values():
            for kind, home in games:
                tasks[kind][room][" ".join(home.goal)] += 1
                holds |= home.holds
                movable |= home.movable
                cold += home.cold
                lying += sum(where == "Fridge" for _, where in home.contents)
    return {
        "source": "counted in the 3,553 training games of ALFWorld (json_2.1.1)",
        "cold_in_fridge": round(cold / lying, 4),
        "holds": {where: sorted(thing for other, thing in holds if other == where) for where in sorted({w for w, _ in holds})},
        "movable": sorted(movable),
        "rooms": rooms,
        "tasks": {kind: {room: _plain(pairs) for room, pairs in sorted(by.items())} for kind, by in sorted(tasks.items())},
    }


def write(root: Path, target: Path) -> None:
    """Count and write, one line an entry of the third level."""
    text = json.dumps(table(root), indent=1)
    # Innermost objects and lists on one line each: a readable file, and small differences.
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda match: re.sub(r"\s+", " ", match[0]), text)
    target.write_text(text + "\n", "utf-8")


def _plain(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _histogram(counts: Counter[int]) -> list[int]:
    return [counts[number] for number in range(max(counts) + 1)]
