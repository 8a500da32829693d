"""Reasoning of the household expert, in words. Invariant: a thought is made of the expert's state of mind and of the last
observation, and the expert knows what the episode has shown and no more; so no thought names what was not seen.

Each begins with what is needed or held, and then draws the conclusion: after the thing is named, its place in the observations
can be copied.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from cotbench.agents.decisions import tagged_decision
from cotbench.baselines.teachers.options import TeacherOptions
from cotbench.envs.alfworld.actions import NOTHING_HAPPENS, canonical, dialect_of
from cotbench.envs.alfworld.expert import OPENABLE, Expert, Mind
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.query import Decision, Query, derive_seed

_DONE = {"clean": "clean", "heat": "hot", "cool": "cool"}

_REFUSED = ("That did nothing.", "Nothing happened.", "That was not possible.")
_FIRST = (
    "I need a {seeks}. I begin with {target}.",
    "I look for a {seeks}. I have seen nothing yet, so I go to {target} first.",
    "I want a {seeks}. I start at {target}.",
)
_NOT_HERE = (
    "I need a {seeks}. There is none {on_at} {at}. Next I check {target}.",
    "I look for a {seeks}. I see none {on_at} {at}, so I try {target}.",
    "I want a {seeks}. It is not {on_at} {at}. I go on to {target}.",
)
_SEARCH = (
    "I need a {seeks}. I have not found it. Next I check {target}.",
    "I look for a {seeks}. I go on to {target}.",
    "I want a {seeks}. I have not seen one yet, so I try {target}.",
)
_OPEN_TO_FIND = (
    "I need a {seeks}. The {at} is closed. I open it.",
    "I look for a {seeks}. I cannot see into {at}, so I open it.",
    "I want a {seeks}. It may be inside {at}. I open it.",
)
_EXAMINE_TO_FIND = (
    "I need a {seeks}. I look closely at {at}.",
    "I look for a {seeks}. I examine {at}.",
)
_TAKE = (
    "I need a {thing}. I see {target} {on} {at}. I take it.",
    "I look for a {thing}. Here is {target} {on} {at}, so I take it.",
    "I want a {thing}. There is {target} {on} {at}. I take it.",
)
_FETCH = (
    "I need a {thing}. I saw {target} {on} {where}. I go there.",
    "I look for a {thing}. I remember {target} {on} {where}, so I go there.",
    "I want a {thing}. There was {target} {on} {where}. I go to {where}.",
)
_OPEN_TO_TAKE = (
    "I need a {thing}. I saw {target} in {at}, which is closed. I open it.",
    "I want a {thing}. It is in {at}. I open it.",
)
_TREAT_GO = (
    "I have {holds}. It must be {done}. I go to {target}.",
    "I hold {holds}, which is not {done} yet. I go to {target} to {kind} it.",
    "I carry {holds}. I {kind} it with {target}, so I go there.",
)
_TREAT = (
    "I have {holds}. It must be {done}. I {kind} it with {target}.",
    "I hold {holds}, which is not {done} yet. This is {target}, so I {kind} it.",
    "I carry {holds}. At {target} I {kind} it.",
)
_BRING_GO = (
    "I have {holds}{treated}. It goes to a {place}. I go to {target}.",
    "I hold {holds}{treated}. I bring it to {target}.",
    "I carry {holds}{treated}. A {place} is where it belongs, so I go to {target}.",
)
_BRING_OPEN = (
    "I have {holds}{treated}. The {at} is closed. I open it.",
    "I hold {holds}{treated}. To put it in, I open {at}.",
)
_BRING = (
    "I have {holds}{treated}. It goes to a {place}. I put it {on} {at}.",
    "I hold {holds}{treated}. This is {at}, so I put it here.",
    "I carry {holds}{treated}. A {place} is where it belongs. I move it to {at}.",
)
_LIGHT_GO = (
    "I have {holds}. I need a {place}. I saw {target} {on} {where}, so I go there.",
    "I hold {holds}. I remember {target} {on} {where}. I go there.",
    "I carry {holds}. I go to {where}, where {target} is.",
)
_LIGHT = (
    "I have {holds}. I need a {place}. Here is {target}. I turn it on.",
    "I hold {holds}. I see {target}, so I use it.",
    "I carry {holds}. I use {target} to look at it.",
)
_PUT_AWAY_GO = (
    "I hold {holds}. I need a {thing} instead. I bring it to {where}.",
    "I carry {holds}, which the task does not ask for. I put it away at {where}.",
)
_PUT_AWAY = (
    "I hold {holds}. I need a {thing} instead. I leave it at {at}.",
    "I carry {holds}, which the task does not ask for. I put it down here.",
)
_AGAIN = (
    "I need a {seeks}. I have looked everywhere. I go back to {target}.",
    "I look for a {seeks}. I have seen all places, so I try {target} once more.",
)
_PLAIN = ("I go on. I {action}.", "The next step is to {action}.")

WORDINGS = (
    *(_FIRST, _NOT_HERE, _SEARCH, _AGAIN, _OPEN_TO_FIND, _EXAMINE_TO_FIND),
    *(_TAKE, _FETCH, _OPEN_TO_TAKE, _TREAT_GO, _TREAT, _LIGHT_GO, _LIGHT),
    *(_BRING_GO, _BRING_OPEN, _BRING, _PUT_AWAY_GO, _PUT_AWAY, _PLAIN, _REFUSED),
)
"""All wordings, with fields for names."""


def expert_of(dialogue: Dialogue, seed: int | None = None) -> Expert:
    """Return the expert who has seen this dialogue and nothing else.

    Args:
        dialogue: observations and actions so far.
        seed: of the order in which equally likely places are searched; None: the room's own list.

    Raises:
        GameFileError: the first observation holds no household task, or the instructions spell no known dialect.
    """
    expert = Expert(dialogue.observations[0], seed, dialect_of(dialogue.instructions.examples))
    for action, observation in zip(dialogue.actions, dialogue.observations[1:], strict=True):
        expert.observe(action, observation)
    return expert


def decide(query: Query, options: TeacherOptions, rng: random.Random) -> Decision:
    """Return the expert's action with its reasoning, or now and then a slip without any; see `Teach`."""
    # The same order in all steps of an episode, so not from the step's seed.
    order = derive_seed(query.task) if options.shuffled else None
    mind = expert_of(query.dialogue, order).mind()
    if rng.random() < options.slips:
        return Decision(slip(query.dialogue, mind, rng), None if query.mode == "prompt" else "")
    return tagged_decision(query, mind.action, think(mind, query.dialogue, rng, options.variety))


