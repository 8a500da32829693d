"""Check of traces for things that were not seen. Invariant: judged from the dialogue and the trace alone, however the trace was
made; a trace that passes may still draw wrong conclusions, but does not name what is not there.

    python -m cotbench.baselines.teachers.facts TRACES

checks every trace of a traces folder (or file) of an environment and prints what was not seen.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cotbench.baselines.data.demonstration import read_demonstrations
from cotbench.envs.alfworld.household_statistics import rooms
from cotbench.envs.bfcl import calls
from cotbench.envs.registry import env_entry
from cotbench.errors import UsageError
from cotbench.prompting.dialogue import Dialogue
from cotbench.registry import load


def unseen(dialogue: Dialogue, action: str, trace: str, env: str) -> list[str]:
    """Return the words and phrases of a trace that the dialogue does not support, in the order of the checks.

    Args:
        dialogue: what was seen before the action.
        action: the action that the trace leads to.
        trace: the reasoning.
        env: name of the environment.

    Raises:
        UsageError: no check is written for that environment.
    """
    check = env_entry(env).trace_facts
    if check is None:
        raise UsageError(f"there is no check of traces for environment {env!r}")
    return list(dict.fromkeys(load(check)(dialogue, action, trace)))


def main() -> None:
    """Check the traces of the folder or file that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cotbench.baselines.teachers.facts TRACES")
    total = flagged = 0
    for demonstration in read_demonstrations(Path(sys.argv[1])):
        for step, (action, trace) in enumerate(zip(demonstration.actions, demonstration.traces, strict=True)):
            if trace is None or not demonstration.env:
                continue
            found = unseen(demonstration.dialogue(step), action, trace, demonstration.env)
            total, flagged = total + 1, flagged + bool(found)
            if found:
                print(f"{demonstration.task}, step {step}: {found} in {trace!r}")
    print(f"{flagged} of {total} traces name what was not seen")


# ALFWorld: things have names such as "mug 2", and observations list contents in two fixed forms.

_NAME = r"[a-z]+ \d+"
_LISTS = (rf"(?:on|in) the ({_NAME}), you see ([^.]*)", rf"the ({_NAME}) is open\. in it, you see ([^.]*)")
_PLACED = (rf"you (?:move|put) the ({_NAME}) (?:to|in/on) the ({_NAME})", rf"you pick up the ({_NAME}) from the ({_NAME})")
_AT = re.compile(
    rf"(?P<before>\S+ )?(?:the |a |an )?\b(?P<thing>{_NAME})\b"
    rf"(?: is| lies| stands| was)?(?: here| still)? (?:in/on|in|on|at|from|inside) (?:the )?(?P<place>{_NAME})\b"
)
_INTENDED = frozenset(["put", "place", "move", "set", "leave", "drop", "get", "bring", "need", "needs", "want", "to"])
_NO = re.compile(rf"\bno ([a-z]+) (?:in/on|in|on|at|inside) (?:the )?({_NAME})\b")
_STATE = re.compile(rf"\b({_NAME}) is (closed|open)\b")


def alfworld_facts(dialogue: Dialogue, action: str, trace: str) -> Iterator[str]:
    """Yield names, kinds and places of things that were not seen.

    Args:
        dialogue: what was seen before the action.
        action: the action that the trace leads to.
        trace: the reasoning.
    """
    seen = "\n".join([*dialogue.observations, *dialogue.actions]).lower()
    text = trace.lower()
    names = set(re.findall(rf"\b{_NAME}\b", seen))
    yield from (name for name in re.findall(rf"\b{_NAME}\b", text) if name not in names)
    words = set(re.findall(r"[a-z]+", seen))
    yield from (word for word in re.findall(r"[a-z]+", text) if _singular(word) in _types() and _singular(word) not in words)
    held: dict[str, set[str]] = {}  # Receptacle -> what was ever seen there.
    last: dict[str, str] = {}  # Receptacle -> its last list.
    for pattern in _LISTS:
        for place, things in re.findall(pattern, seen):
            held.setdefault(place, set()).update(re.findall(_NAME, things))
            last[place] = things
    for pattern in _PLACED:
        for thing, place in re.findall(pattern, seen):
            held.setdefault(place, set()).add(thing)
    for found in _AT.finditer(text):
        intended = (found["before"] or "").strip() in _INTENDED
        if not intended and found["thing"] not in held.get(found["place"], ()):
            yield f"{found['thing']} at {found['place']}"
    for thing, place in _NO.findall(text):
        if place not in last or re.search(rf"\b{thing} \d", last[place]):
            yield f"no {thing} at {place}"
    for name, state in _STATE.findall(text):
        if f"the {name} is {state}" not in seen and f"you {state.removesuffix('d')} the {name}" not in seen:
            yield f"{name} is {state}"


