"""Parsing of task sentences. Invariant: the sentences of upstream's goal library, and no others, are understood.

Source: `alfworld.gen.goal_library`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cotbench.errors import GameFileError

STATIONS = {"clean": "SinkBasin", "heat": "Microwave", "cool": "Fridge"}
"""Task type -> the receptacle type at which the thing is treated; the verb is the task type."""


def count_of(kind: str) -> int:
    """Return how many objects a task of a type asks to be brought."""
    return 2 if kind == "two" else 1


@dataclass(frozen=True, slots=True)
class Goal:
    """Parts of a task sentence.

    Attributes:
        kind: "pick", "look", "clean", "heat", "cool" or "two".
        thing: the type of the object ("mug").
        place: the type of the receptacle where it goes; for "look" the type of the lamp.
    """

    kind: str
    thing: str
    place: str

    @property
    def count(self) -> int:
        """Number of objects to be brought."""
        return count_of(self.kind)


_THING, _PLACE = r"(?P<thing>\w+)", r"(?P<place>\w+)"
_SENTENCES = [
    ("look", rf"look at {_THING} under the {_PLACE}"),
    ("look", rf"examine the {_THING} with the {_PLACE}"),
    ("two", rf"put two {_THING} in {_PLACE}"),
    ("two", rf"find two {_THING} and put them in {_PLACE}"),
    ("clean", rf"put a clean {_THING} in {_PLACE}"),
    ("clean", rf"clean some {_THING} and put it in {_PLACE}"),
    ("heat", rf"put a hot {_THING} in {_PLACE}"),
    ("heat", rf"heat some {_THING} and put it in {_PLACE}"),
    ("cool", rf"put a cool {_THING} in {_PLACE}"),
    ("cool", rf"cool some {_THING} and put it in {_PLACE}"),
    ("pick", rf"put (?:a|some) {_THING} (?:in|on) {_PLACE}"),
]


def read_goal(sentence: str) -> Goal:
    """Return the parts of a task sentence.

    Raises:
        GameFileError: it is none of the library's sentences.
    """
    text = sentence.strip().rstrip(".").lower()
    for kind, pattern in _SENTENCES:
        found = re.fullmatch(pattern, text)
        if found:
            return Goal(kind, found["thing"], found["place"])
    raise GameFileError(f"a task sentence that is not understood: {sentence!r}")
