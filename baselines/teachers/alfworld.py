"""Reasoning of the household expert, in words. Invariant: a thought is made of the expert's state of mind and of the last
observation, and the expert knows what the episode has shown and no more; so no thought names what was not seen.

Each begins with what is needed or held, goes on with what was found, and then draws the conclusion; the level of names decides
how much of that is spelled.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cotbench.agents.decisions import tagged_decision
from cotbench.baselines.teachers import alfworld_wordings as wordings
from cotbench.baselines.teachers.options import Names, TeacherOptions
from cotbench.baselines.teachers.wording import Wording
from cotbench.envs.alfworld.actions import NOTHING_HAPPENS, canonical, dialect_of
from cotbench.envs.alfworld.expert import OPENABLE, Expert, Mind, split_goal
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.query import Decision, Query, derive_seed

_DONE = {"clean": "clean", "heat": "hot", "cool": "cool"}


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
    return tagged_decision(query, mind.action, think(mind, query.dialogue, rng, options.variety, options.names))


def with_goal_of(dialogue: Dialogue, other: Dialogue) -> Dialogue:
    """Return a dialogue whose first observation tells the goal of another one; all else stays as it is.

    Args:
        dialogue: an episode so far.
        other: the one with the goal.

    Raises:
        GameFileError: a first observation tells no goal.
    """
    first = split_goal(dialogue.observations[0])[0] + split_goal(other.observations[0])[1]
    return replace(dialogue, observations=(first, *dialogue.observations[1:]))


def think(mind: Mind, dialogue: Dialogue, rng: random.Random, variety: int = 3, names: Names = "full") -> str:
    """Return the reasoning that leads from the observations to `mind.action`: one to four short sentences.

    Args:
        mind: the expert's state of mind.
        dialogue: observations and actions so far.
        rng: chooses the words.
        variety: among how many wordings of a thought.
        names: how much is spelled; the words of a lower level are those with which a higher one begins, but for the refusal
            of the last action, which is a finding and stands first.
    """
    parts = [*rng.choice(_fitting(mind)[:variety]).parts(names)]
    if dialogue.observations[-1].strip() == NOTHING_HAPPENS:
        parts = [*rng.choice(wordings.REFUSED[:variety]).parts(names), *parts]
    return " ".join(" ".join(parts).format_map(_words(mind)).split())


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


def _fitting(mind: Mind) -> Sequence[Wording]:
    verb = canonical(mind.action).partition(" ")[0]
    moving = mind.action.startswith("go to ")
    if mind.intent == "find" and mind.seeks:
        return _finding(mind, verb)
    if mind.intent == "take":
        return wordings.FETCH if moving else {"take": wordings.TAKE, "open": wordings.OPEN_TO_TAKE}.get(verb, wordings.PLAIN)
    if mind.intent == "treat":
        return wordings.TREAT_GO if moving else wordings.TREAT if verb == mind.goal.kind else wordings.PLAIN
    if mind.intent == "light":
        return wordings.LIGHT_GO if moving else wordings.LIGHT if verb == "use" else wordings.PLAIN
    if mind.intent == "bring" and mind.holds:
        if mind.target == mind.holds:
            return wordings.PUT_AWAY_GO if moving else wordings.PUT_AWAY if verb == "move" else wordings.PLAIN
        return wordings.BRING_GO if moving else {"open": wordings.BRING_OPEN, "move": wordings.BRING}.get(verb, wordings.PLAIN)
    return wordings.PLAIN


def _finding(mind: Mind, verb: str) -> Sequence[Wording]:
    if verb == "open":
        return wordings.OPEN_TO_FIND
    if verb == "examine":
        return wordings.EXAMINE_TO_FIND
    if verb != "go":
        return wordings.PLAIN
    if not mind.looked:
        return wordings.FIRST
    if not mind.unseen:
        return wordings.AGAIN
    # What was brought here already is here, though it is not what is sought.
    none_here = not any(place == mind.at and thing.startswith(f"{mind.seeks} ") for thing, place in mind.known.items())
    return wordings.NOT_HERE if mind.at == mind.looked[-1] and none_here else wordings.SEARCH


def _words(mind: Mind) -> Mapping[str, str]:
    """Return the fields of the wordings; `where` is the receptacle that the action is about."""
    place = mind.known.get(mind.target, "")
    where = mind.action.removeprefix("go to ") if mind.action.startswith("go to ") else place or mind.at
    done = _DONE.get(mind.goal.kind, "")
    return {
        "action": mind.action,
        "aim": f"I have {mind.holds}." if mind.holds else f"I need a {mind.seeks or mind.goal.thing}.",
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
        "treated": f"It is {done} now." if mind.treated and done else "",
        "where": where,
    }


def _on(place: str) -> str:
    return "in" if place.rpartition(" ")[0] in OPENABLE else "on"