@cache
def _types() -> frozenset[str]:
    """Return every type of object and receptacle, as observations spell it."""
    found: set[str] = set()
    for room in rooms().values():
        found |= {*room.objects, *room.places, *(place for scene in room.scenes for place in scene)}
        found |= {place for places in room.places.values() for place in places}
    return frozenset(name.lower() for name in found)


def _singular(word: str) -> str:
    return word.removesuffix("s") if word not in _types() and word.removesuffix("s") in _types() else word


# ScienceWorld: no closed vocabulary, so every word that is not about reasoning has to occur in the dialogue.

_CLAIMS = (
    r"\bthere (?:is|are|was|were) (?P<thing>[^.,;:]+?)(?: (?:in|on|at|inside) (?P<place>[^.,;:]+))?(?=[.,;:]|$)",
    r"\bi (?:see|saw|have seen|found|have found|notice|noticed|have|carry|hold) (?P<thing>(?:a|an|some|the) [^.,;:]+?)"
    r"(?: now)?(?: (?:in|on|at|inside) (?P<place>[^.,;:]+?))?(?=[.,;:]|$)",
    r"\b(?P<thing>(?:a|an|the) [a-z0-9 -]+?) (?:is|are|lies|stands|sits) (?:in|on|at|inside) (?P<place>[^.,;:]+)",
    r"\b(?P<place>the [a-z ]+?) (?:holds|contains|has) (?P<thing>(?:a|an|the|some) [^.,;:]+)",
)
_HEDGED = re.compile(r"\b(?:may|might|could|if|whether|not|no|never|cannot|perhaps|maybe|guess|expect|should|what|had)\b")
_READING = re.compile(r"-?\d+(?:\.\d+)?(?:%| degrees| ticks)")
_COMMON_WORDS = """
about above accepted according activate after again against alike almost already also always ambiguous another answer
anything appears approximately around asked asks back bars because become been before begin being belong below better
between both bring broken call called cannot carry change changed changes check checked choice choices choose chosen
circuit close closed cold comes compare conclude conductive connect connected contents could counts create deactivate
decide degrees describe detail differ different digging does doing dominant done down each earlier earliest either else
emptied empty enough even every everything examine expect far filled find finish first fits focus focused follow follows
found from fulfil further gave gets give goes gone good guess hands happen happens hardly have heat held help helps here
hold holds hope idea inside instead into inventory judge judgement just keep kind know known last later lead leads learn
learned least left less life like likely link little long longer longest look looked looking looks made make makes many
matter mean meant measure measures might mixing moment more most motion move moved moving much must name named names near
nearby need needed needs never next nonconductive none nothing notice number once only open order other over part pass
passed passes path perhaps pick piece place point possible pour pouring probably produce rather reach reached read really
recessive remains request results role room runs said same says seek seeks seem seems seen shall short shorter shortest
should show shown shows side sign since slide slow some something somewhere soon span speaks stage stages stand start
state states step still stop such sure switch take taken takes task tell tells temperature than that their them then there
therefore these they thing things think this those though through thus time times together told took tried true turn twice
under understood until upon useful using very view wait waited walk want wanted wants warm watch watching went were what
whatever when where whether which while whole whose will wish with within without word words work worked worth would wrong
yes
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""Words of reasoning, of doing and of order; none of them names a thing that can be found."""


def scienceworld_facts(dialogue: Dialogue, action: str, trace: str) -> Iterator[str]:
    """Yield claims and measured values that were not seen.

    Args:
        dialogue: what was seen before the action.
        action: the action that the trace leads to.
        trace: the reasoning.
    """
    seen = [text.lower() for text in dialogue.observations]
    seen[0] = seen[0].partition("\n\n")[2]  # The task tells what to look for, not what is there.
    instructions = " ".join([dialogue.instructions.text, *dialogue.instructions.examples])
    known = "\n".join([instructions, *dialogue.observations, *dialogue.actions]).lower()
    text = trace.lower()
    words = set(_stems(known)) | set(_stems(action.lower()))
    yield from (word for word in re.findall(r"[a-z]{4,}", text) if word not in _COMMON and _stem(word) not in words)
    numbers = set(re.findall(r"\d+(?:\.\d+)?", f"{known} {action}"))
    yield from (number for number in re.findall(r"\d+(?:\.\d+)?", text) if number not in numbers)
    yield from (reading for reading in _READING.findall(text) if reading not in known)
    for sentence in re.split(r"(?<=[.!?;])\s+", text):
        if not _HEDGED.search(sentence):
            yield from _claims(sentence, seen)


