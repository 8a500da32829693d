"""Spelling of actions, and the reasons why one did nothing. Invariant: pure text; nothing here knows the hidden state, only the
names in the game and the admissible commands.

Two dialects are in circulation: games since ALFWorld 0.4 say `move X to Y` where those from before say `put X in/on Y`. An
action is spelled as its game does, and either spelling is understood in both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cotbench.envs.reading import ActionParts, word_parts
from cotbench.errors import GameFileError

NOTHING_HAPPENS = "Nothing happens."
"""Upstream's answer to a command that is not admissible."""

_PUT = re.compile(r"(?:put (?P<put>.+?) (?:in/on|into|onto|inside|in|on|to)|move (?P<move>.+?) to) (?P<place>.+)")

_FORMS = {
    "go to": "go to RECEPTACLE",
    "open": "open RECEPTACLE",
    "close": "close RECEPTACLE",
    "take": "take OBJECT from RECEPTACLE",
    "examine": "examine THING",
    "use": "use OBJECT",
    "heat": "heat OBJECT with RECEPTACLE",
    "clean": "clean OBJECT with RECEPTACLE",
    "cool": "cool OBJECT with RECEPTACLE",
    "slice": "slice OBJECT with OBJECT",
}
_SLOT = re.compile(r"[A-Z]+")
_WITHOUT_ARGUMENT = ("look", "inventory", "help")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The spelling of the action that releases of ALFWorld spell differently: putting an object down.

    Attributes:
        name: the verb; stands in manifests.
        joint: what stands between the object and the receptacle.
    """

    name: str
    joint: str

    @property
    def forms(self) -> dict[str, str]:
        """The form of each action with arguments, by its verb."""
        return {**_FORMS, self.name: f"{self.name} OBJECT {self.joint} RECEPTACLE"}

    def canonical(self, action: str) -> str:
        """Return the spelling under which an action is executed in a game of this dialect.

        The first line, lower case, single spaces, no final stop, and this dialect's form of putting an object down. Upstream
        matches commands by the letter, so it would answer "Nothing happens." to all other spellings.

        Args:
            action: the text of an agent's action.
        """
        line = next((line for line in action.splitlines() if line.strip()), "")
        text = " ".join(line.lower().split()).rstrip(".").rstrip()
        put = _PUT.fullmatch(text)
        return f"{self.name} {put['put'] or put['move']} {self.joint} {put['place']}" if put else text


MOVE = Dialect("move", "to")
"""ALFWorld since 0.4.0."""

PUT = Dialect("put", "in/on")
"""ALFWorld before 0.4.0; also older prompts and datasets."""

DIALECTS = {dialect.name: dialect for dialect in (MOVE, PUT)}


def dialect_of(commands: Iterable[str]) -> Dialect:
    """Return the dialect in which commands are spelled: the first that leaves each of them as it is.

    Args:
        commands: commands of every kind, such as a game's grammar makes.

    Raises:
        GameFileError: there is none.
    """
    listed = tuple(commands)
    for dialect in DIALECTS.values():
        if all(dialect.canonical(command) == command for command in listed):
            return dialect
    odd = next(command for command in listed if MOVE.canonical(command) != command)
    known = " nor ".join(repr(dialect.forms[dialect.name]) for dialect in DIALECTS.values())
    raise GameFileError(f"a command is spelled {odd!r}, which is neither {known}: play a game of one of these spellings")


canonical = MOVE.canonical


def action_parts(action: str) -> ActionParts:
    """Return the form of an action in either dialect, and its things.

    Args:
        action: a canonical action.
    """
    for form in (form for dialect in DIALECTS.values() for form in dialect.forms.values()):
        if found := re.fullmatch(_SLOT.sub("(.+)", form), action):
            return ActionParts(_SLOT.sub("{}", form), found.groups())
    return word_parts(action)


def changes_nothing(action: str) -> bool:
    """Tell whether a canonical action only looks, so that the household and the agent's place stay as they are."""
    return action in _WITHOUT_ARGUMENT or action.startswith("examine ")


def why_invalid(action: str, names: Collection[str], admissible: Collection[str], dialect: Dialect = MOVE) -> str:
    """Return why a command did nothing, as far as the game's names and the admissible commands tell.

    Args:
        action: a canonical action that is not admissible.
        names: the things in the game ("mug 1").
        admissible: the commands that would have done something.
        dialect: the game's.
    """
    if not action:
        return "empty action"
    forms = dialect.forms
    verb = next((verb for verb in forms if action == verb or action.startswith(verb + " ")), None)
    if verb is None:
        first = action.split(maxsplit=1)[0]
        if first in admissible:
            return f"malformed: {first!r} takes no argument"
        return f"unknown verb {first[:40]!r}"
    match = re.fullmatch(re.sub(r"[A-Z]+", "(.+)", forms[verb]), action)
    if match is None:
        return f"malformed: expected {forms[verb]!r}"
    things = match.groups()
    for thing in things:
        if thing not in names:
            return f"nothing here is called {thing[:60]!r}"
    here = {command.removeprefix("examine ") for command in admissible if command.startswith("examine ")}
    place = things[-1]
    if verb == "go to":
        return f"already at {place}, or it is not a place" if place in here else f"{place} is not a place to go to"
    if verb != "slice" and place not in here:
        return f"{place} is not within reach"
    if verb in ("open", "close"):
        done, undo = ("opened", "close") if verb == "open" else ("closed", "open")
        return f"{place} is {done} already" if f"{undo} {place}" in admissible else f"{place} cannot be {done}"
    if verb == "take":
        return f"{things[0]} is not in {place}, or the hands are full, or {place} is closed"
    if verb == dialect.name:
        return f"{things[0]} is not held, or {place} is closed or cannot hold it"
    return f"{verb} is not possible with {' and '.join(things)} here"
