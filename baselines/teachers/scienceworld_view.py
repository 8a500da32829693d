"""A ScienceWorld dialogue, parsed. Invariant: it holds what the texts say, and nothing of the gold path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cotbench.prompting.dialogue import Dialogue

_ROOM = re.compile(r"(?:called the|^you (?:move|teleport) to the) ([a-z ]+?)\.", re.MULTILINE)
_PIECE = re.compile(r"[\n\t,():]+|\. ")
_AROUND = "called the "

_AIMS = (
    ("state", r"to (boil|melt|freeze) (.+?)\.", "{0} {1}"),
    ("state", r"to (change) the state of matter of (.+?)\.", "change the state of the {1}"),
    ("mix", r"()use chemistry to create (?:the substance )?'?(.+?)'?\. ", "make the {1}"),
    ("find", r"()to find (a\(n\) .+?)\.", "find {1} and bring it to the box"),
    ("grow", r"()to grow a (.+?)(?: plant from seed)?\.", "grow the {1}"),
    ("stages", r"()life stages of the (.+?),", "go through the life stages of the {1} in order"),
    ("plane", r"planes \((.+?)\) has the (.+?)\.", "find the inclined plane with the {1}"),
    ("lifespan", r"the (animal) with the ((?:longest|shortest).*?)[,.]", "find the animal with the {1}"),
    ("melting", r"()measure the melting point of (.+?),", "measure the melting point of {1}"),
    ("temperature", r"()measure the temperature of (.+?),", "measure the temperature of {1}"),
    ("genetics", r"()determine whether (.+?) is a dominant", "find out whether {1} is dominant or recessive"),
    ("circuit", r"()turn on the (.+?)(?: by|\.)", "turn on the {1}"),
    ("conduct", r"()determine if (.+?) is electrically", "find out whether {1} is conductive"),
)
"""Kind of task, the pattern of its text (two groups: a detail, and the subject), and the aim in words."""


@dataclass(frozen=True)
class View:
    """Dialogue so far, parsed.

    Attributes:
        task: the task in words.
        kind: the kind of task, see `_AIMS`; `detail` and `about` are the groups of its pattern.
        aim: the aim in words.
        here: the room where the agent is.
        rooms: room -> the last observation of it.
        pieces: the words of every piece of text seen.
        last: the last observation.
    """

    task: str
    kind: str
    detail: str
    about: str
    aim: str
    here: str
    rooms: Mapping[str, str]
    pieces: tuple[frozenset[str], ...]
    last: str
    dialogue: Dialogue

    def saw(self, name: str) -> bool:
        """Tell whether some piece of an observation has all the words of a name, in whatever order."""
        words = frozenset(_words(core(name)))
        return any(words <= piece for piece in self.pieces)


def view_of(dialogue: Dialogue) -> View:
    """Return a dialogue, parsed."""
    task, _, opening = (text.lower() for text in dialogue.observations[0].partition("\n\n"))
    seen = [opening, *(text.lower() for text in dialogue.observations[1:])]
    rooms: dict[str, str] = {}
    here = "room"
    for text in seen:
        if room := _ROOM.search(text):
            here = room[1]
            rooms[here] = text if _AROUND in text else rooms.get(here, "")
    kind, detail, about, aim = "other", "", "", "do what the task asks"
    for name, pattern, wording in _AIMS:
        if found := re.search(pattern, task):
            about = re.sub(r"^a\(n\) (?=([aeiou])?)", lambda article: "an " if article[1] else "a ", found[2])
            kind, detail = name, found[1]
            aim = wording.format(detail, about)
            break
    pieces = tuple({frozenset(_words(piece)): None for text in seen for piece in _PIECE.split(text) if piece.strip()})
    return View(task, kind, detail, about, aim, here, rooms, pieces, seen[-1].strip(), dialogue)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9-]+", text)


def core(name: str) -> str:
    """Return a name without where the thing is, what it holds, and which end of it is meant."""
    name = re.sub(r"\b(?:anode|cathode|terminal \d)\b(?: in )?", "", name).strip()
    return re.split(r" (?:in|on|containing) ", name)[0]


def spoken_name(text: str) -> str:
    """Return a thing as an action names it, fit for a sentence: "baby baby elephant" is a baby elephant."""
    core, *rest = re.split(r"(?= (?:in|on|containing) )", text.removesuffix(" in inventory"), maxsplit=1)
    words = core.split()
    while words and words[0] in words[1:]:
        words = words[1:]
    return " ".join(words) + "".join(rest)