def _claims(sentence: str, seen: list[str]) -> Iterator[str]:
    for pattern in _CLAIMS:
        for found in re.finditer(pattern, sentence):
            thing, place = found["thing"], found["place"] or ""
            wanted = {_stem(word) for word in re.findall(r"[a-z]{3,}", f"{thing} {place}") if word not in _PLAIN}
            if not any(wanted <= set(_stems(text)) for text in seen):
                yield f"{thing} ... {place}".removesuffix(" ... ")


_PLAIN = _COMMON | {
    "the",
    "and",
    "its",
    "now",
    "for",
    "way",
    "any",
    "one",
    "all",
    "but",
    "has",
    "was",
    "are",
    "out",
    "new",
    "use",
}


def _stems(text: str) -> list[str]:
    return [_stem(word) for word in re.findall(r"[a-z]{3,}", text)]


def _stem(word: str) -> str:
    return word.removesuffix("s") if len(word) > 4 else word


# BFCL: a claim is in quotation marks, is a number, or has the form of an identifier.

_QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”|`([^`]*)`|(?<![\w\'])\'([^\']+)\'(?!\w)')
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")
_BY_USER = re.compile(
    r"\buser(?:'s)?\b.*\b(?:gives?|gave|says?|said|names?|named|asks?|words|mentions?|mentioned|tells?|told)\b"
)
_BY_RESULT = re.compile(
    r"\bresults?\b.*\b(?:shows?|showed|are in|tells?|says?)\b|\b(?:from|in) (?:a|an|the)(?: \w+)? results?\b"
)


def bfcl_facts(dialogue: Dialogue, action: str, trace: str) -> Iterator[str]:
    """Yield quotations and numbers that neither the user nor a result contains.

    Args:
        dialogue: what was seen before the action.
        action: the action that the trace leads to.
        trace: the reasoning.
    """
    begins = [True, *(_calls_nothing(past) for past in dialogue.actions)]
    user_text = _plain("\n".join(text for text, begun in zip(dialogue.observations, begins, strict=True) if begun))
    result_text = _plain("\n".join(text for text, begun in zip(dialogue.observations, begins, strict=True) if not begun))
    known = _plain("\n".join([dialogue.functions, user_text, result_text, *dialogue.actions, action]))
    for quoted, clause in _clauses(trace):
        marks = [(text, is_code) for text, is_code in quoted if text]
        bare = _NUMBER.findall(clause)
        named = [*(text for text, _ in marks), *re.findall(r"\b\w+_\w+\b", clause)]
        yield from (name for name in named if not _stands(name, known))
        yield from (number for number in bare if not _counted(number, known))
        values = [text for text, is_code in marks if not is_code]
        for claimed, text, source in ((_BY_USER, user_text, "the user"), (_BY_RESULT, result_text, "a result")):
            if claimed.search(clause):
                yield from (f"{value} from {source}" for value in values if not _stands(value, text))
                yield from (f"{number} from {source}" for number in bare if not _counted(number, text))


def _clauses(trace: str) -> Iterator[tuple[list[tuple[str, bool]], str]]:
    """Yield each sentence with its quotations taken out, and these (with whether they stood between backticks)."""
    taken: list[tuple[str, bool]] = []

    def take(found: re.Match[str]) -> str:
        taken.append((next((group for group in found.groups() if group), ""), found[3] is not None))
        return f"§{len(taken) - 1}§"

    for sentence in re.split(r"(?<=[.!?;])\s+", _QUOTED.sub(take, trace)):
        places = re.findall(r"§(\d+)§", sentence)
        yield [taken[int(place)] for place in places], re.sub(r"§\d+§", "§", sentence).lower()


def _calls_nothing(action: str) -> bool:
    try:
        return not calls.read(action).texts()
    except calls.UnreadableError:
        return True


def _plain(text: str) -> str:
    """Return a text without the escapes of JSON and Python, in lower case, with single blanks."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    text = re.sub(r"\\[nrt]", " ", text).replace('\\"', '"').replace("\\'", "'").replace("\\\\", "\\")
    return " ".join(text.lower().split())


def _stands(name: str, text: str) -> bool:
    name = _plain(name.removesuffix("..."))
    return re.search(rf"(?<!\w){re.escape(name)}", text) is not None


def _counted(number: str, text: str) -> bool:
    return any(float(other) == float(number) for other in _NUMBER.findall(text))


if __name__ == "__main__":
    main()
