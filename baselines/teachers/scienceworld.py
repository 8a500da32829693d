"""Reasoning on ScienceWorld's gold path, in words. Invariant: it states what the dialogue has shown, and calls the rest a
guess: the gold path knows where things are and how things end, the reasoning does not. Goal, findings and choice follow each
other, so that a level of names is a prefix of the next one; what speaks for the choice alone, such as a guess about its object,
is part of the choice.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from cotbench.agents.decisions import tagged_decision
from cotbench.baselines.teachers.options import Names, TeacherOptions, expert_action
from cotbench.baselines.teachers.scienceworld_view import View, core, spoken_name, view_of
from cotbench.baselines.teachers.scienceworld_wordings import (
    BECOMES,
    CHOICES,
    DOOR,
    FINDINGS,
    GOALS,
    PLACES,
    RECAPS,
    UNSEEN,
)
from cotbench.baselines.teachers.wording import Wording
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.query import Decision, Query

_TOOLS: Mapping[str, tuple[str, ...]] = {
    "state": ("thermometer", "stove", "freezer", "blast furnace"),
    "mix": ("recipe", "paint", "metal pot"),
    "find": (),
    "grow": ("seed jar", "soil", "flower pot", "sink"),
    "stages": (),
    "plane": ("stopwatch", "inclined plane"),
    "lifespan": (),
    "melting": ("thermometer", "stove", "freezer"),
    "temperature": ("thermometer",),
    "genetics": ("seed jar", "flower pot", "sink"),
    "circuit": ("battery", "generator", "wire"),
    "conduct": ("battery", "wire", "light bulb"),
}
_HOT, _COLD = ("stove", "oven", "blast furnace", "fire pit"), ("freezer", "fridge")


def decide(query: Query, options: TeacherOptions, rng: random.Random) -> Decision:
    """Return the gold path's next action with its reasoning; see `Teach`."""
    action = expert_action(query)
    return tagged_decision(query, action, think(query.dialogue, action, rng, options.names))


def think(dialogue: Dialogue, action: str, rng: random.Random, names: Names = "full") -> str:
    """Return the reasoning that leads from the observations to a gold path's next action: one to five short sentences.

    Args:
        dialogue: observations and actions so far.
        action: the action that the reasoning leads to.
        rng: chooses the words.
        names: how much is spelled; with the same `rng` a lower level is a prefix of a higher one.
    """
    view = view_of(dialogue)
    case, words = _case(view, action)
    guesses = _guesses(view, case, words)
    known = {"aim": view.aim, "here": view.here, "act": action, **words}

    def drawn(wordings: Sequence[str]) -> list[str]:
        return [rng.choice(wordings).format_map(known)] if wordings else []

    (goal,), place = drawn(GOALS), drawn(PLACES)
    findings = [_recap(view, rng), *drawn(FINDINGS.get(case, ())), words.get("evidence", "")]
    choice = [*drawn(guesses), *drawn(CHOICES[case]), *drawn(DOOR.get(words.get("door", ""), ()))]
    wording = Wording(goal, " ".join(findings if any(findings) else place), " ".join(choice))
    return " ".join(" ".join(wording.parts(names)).split())


def _guesses(view: View, case: str, words: dict[str, str]) -> Sequence[str]:
    """Return the wordings of a guess about the first thing of the choice that was not seen, and note it as field `x`."""
    unseen = [] if case in _NAMELESS else [name for key in "ab" if (name := words.get(key)) and not view.saw(name)]
    if not unseen:
        return ()
    words["x"] = unseen[0]
    return BECOMES if view.kind in ("state", "melting") and case in ("check", "measure") else UNSEEN


_NAMELESS = frozenset(("take unseen", "same", "choice", "unasked", "close", "wait", "wait long", "other")) | {
    case for case in CHOICES if case.startswith("door ")
}
"""Cases whose wordings name nothing that must have been seen, or state themselves that it was not."""


def _recap(view: View, rng: random.Random) -> str:
    """Return the last observation, where it is an answer to an action, in a sentence."""
    if not view.dialogue.actions:
        return ""
    for pattern, wordings in RECAPS:
        if found := re.search(pattern, view.last):
            return rng.choice(wordings).format(*found.groups())
    return ""


_FORMS: Sequence[tuple[str, str]] = (
    (r"(open door to|go to|teleport to|teleport) (.+)", "door"),
    (r"close (.+)", "close"),
    (r"look around", "around"),
    (r"open (.+)", "open"),
    (r"pick up (.+)", "take"),
    (r"(?:move|put) (.+) (?:to|into|onto) (.+)", "move"),
    (r"(?:pour|dunk) (.+) (?:into|in) (.+)", "pour"),
    (r"mix (.+)", "mix"),
    (r"focus on (.+)", "focus"),
    (r"use (.+?)(?: in inventory)? on (.+)", "use"),
    (r"(activate|deactivate) (.+)", "switch"),
    (r"(?:look at|look in|look on|examine) (.+)", "look"),
    (r"connect (.+) to (.+)", "wire"),
    (r"read (.+)", "read"),
    (r"drop (.+)", "drop"),
    (r"wait(\d*)", "wait"),
    (r"(\d+)", "number"),
)


