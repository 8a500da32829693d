"""What the household expert thinks, in words. Invariant: a thought is made of the expert's state of mind and of the last
observation, and the expert knows what the episode has shown and no more; so no thought names what was not seen.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from cotbench.dialogue import Dialogue
from cotbench.envs.alfworld.actions import NOTHING_HAPPENS
from cotbench.envs.alfworld.expert import OPENABLE, Expert, Mind

_DONE = {"clean": "clean", "heat": "hot", "cool": "cool"}

_REFUSED = ("That did nothing.", "Nothing happened.", "That was not possible.")
_FIRST = (
    "I need a {seeks}. I begin with {target}.",
    "A {seeks} is needed, and I have not seen one yet. I look at {target} first.",
    "I have to find a {seeks}, and {target} is a good place to start.",
)
_NOT_HERE = (
    "There is no {seeks} {on} {at}. Next I check {target}.",
    "I still need a {seeks}, and {at} has none. I try {target}.",
    "No {seeks} here. I look at {target} next.",
)
_SEARCH = (
    "I still need a {seeks}. Next I check {target}.",
    "I have not found a {seeks} yet. I try {target}.",
    "I keep looking for a {seeks}, and {target} is next.",
)
_OPEN_TO_FIND = (
    "The {at} is closed. I open it to look for a {seeks}.",
    "A {seeks} may be inside {at}, so I open it.",
    "I cannot see into {at}. I open it.",
)
_EXAMINE_TO_FIND = ("I look closely at {at} to find a {seeks}.", "A {seeks} may be at {at}. I examine it.")
_TAKE = (
    "I see {target} {on} {at}, and I need a {thing}. I take it.",
    "The {target} is here {on} {at}. It is what I need, so I take it.",
    "Here is {target}, the {thing} that I need. I take it from {at}.",
)
_FETCH = (
    "I saw {target} {on} {where}, and I need a {thing}. I go there.",
    "The {target} is {on} {where}. I need it, so I go to {where}.",
    "I remember {target} {on} {where}. I go and get it.",
)
_OPEN_TO_TAKE = ("The {target} is inside {at}. I open it.", "The {at} is closed, and {target} is in it. I open it.")
_TREAT_GO = (
    "I have {holds}. It must be {done}, so I go to {target}.",
    "The {holds} in my hand is not {done} yet. I go to {target} to {kind} it.",
    "Now I {kind} {holds}. For that I go to {target}.",
)
_TREAT = (
    "I am at {target} with {holds}. I {kind} it.",
    "The {holds} must be {done}, and I stand at {target}. I {kind} it now.",
    "At {target} I can {kind} {holds}.",
)
_BRING_GO = (
    "I have {holds}{treated}. It goes to a {place}, so I go to {target}.",
    "The {holds} is ready{treated}. I bring it to {target}.",
    "Now I bring {holds} to {target}.",
)
_BRING_OPEN = ("The {at} is closed. I open it to put {holds} inside.", "To put {holds} in, I open {at} first.")
_BRING = (
    "I am at {at} with {holds}{treated}. I put it here.",
    "The {at} is where {holds} goes. I put it down.",
    "This is the {place}. I move {holds} to {at}.",
)
_LIGHT_GO = (
    "I have {holds}. The {target} is {on} {where}, so I go there.",
    "I hold {holds} and need the {place}. I saw {target} {on} {where}.",
    "Now I go to {where}, where {target} is.",
)
_LIGHT = (
    "I have {holds}, and {target} is here. I turn it on.",
    "The {target} is right here. I use it to look at {holds}.",
    "With {holds} in my hand I use {target}.",
)
_PUT_AWAY_GO = (
    "I hold {holds}, which I do not need. I bring it to {where}.",
    "The {holds} is not what the task asks for. I put it away at {where}.",
)
_PUT_AWAY = (
    "I do not need {holds}. I leave it at {at}.",
    "The {holds} is not needed. I put it down here.",
)
_AGAIN = (
    "I have looked everywhere and still need a {seeks}. I go back to {target}.",
    "A {seeks} is still missing. I look at {target} once more.",
)
_PLAIN = ("To go on I {action}.", "The next step is to {action}.")

WORDINGS = (
    *(_FIRST, _NOT_HERE, _SEARCH, _AGAIN, _OPEN_TO_FIND, _EXAMINE_TO_FIND),
    *(_TAKE, _FETCH, _OPEN_TO_TAKE, _TREAT_GO, _TREAT, _LIGHT_GO, _LIGHT),
    *(_BRING_GO, _BRING_OPEN, _BRING, _PUT_AWAY_GO, _PUT_AWAY, _PLAIN, _REFUSED),
)
"""Everything that is ever said, with places for names."""


def expert_of(dialogue: Dialogue, seed: int | None = None) -> Expert:
    """The expert who has seen this dialogue and nothing else.

    Raises:
        GameFileError: the first observation holds no household task.
    """
    expert = Expert(dialogue.observations[0], seed)
    for action, observation in zip(dialogue.actions, dialogue.observations[1:], strict=True):
        expert.observe(action, observation)
    return expert


def think(mind: Mind, dialogue: Dialogue, rng: random.Random) -> str:
    """The reasoning that leads from what was seen to `mind.action`: one or two sentences."""
    thought = rng.choice(_wordings(mind)).format_map(_words(mind))
    if dialogue.observations[-1].strip() == NOTHING_HAPPENS:
        thought = f"{rng.choice(_REFUSED)} {thought}"
    return thought


def slip(dialogue: Dialogue, mind: Mind, rng: random.Random) -> str:
    """A mistake such as players make: the wrong place, a thing that is not there, something held or needed by no one."""
    places = [*mind.looked, *mind.unseen]
    things = [*mind.known, *filter(None, [mind.holds])]
    choices = [f"go to {rng.choice(places)}"]
    if mind.at:
        choices += [f"open {mind.at}", f"go to {mind.at}", f"close {mind.at}"]
    if things and places:
        thing, place = rng.choice(things), rng.choice(places)
        choices += [f"take {thing} from {place}", f"move {thing} to {place}"]
    return rng.choice([choice for choice in choices if choice != mind.action] or [mind.action])


def _wordings(mind: Mind) -> Sequence[str]:
    verb = mind.action.partition(" ")[0]
    moving = mind.action.startswith("go to ")
    if mind.intent == "find" and mind.seeks:
        return _finding(mind, verb)
    if mind.intent == "take":
        return _FETCH if moving else {"take": _TAKE, "open": _OPEN_TO_TAKE}.get(verb, _PLAIN)
    if mind.intent == "treat":
        return _TREAT_GO if moving else _TREAT if verb == mind.goal.kind else _PLAIN
    if mind.intent == "light":
        return _LIGHT_GO if moving else _LIGHT if verb == "use" else _PLAIN
    if mind.intent == "bring" and mind.holds:
        if mind.target == mind.holds:
            return _PUT_AWAY_GO if moving else _PUT_AWAY if verb == "move" else _PLAIN
        return _BRING_GO if moving else {"open": _BRING_OPEN, "move": _BRING}.get(verb, _PLAIN)
    return _PLAIN


def _finding(mind: Mind, verb: str) -> Sequence[str]:
    if verb == "open":
        return _OPEN_TO_FIND
    if verb == "examine":
        return _EXAMINE_TO_FIND
    if verb != "go":
        return _PLAIN
    if not mind.looked:
        return _FIRST
    if not mind.unseen:
        return _AGAIN
    return _NOT_HERE if mind.at == mind.looked[-1] else _SEARCH


def _words(mind: Mind) -> Mapping[str, str]:
    """What the wordings may name; `where` is the receptacle that the action is about."""
    place = mind.known.get(mind.target, "")
    where = mind.action.removeprefix("go to ") if mind.action.startswith("go to ") else place or mind.at
    done = _DONE.get(mind.goal.kind, "")
    return {
        "action": mind.action,
        "at": mind.at,
        "done": done,
        "holds": mind.holds,
        "kind": mind.goal.kind,
        "on": "in" if _holds_inside(where or mind.at) else "on",
        "place": mind.goal.place,
        "seeks": mind.seeks,
        "target": mind.target,
        "thing": mind.goal.thing,
        "treated": f", and it is {done} now" if mind.treated and done else "",
        "where": where,
    }


def _holds_inside(place: str) -> bool:
    return place.rpartition(" ")[0] in OPENABLE
