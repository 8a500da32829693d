"""Reasoning behind function calls, in words: what the user asks (goal), what was returned so far (findings), which functions
fit and where each value comes from (choice). Invariant: a source is named only where the value occurs in it; any other value is
called a choice of one's own. Goal and findings do not tell whether anything is called.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.agents.decisions import tagged_decision
from cotbench.baselines.teachers.options import Names, TeacherOptions, expert_action
from cotbench.baselines.teachers.wording import Wording
from cotbench.envs.bfcl import calls
from cotbench.envs.bfcl.env import MORE_FUNCTIONS
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.query import Decision, Query

_QUOTED = 80
"""Characters of a request or a value that are repeated."""

_MOST_CALLS = 3
_MOST_VALUES = 6
"""How many calls and values are mentioned one by one; the rest is left out."""

_GOALS = (
    "The user asks: {quote}.",
    "The request is {quote}.",
    "Now the user says {quote}.",
    "What is wanted: {quote}.",
)
_NEW = ("Nothing was called for it yet.", "No call was made for it so far.", "It is a new request.")
_LATE = ("More functions are described now: {names}.", "The user adds {names}.")
_RETURNED = ("The results so far are in{excerpt}.", "Results have come{excerpt}.", "There are results{excerpt}.")
_ERROR = ("A call for it reported an error{excerpt}.", "There was an error{excerpt}.")
"""Findings: a new request, one with functions that are described late, and the last result of calls."""

_GOES_ON = ("More is to be done for it.", "It is not complete.", "There is more to do.")
_ONE = (
    "For that `{name}` fits: {does}.",
    "I use `{name}`, described as: {does}.",
    "`{name}` is the function for it: {does}.",
    "The list has `{name}` for this: {does}.",
)
_SEVERAL = (
    "That takes several calls, in this order: {names}.",
    "I need {names}, one after the other.",
    "Step by step, I call {names}.",
)
_NONE_NEEDED = ("It needs no values.", "There is nothing to fill in.", "No arguments are required.")
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "request": (
        "the user gives {value} for {name}",
        "{name} is {value}, in the user's words",
        "the user says {value}, which is {name}",
    ),
    "before": ("the user gave {value} before, for {name}", "{name} is {value}, which the user named earlier"),
    "result": ("{name} is {value}, from a result", "a result shows {value}, which I need for {name}"),
    "schema": ("{name} can be {value}, as the description says", "of what the description allows, {name} is {value}"),
    "rounded": ("{name} is a rounded {value}, from a result", "a result shows {value}, which I round for {name}"),
    "mixed": ("{name} is put together from what was said", "I compose {name} from the words so far"),
    "on": ("{name} is to be switched on", "{name} must be true here"),
    "off": ("{name} is to be off", "{name} must be false here"),
    "default": ("{name} stays as it is by default", "{name} keeps its default"),
    "unanswered": (
        "the calls before it are not answered yet, so {name} is what I expect",
        "I cannot see yet what the first calls return, and {name} is my expectation",
    ),
    "own": (
        "nothing spells out {name}, so I fill it in as its description asks",
        "for {name} I choose what fits its description",
    ),
}
_DONE = (
    "Nothing is left to call.",
    "With that it is fulfilled. I call nothing more.",
    "It is done. I end here and let the user go on.",
    "All calls for it were made. I call nothing now.",
)
_FAILED = (
    "I have no better call, so I stop here.",
    "I leave it at that and let the user say more.",
)
_MISSING = (
    "With the functions and values that I have it cannot be done: something is missing. I call nothing.",
    "I lack a function or a value for it. I must not make one up, so I call nothing and let the user say more.",
    "I cannot fulfil it yet, for a function or a value is missing. I wait for the user.",
)
_PLAIN = ("I answer as well as I can.", "I try what seems to fit.")


_NamedCalls = Sequence[tuple[str, Mapping[Any, Any]]]
"""Name and arguments of each call."""


@dataclass(frozen=True)
class _Conversation:
    """Dialogue, sorted by speaker.

    Attributes:
        requests: the user's texts, turn by turn.
        late: names of the functions that were described with the last request.
        results: the results of calls, a text a step.
        current: how many of them belong to the present turn.
        functions: name -> schema of what can be called.
    """

    requests: tuple[str, ...]
    late: tuple[str, ...]
    results: tuple[str, ...]
    current: int
    functions: Mapping[str, Mapping[str, Any]]

    @property
    def failed(self) -> bool:
        """Whether the last call of the present turn failed."""
        last = self.results[-1] if self.current else ""
        return last.startswith("Error during") or "\nError during" in last or '"error":' in last


_MOST_CALLS_ONE_BY_ONE = 15
"""Of a turn with more calls all are made at once: upstream allows 20 responses a turn."""


def decide(query: Query, options: TeacherOptions, rng: random.Random) -> Decision:
    """Return the ground truth's next call with its reasoning; see `Teach`."""
    action = _first_call(expert_action(query))
    return tagged_decision(query, action, think(query.dialogue, action, rng, options.names))


