"""Spelling of actions, and the reasons why one did nothing. Invariant: pure text; nothing here knows the hidden state, only the
names in the game and the admissible commands.
"""

from __future__ import annotations

import re
from collections.abc import Collection

NOTHING_HAPPENS = "Nothing happens."
"""Upstream's answer to a command that is not admissible."""

_PUT = re.compile(r"put (.+?) (?:in/on|into|onto|inside|in|on|to) (.+)")

_FORMS = {
    "go to": "go to RECEPTACLE",
    "open": "open RECEPTACLE",
    "close": "close RECEPTACLE",
    "take": "take OBJECT from RECEPTACLE",
    "move": "move OBJECT to RECEPTACLE",
    "examine": "examine THING",
    "use": "use OBJECT",
    "heat": "heat OBJECT with RECEPTACLE",
    "clean": "clean OBJECT with RECEPTACLE",
    "cool": "cool OBJECT with RECEPTACLE",
    "slice": "slice OBJECT with OBJECT",
}
_PATTERNS = {
    verb: re.compile(re.sub(r"[A-Z]+", "(.+)", form.replace("OBJECT", "X").replace("RECEPTACLE", "X")))
    for verb, form in _FORMS.items()
}
_WITHOUT_ARGUMENT = ("look", "inventory", "help")


def canonical(action: str) -> str:
    """Return the spelling under which an action is executed.

    The first line, lower case, single spaces, no final stop; `put X in/on Y`, the form of older prompts and datasets,
    becomes the `move X to Y` that ALFWorld expects since 0.4.0. Upstream matches commands by the letter, so it would answer
    "Nothing happens." to all of these.
    """
    line = next((line for line in action.splitlines() if line.strip()), "")
    text = " ".join(line.lower().split()).rstrip(".").rstrip()
    put = _PUT.fullmatch(text)
    return f"move {put[1]} to {put[2]}" if put else text


def changes_nothing(action: str) -> bool:
    """Tell whether a canonical action only looks, so that the household and the agent's place stay as they are."""
    return action in _WITHOUT_ARGUMENT or action.startswith("examine ")


def why_invalid(action: str, names: Collection[str], admissible: Collection[str]) -> str:
    """Return why a command did nothing, as far as the game's names and the admissible commands tell.

    Args:
        action: a canonical action that is not admissible.
        names: the things in the game ("mug 1").
        admissible: the commands that would have done something.
    """
    if not action:
        return "empty action"
    verb = next((verb for verb in _FORMS if action == verb or action.startswith(verb + " ")), None)
    if verb is None:
        first = action.split(maxsplit=1)[0]
        if first in _WITHOUT_ARGUMENT:
            return f"malformed: {first!r} takes no argument"
        return f"unknown verb {first[:40]!r}"
    match = _PATTERNS[verb].fullmatch(action)
    if match is None:
        return f"malformed: expected {_FORMS[verb]!r}"
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
    if verb == "move":
        return f"{things[0]} is not held, or {place} is closed or cannot hold it"
    return f"{verb} is not possible with {' and '.join(things)} here"
