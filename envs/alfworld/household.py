"""A household drawn at random. Invariant: the numbers of things, and where they lie, are distributed as in the real training
games; the same generator state makes the same household on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from cotbench.envs.alfworld.household_statistics import HouseholdStatistics
from cotbench.envs.alfworld.names import spoken_names

_BASINS = {"SinkBasin": "Sink", "BathtubBasin": "Bathtub"}


@dataclass(frozen=True, slots=True)
class Household:
    """One room and what is in it, by the ids that a game file uses.

    Attributes:
        room: its type.
        receptacles: id -> type.
        objects: id -> type.
        place: object -> the receptacle that it lies in.
        location: receptacle -> where one stands to reach it.
        cold: the objects that are cold at first.
        names: id -> the name under which a game speaks of it.
    """

    room: str
    receptacles: Mapping[str, str]
    objects: Mapping[str, str]
    place: Mapping[str, str]
    location: Mapping[str, str]
    cold: tuple[str, ...]
    names: Mapping[str, str]

    def lying(self, kind: str, where: str | None = None) -> list[str]:
        """Return the ids of the objects of a type: all, or those in receptacles of the type `where`.

        Args:
            kind: object type.
            where: receptacle type; None for all.
        """
        return [
            name
            for name, of in self.objects.items()
            if of == kind and (where is None or self.receptacles[self.place[name]] == where)
        ]


def furnish(
    rng: random.Random, known: HouseholdStatistics, room: str, receptacle_types: frozenset[str], least: Mapping[str, int]
) -> Household:
    """Make a room: the receptacles of one of the real rooms of its type, with objects drawn anew.

    Args:
        rng: source of randomness.
        known: statistics of the rooms.
        room: the room type.
        receptacle_types: receptacle types that the room must have.
        least: object type -> the smallest number of such objects.

    Returns:
        The household, with the names under which a game speaks of its things.
    """
    look = known.rooms[room]
    fitting_scenes = [scene for scene in look.scenes if receptacle_types <= set(scene)]
    scene = fitting_scenes[rng.randrange(len(fitting_scenes))]
    receptacles = {_identifier(kind, index): kind for kind, count in scene.items() for index in range(1, count + 1)}
    objects: dict[str, str] = {}
    place: dict[str, str] = {}
    for kind, histogram in look.objects.items():
        enough = least.get(kind, 0)
        # The counts of the games that have enough of it; of rooms where it is rare, the fewest that will do.
        likely = list(range(enough, len(histogram))) if any(histogram[enough:]) else [enough]
        count = rng.choices(likely, histogram[enough:] if len(likely) > 1 else None)[0]
        fitting = [where for where in look.places[kind] if where in scene]
        for index in range(1, count + 1 if fitting else 1):
            name = _identifier(kind, index)
            where = rng.choices(fitting, [look.places[kind][where] for where in fitting])[0]
            objects[name] = kind
            place[name] = rng.choice([recep for recep, of in receptacles.items() if of == where])
    fridge = [name for name in objects if receptacles[place[name]] == "Fridge" and objects[name] in known.able["Coolable"]]
    cold = tuple(name for name in fridge if rng.random() < known.cold_in_fridge)
    location = _locations(rng, look.shared_location, receptacles)
    names = spoken_names([name.lower() for name in (*receptacles, *objects)])
    return Household(
        room, receptacles, objects, place, location, cold, {name: names[name.lower()] for name in (*receptacles, *objects)}
    )


def _locations(rng: random.Random, shared: float, receptacles: Mapping[str, str]) -> dict[str, str]:
    """Return the location from which each receptacle is reached; some share one with the receptacle of their type before
    them.
    """
    location: dict[str, str] = {}
    previous = ""
    pairs = [
        name
        for name, before in zip(list(receptacles)[1:], receptacles, strict=False)
        if receptacles[name] == receptacles[before]
    ]
    # Both of a pair count as sharing; only receptacles with a neighbour of their type can form one.
    chance = min(1.0, shared / 2 * len(receptacles) / max(1, len(pairs)))
    for number, name in enumerate(receptacles, start=1):
        shares = name in pairs and rng.random() < chance
        location[name] = location[previous] if shares else f"loc_bar_{number:02d}"
        previous = name
    return location


def _identifier(kind: str, index: int) -> str:
    # ALFWorld names things by what stands before the first `_bar_`; a basin belongs to the sink or tub it is in.
    if kind in _BASINS:
        return f"{_BASINS[kind]}_bar_{index:02d}_bar_{kind}"
    return f"{kind}_bar_{index:02d}"