def _first_call(action: str) -> str:
    texts = calls.read(action).texts()
    return calls.canonical(f"[{texts[0]}]") if 1 < len(texts) <= _MOST_CALLS_ONE_BY_ONE else action


def think(dialogue: Dialogue, action: str, rng: random.Random, names: Names = "full") -> str:
    """Return the reasoning that leads from a request and earlier results to the calls of an action, or to calling nothing.

    Args:
        dialogue: requests, calls and results so far.
        action: the calls that the reasoning leads to.
        rng: chooses the words.
        names: how much is spelled; with the same `rng` a lower level is a prefix of a higher one.
    """
    conversation = _read_dialogue(dialogue)
    new_calls = _calls_of(action)
    past = [call for one in dialogue.actions[len(dialogue.actions) - conversation.current :] for call in _calls_of(one)]
    goal = rng.choice(_GOALS).format(quote=_quote(_gist(conversation, new_calls or past)))
    finding = _finding(conversation, rng)
    if new_calls:
        choice = _call(conversation, new_calls, rng)
    elif _ends_turn(action) and action != calls.NO_CALL:
        choice = rng.choice(_PLAIN)  # Not readable as calls.
    else:
        choice = rng.choice(_MISSING if not conversation.current else _FAILED if conversation.failed else _DONE)
    return " ".join(_TAG.sub("", part) for part in Wording(goal, finding, choice).parts(names))


_TAG = re.compile(r"</?(?:think|action)>", re.IGNORECASE)


def _calls_of(action: str) -> list[tuple[str, Mapping[Any, Any]]]:
    """Return name and arguments of the calls of an action; nothing where it cannot be read."""
    try:
        return [(name, arguments) for call in calls.read(action).calls for name, arguments in call.items()]
    except calls.UnreadableError:
        return []


def _finding(conversation: _Conversation, rng: random.Random) -> str:
    """Return what is known of the request so far, in a sentence: nothing, or the last result."""
    if not conversation.current:
        names = _listed([f"`{name}`" for name in conversation.late])
        return rng.choice(_LATE if names else _NEW).format(names=names)
    found = _leaves(conversation.results[-1], conversation.failed)
    excerpt = ""
    if found and (conversation.failed or rng.random() < 0.7):
        key, value = rng.choice(found)
        excerpt = f": `{key}` is {value}"
    return rng.choice(_ERROR if conversation.failed else _RETURNED).format(excerpt=excerpt)


def _call(conversation: _Conversation, new_calls: _NamedCalls, rng: random.Random) -> str:
    names = _listed([f"`{name}`" for name in dict.fromkeys(name for name, _ in new_calls)])
    does = _does(conversation, new_calls[0][0])
    thought = [rng.choice(_GOES_ON)] if conversation.current else []
    if len(new_calls) == 1:
        thought.append(rng.choice(_ONE).format(name=new_calls[0][0], does=does) if does else f"I call `{new_calls[0][0]}`.")
    else:
        thought.append(rng.choice(_SEVERAL).format(names=names))
    return " ".join([*thought, *_values(conversation, new_calls, rng)])