def _case(view: View, action: str) -> tuple[str, dict[str, str]]:
    """Return the case of `CHOICES` that fits an action, and the fields of its wordings besides the aim."""
    for pattern, form in _FORMS:
        if found := re.fullmatch(pattern, action):
            names = [spoken_name(group) for group in found.groups()]
            words = dict(zip("ab", names, strict=False))
            case = _FINER[form](view, names, words) if form in _FINER else form
            return case, words
    return "other", {}


def _door(view: View, names: list[str], words: dict[str, str]) -> str:
    verb, room = names
    del words["a"], words["b"]
    destination, around = view.rooms.get(room, ""), view.rooms.get(view.here, "")
    # A door that was gone through or opened since the last look is open, whatever that look said.
    used = room in view.rooms or f"open door to {room}" in view.dialogue.actions
    closed = f"door to the {room} (that is closed)" in around and not used
    words |= {"room": room, "door": "go" if verb != "open door to" else "closed" if closed else "open"}
    wanted = [view.about, *_TOOLS.get(view.kind, ()), *re.findall(r"(?!the )\b\w+ box\b", view.task)]
    back = [thing for thing in wanted if thing and re.search(rf"\b{re.escape(thing)}\b", destination) and thing not in around]
    if back and not any(f"pick up {thing}" in view.dialogue.actions for thing in back):
        words["tool"] = back[-1]
        return "door back"
    if re.search(rf"\b{room}\b", view.task):
        return "door told"
    if room in view.rooms:
        return "door again"
    # Only what the task names, or the thermometer, which every measurement needs.
    missing = [thing for thing in wanted if (thing in view.task or thing == "thermometer") and not view.saw(thing)]
    if missing and missing[0] and view.kind in _NAMED:
        words["seek"] = missing[0]
        return "door seek"
    return "door new"


_NAMED = ("state", "stages", "melting", "temperature", "circuit", "conduct")
"""The kinds of task that are about something called by its name."""


def _around(view: View, names: list[str], words: dict[str, str]) -> str:
    return "again" if view.rooms.get(view.here) else "around"


def _take(view: View, names: list[str], words: dict[str, str]) -> str:
    words["role"] = _role(view, names[0])
    if not view.saw(names[0]):
        return "take unseen"
    moves = re.findall(
        rf"you move the {re.escape(core(names[0]))} to the ([a-z ]+)", "\n".join(view.dialogue.observations).lower()
    )
    return "take again" if moves[-1:] == ["inventory"] else "take"


def _role(view: View, name: str) -> str:
    """Return the use of a thing in the task."""
    roles = (
        (view.about and view.about in name, "the task is about it"),
        ("thermometer" in name, "it measures the temperature"),
        ("stopwatch" in name, "it can time things"),
        (re.search("wire|battery|generator|bulb|motor|buzzer", name), "a circuit can be made with it"),
        ("seed" in name, "seeds are what I need"),
        ("shovel" in name, "one can dig with it"),
        ("soil" in name, "plants grow in soil"),
        ("recipe" in name, "it may say what to mix"),
        (view.kind == "find", f"I want to bring it to the box, as {view.about}"),
        (_filled(view, name), "I have put something into it before"),
        (re.search(r"\b(pot|cup|bowl|jug|jar)\b", name), "it can hold a substance"),
    )
    return next((role for fits, role in roles if fits), f"it may help to {view.aim}")


def _filled(view: View, name: str) -> bool:
    return any(re.search(rf"(?:to|into) {re.escape(name)}$", action) for action in view.dialogue.actions)


def _move(view: View, names: list[str], words: dict[str, str]) -> str:
    thing, place = names
    if re.search(r"\bbox\b", place):
        words["evidence"], words["why"] = _why(view, place)
        return "box"
    if view.kind in ("state", "melting") and any(hot in place for hot in _HOT):
        return "heat"
    if view.kind in ("state", "melting") and any(cold in place for cold in _COLD):
        return "cold"
    if place in ("sink", "bathtub", "fountain") and re.search(r"\b(jug|pot|cup|bowl)\b", thing):
        return "fill"
    if "flower pot" in place:
        return "plant"
    if "inclined plane" in place:
        return "slide"
    return "gather"


def _pour(view: View, names: list[str], words: dict[str, str]) -> str:
    return "water" if "flower pot" in names[1] else "pour"


def _use(view: View, names: list[str], words: dict[str, str]) -> str:
    return "measure" if names[0] == "thermometer" else "use"


def _switch(view: View, names: list[str], words: dict[str, str]) -> str:
    words["a"] = names[1]
    on = names[0] == "activate"
    if "stopwatch" in names[1]:
        return "start clock" if on else "stop clock"
    return "on" if on else "off"