def think(mind: Mind, dialogue: Dialogue, rng: random.Random, variety: int = 3) -> str:
    """Return the reasoning that leads from the observations to `mind.action`: two or three short sentences.

    Args:
        mind: the expert's state of mind.
        dialogue: observations and actions so far.
        rng: chooses the words.
        variety: among how many wordings of a thought.
    """
    thought = rng.choice(_wordings(mind)[:variety]).format_map(_words(mind))
    if dialogue.observations[-1].strip() == NOTHING_HAPPENS:
        thought = f"{rng.choice(_REFUSED[:variety])} {thought}"
    return thought


def slip(dialogue: Dialogue, mind: Mind, rng: random.Random) -> str:
    """Return a mistake such as players make: the wrong place, a thing that is not there, something neither held nor needed.

    Args:
        dialogue: observations and actions so far.
        mind: the expert's state of mind.
        rng: chooses the mistake.
    """
    places = [*mind.looked, *mind.unseen]
    things = [*mind.known, *filter(None, [mind.holds])]
    choices = [f"go to {rng.choice(places)}"]
    if mind.at:
        choices += [f"open {mind.at}", f"go to {mind.at}", f"close {mind.at}"]
    if things and places:
        thing, place = rng.choice(things), rng.choice(places)
        put = dialect_of(dialogue.instructions.examples).canonical(f"move {thing} to {place}")
        choices += [f"take {thing} from {place}", put]
    return rng.choice([choice for choice in choices if choice != mind.action] or [mind.action])


def _wordings(mind: Mind) -> Sequence[str]:
    verb = canonical(mind.action).partition(" ")[0]
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
    """Return the fields of the wordings; `where` is the receptacle that the action is about."""
    place = mind.known.get(mind.target, "")
    where = mind.action.removeprefix("go to ") if mind.action.startswith("go to ") else place or mind.at
    done = _DONE.get(mind.goal.kind, "")
    return {
        "action": mind.action,
        "at": mind.at,
        "done": done,
        "holds": mind.holds,
        "kind": mind.goal.kind,
        "on": _on(where),
        "on_at": _on(mind.at),
        "place": mind.goal.place,
        "seeks": mind.seeks,
        "target": mind.target,
        "thing": mind.goal.thing,
        "treated": f", and it is {done} now" if mind.treated and done else "",
        "where": where,
    }


def _on(place: str) -> str:
    return "in" if place.rpartition(" ")[0] in OPENABLE else "on"