def _gist(conversation: _Conversation, new_calls: _NamedCalls) -> str:
    """Return the sentence of the last request that has most in common with some calls; the last sentence where none has
    anything.
    """
    sentences = [one for one in re.split(r"(?<=[.!?])\s+", conversation.requests[-1].strip()) if one.count(" ") >= 2]
    words = {word for name, _ in new_calls for word in re.findall(r"[a-z]{4,}", f"{name} {_does(conversation, name)}".lower())}
    values = [value for _, arguments in new_calls for value in _parts(dict(arguments)) if not isinstance(value, bool)]

    def fit(sentence: str) -> int:
        common = words & set(re.findall(r"[a-z]{4,}", sentence.lower()))
        return len(common) + 2 * sum(bool(_occurs(value, sentence)) for value in values)

    return max(reversed(sentences), key=fit) if sentences else conversation.requests[-1]


def _read_dialogue(dialogue: Dialogue) -> _Conversation:
    functions = {schema["name"]: schema for schema in _schemas(dialogue.functions)}
    requests: list[str] = []
    results: list[str] = []
    late: tuple[str, ...] = ()
    current = 0
    ends = [True, *map(_ends_turn, dialogue.actions)]
    for text, begins in zip(dialogue.observations, ends, strict=True):
        if not begins:
            results.append(text)
            current += 1
            continue
        current, late = 0, ()
        if text.endswith(MORE_FUNCTIONS) and requests:
            added = {schema["name"]: schema for schema in _schemas(text)}
            functions |= added
            late = tuple(added)
            requests.append(requests[-1])
        else:
            requests.append(text)
    return _Conversation(tuple(requests), late, tuple(results), current, functions)