def _look(view: View, names: list[str], words: dict[str, str]) -> str:
    if "stopwatch" in names[0]:
        return "read clock"
    return "watch" if "down the plane" in view.last else "check"


def _wait(view: View, names: list[str], words: dict[str, str]) -> str:
    return "wait" if names[0] else "wait long"


def _number(view: View, names: list[str], words: dict[str, str]) -> str:
    if not view.last.startswith("ambiguous request"):
        return "unasked"
    choices = dict(re.findall(r"^(\d+):\s*(.+)$", view.last, re.MULTILINE))
    return "same" if len(set(choices.values())) == 1 < len(choices) else "choice"


def _focus(view: View, names: list[str], words: dict[str, str]) -> str:
    done = [spoken_name(past.removeprefix("focus on ")) for past in view.dialogue.actions if past.startswith("focus on ")]
    if not done and "first, focus on" in view.task and view.kind not in ("lifespan", "find"):
        return "first"
    if view.kind in ("melting", "temperature") and f"next, focus on the {names[0]}" in view.task:
        return "next"
    words["evidence"], words["why"] = _why(view, names[0], done)
    return "focus"


def _why(view: View, name: str, done: Sequence[str] = ()) -> tuple[str, str]:
    """Return the evidence that was seen, if any, and the judgement that this is the answer."""
    observed = "\n".join(view.dialogue.observations).lower()
    if view.kind == "stages":
        last = re.sub(r" in (?!the ).*", "", done[-1]) if done else ""
        return (
            (f"The {last} was the stage before.", "A later one follows.") if last else ("", "The earliest stage comes first.")
        )
    if view.kind == "lifespan":
        span = view.about if not done else "shortest life span" if "then the shortest" in view.task else view.about
        span = re.sub(r" life span.*", "", span)
        return "", f"As far as I know animals, this one should have the {span} life span."
    if view.kind == "find":
        return "", f"As I judge it, this counts as {view.about}."
    if view.kind in ("temperature", "melting") and (
        limit := re.search(rf"is (above|below) (-?[\d.]+)[^.]*[^.]*\b{name}", view.task)
    ):
        return _measured(view, limit[1], limit[2], observed)
    if view.kind == "plane" and (times := _times(view)) and len(times) > 1:
        short = re.match("steepest|least", view.about)
        fits = name == (min if short else max)(times, key=lambda plane: times[plane])
        read = " and ".join(f"{ticks} ticks on {plane}" for plane, ticks in times.items())
        judgement = f"The {'shorter' if short else 'longer'} time goes with the {view.about}." if fits else ""
        return f"I read {read}.", judgement
    if view.kind == "conduct" and (lit := re.findall(r"in ([a-z ]+)$", "\n".join(view.dialogue.actions), re.MULTILINE)):
        states = re.findall(rf"{lit[-1]}, which is (on|off)", observed)
        side = "conductive" if states[-1:] == ["on"] else "nonconductive"
        fits = f"electrically {side}, place it in the {name}" in view.task
        if states and fits:
            return f"The {lit[-1]} is {states[-1]}.", f"So I call it {side}."
        return "", "That is how I judge the test."
    if view.kind in ("mix", "grow", "genetics", "conduct"):
        return "", "By what I have seen, this is what the task asks for."
    named = name in view.task
    return "", "The task wants me to focus on it." if named else "As I judge it, this is what the task asks for."


def _measured(view: View, side: str, limit: str, observed: str) -> tuple[str, str]:
    """Return the thermometer's reading, if any, and the judgement on which side of the task's limit it is."""
    readings = re.findall(r"temperature of (-?\d+) degrees", observed)
    subject = "temperature" if view.kind == "temperature" else "melting point"
    if not readings:
        return "", f"I judge the {subject} to be {side} {limit} degrees."
    if view.kind == "temperature":
        fits = (float(readings[-1]) > float(limit)) == (side == "above")
        return f"I read {readings[-1]} degrees.", f"That is {side} {limit}." if fits else "That is my judgement."
    state = "already liquid" if f"liquid {view.about.removeprefix('solid ')}" in observed else "as I saw it"
    return f"At {readings[-1]} degrees it was {state}.", f"I judge the {subject} to be {side} {limit}."


def _times(view: View) -> dict[str, int]:
    """Return inclined plane -> the ticks that were read after something was put on it."""
    times: dict[str, int] = {}
    plane = ""
    for action, text in zip(view.dialogue.actions, view.dialogue.observations[1:], strict=True):
        if put := re.fullmatch(r"move .+ to (inclined plane .+)", action):
            plane = put[1]
        if plane and (ticks := re.search(r"time reads (\d+) ticks", text)):
            times[plane] = int(ticks[1])
    return times


_FINER: Mapping[str, Callable[[View, list[str], dict[str, str]], str]] = {
    "door": _door,
    "around": _around,
    "take": _take,
    "move": _move,
    "pour": _pour,
    "use": _use,
    "switch": _switch,
    "look": _look,
    "wait": _wait,
    "number": _number,
    "focus": _focus,
}