def _schemas(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            loaded = json.loads(line)
            if isinstance(loaded, dict) and "name" in loaded:
                yield loaded


def _ends_turn(action: str) -> bool:
    """Tell whether a response calls nothing: then the user speaks next."""
    try:
        return not calls.read(action).texts()
    except calls.UnreadableError:
        return True


def _leaves(results: str, failed: bool) -> list[tuple[str, str]]:
    """Return the short plain values of results (of errors alone, where a call failed) with their keys."""
    found: list[tuple[str, str]] = []
    for line in results.splitlines():
        try:
            loaded = json.loads(line)
        except ValueError:
            continue  # Not every result is JSON: `None`, or an error in plain words.
        for key, value in loaded.items() if isinstance(loaded, dict) else ():
            if isinstance(value, str | int | float) and value != "" and (key == "error") == failed:
                found.append((key, _quote(value) if isinstance(value, str) else json.dumps(value)))
    return found


def _does(conversation: _Conversation, name: str) -> str:
    """Return the first sentence of a function's own description, without a final stop; empty where it is not described."""
    text = str(conversation.functions.get(name, {}).get("description", ""))
    text = text.rpartition("Tool description: ")[2].partition(" Note that the provided function")[0]
    first = re.split(r"(?<=[a-z)])\.(?:\s|$)", text.strip())[0].strip().rstrip(".")
    return first[:1].lower() + first[1:] if len(first) <= 160 else ""


def _values(conversation: _Conversation, new_calls: _NamedCalls, rng: random.Random) -> list[str]:
    """Return sentences that name the sources of the first few calls' values, one each."""
    if not any(arguments for _, arguments in new_calls):
        return [rng.choice(_NONE_NEEDED)]
    sentences: list[str] = []
    for place, (name, arguments) in enumerate(new_calls[:_MOST_CALLS]):
        for key, value in arguments.items():
            if len(sentences) == _MOST_VALUES:
                return sentences
            source, spelling = _source(conversation, name, str(key), value)
            source = "unanswered" if source == "own" and place else source
            sentence = rng.choice(_SOURCES[source]).format(name=f"`{key}`", value=spelling) + "."
            sentence = sentence if sentence.startswith("`") else _capital(sentence)
            if sentence not in sentences:
                sentences.append(sentence)
    return sentences


def _source(conversation: _Conversation, function: str, key: str, value: Any) -> tuple[str, str]:
    """Return the source of a value, and its spelling there; "own" where it has none."""
    if "default" in (described := _parameter(conversation, function, key)) and described["default"] == value:
        return "default", ""
    if isinstance(value, bool) or value in ("True", "False"):
        return ("on" if value in (True, "True") else "off"), ""
    if isinstance(value, list | tuple | dict):
        return _source_of_many(conversation, function, key, value)
    results = "\n".join(conversation.results)
    if isinstance(value, int | float) and abs(value) < 10:
        # A small number stands everywhere: it counts where it is the value of a field of that name.
        results = "\n".join(re.findall(rf'"\w*{re.escape(key.rpartition("_")[2])}": [^,}}]+', results, re.IGNORECASE))
    for source, text in (
        ("request", conversation.requests[-1]),
        ("before", "\n".join(conversation.requests[:-1])),
        ("result", results),
        ("schema", _described(conversation, function, key)),
    ):
        if found := _occurs(value, text):
            return source, found
    if isinstance(value, float) and (near := _rounded(value, results)):
        return "rounded", near
    return "own", ""


def _source_of_many(conversation: _Conversation, function: str, key: str, value: Any) -> tuple[str, str]:
    """Return the source of a collection: the one that all its parts share."""
    parts = list(_parts(value))
    for source, text in (
        ("request", conversation.requests[-1]),
        ("result", "\n".join(conversation.results)),
        ("schema", _described(conversation, function, key)),
    ):
        found = [_occurs(part, text) for part in parts]
        if parts and all(found):
            return source, _listed(found[:_MOST_VALUES])
    everything = "\n".join([*conversation.requests, *conversation.results])
    return ("mixed" if parts and all(_occurs(part, everything) for part in parts) else "own"), ""


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _parts(inner)
    else:
        yield value


def _parameter(conversation: _Conversation, function: str, key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = conversation.functions.get(function, {}).get("parameters", {}).get("properties", {}).get(key, {})
    return found


def _described(conversation: _Conversation, function: str, key: str) -> str:
    """Return the description of a parameter and its choices."""
    parameter = _parameter(conversation, function, key)
    return f"{parameter.get('description', '')} {parameter.get('enum', '')}"


def _occurs(value: Any, text: str) -> str:
    """Return a value as a text spells it, in quotes or as a number; empty where the text does not hold it."""
    if isinstance(value, int | float):
        numbers = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)", text)
        return next((number for number in numbers if float(number) == value), "")
    plain = str(value).strip()
    if not re.search(r"\w", plain):
        return ""
    found = re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", text, re.IGNORECASE)
    return _quote(found[0]) if found else ""


def _rounded(value: float, text: str) -> str:
    places = len(repr(value).partition(".")[2])
    numbers = re.findall(r"(?<![\w.])-?\d+\.\d+(?!\w)", text)
    return next((number for number in numbers if round(float(number), places) == value), "")


def _quote(text: str) -> str:
    """Return a text in quotation marks: its first line, cut at a word where it is long."""
    line = " ".join(next((line for line in text.strip().splitlines() if line.strip()), "").split())
    # The marks of the text itself would end the quotation, tags would end the trace.
    line = max(re.split(r'["“”<>`]', line), key=len).strip().removesuffix(".")
    if len(line) > _QUOTED:
        line = f"{line[:_QUOTED].rsplit(' ', 1)[0].rstrip(',;:')}..."
    return f'"{line}"'


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
