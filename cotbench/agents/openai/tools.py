"""Native tool calling: functions go to the server as tools, and its tool calls become the action. Invariant: the functions are
those that the dialogue describes, under names and types that every server takes; an action names them as the dialogue does.

What this leaves out: past turns stay text, as in every other way of asking; so results are not paired with calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from cotbench.agents.openai.reply import CompletionReply
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Message
from cotbench.prompting.generation import TAG_ALLOWANCE
from cotbench.prompting.parsing import ACTION_OPEN, THINK_CLOSE, THINK_OPEN, parse_answer
from cotbench.prompting.query import Decision, Query

INSTRUCTIONS = {
    "prompt": "Call functions as your tools, and write nothing else. An answer without a call is the empty list.",
    "cot": (
        f"First reason about what to do, between {THINK_OPEN} and {THINK_CLOSE}. "
        "Then call functions as your tools. An answer without a call is the empty list."
    ),
}
_LONGEST_NAME = 64

_TYPES = {
    "dict": "object",
    "hashmap": "object",
    "float": "number",
    "double": "number",
    "int": "integer",
    "long": "integer",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "arraylist": "array",
    "str": "string",
    "any": "string",
}
"""Names of types that are no JSON schema's; one that is neither here nor there is a string."""

_JSON = frozenset({"object", "array", "number", "integer", "boolean", "string", "null"})
_KEPT = ("description", "enum", "default", "required")


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Tools in the form of a request, and the functions' own names."""

    tools: tuple[Mapping[str, Any], ...]
    names: Mapping[str, str]


def toolbox(dialogue: Dialogue) -> Toolbox:
    """Return the functions of a dialogue, those among them that were described later."""
    tools, names = [], dict[str, str]()
    for function in _functions(dialogue):
        if function["name"] in names.values():
            continue
        name = _plain_name(function["name"], names)
        names[name] = function["name"]
        told = {"name": name, "description": str(function.get("description", ""))}
        tools.append(
            {"type": "function", "function": {**told, "parameters": _schema(function.get("parameters") or {}, "object")}}
        )
    return Toolbox(tuple(tools), names)


def _functions(dialogue: Dialogue) -> Iterator[Mapping[str, Any]]:
    from cotbench.envs.bfcl.env import MORE_FUNCTIONS

    lines = dialogue.functions.splitlines()
    for observation in dialogue.observations:
        *added, last = observation.splitlines() or [""]
        if last == MORE_FUNCTIONS:
            lines += added
    for line in lines:
        try:
            function = json.loads(line)
        except ValueError:
            continue
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function


def _plain_name(name: str, taken: Mapping[str, str]) -> str:
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_LONGEST_NAME]
    count = 2
    while plain in taken:
        plain = f"{plain[: _LONGEST_NAME - 3]}_{count}"
        count += 1
    return plain


def _schema(described: Mapping[str, Any], default: str = "string") -> dict[str, Any]:
    """Return a JSON schema out of upstream's."""
    kind = str(described.get("type", default))
    kind = kind.lower() if kind.lower() in _JSON else _TYPES.get(kind.lower(), "string")
    schema: dict[str, Any] = {"type": kind, **{name: described[name] for name in _KEPT if name in described}}
    properties = described.get("properties")
    if kind == "object":
        inner = properties if isinstance(properties, dict) else {}
        schema["properties"] = {name: _schema(value) for name, value in inner.items()}
    if kind == "array":
        items = described.get("items")
        schema["items"] = _schema(items) if isinstance(items, dict) else {}
    return schema


def messages(dialogue: Dialogue, query: Query) -> list[Message]:
    """Return the chat with the functions left out of it, and the instruction that fits."""
    asked = query.elicitation
    shown = asked.messages(replace(dialogue, functions=""), query.mode, query.admissible_actions)
    return [Message("system", f"{dialogue.instructions.text}\n\n{INSTRUCTIONS[query.mode]}"), *shown[1:]]


def budget(asked: Elicitation, mode: str) -> int:
    """Return how many tokens an answer may have."""
    return asked.action_tokens + TAG_ALLOWANCE + (asked.trace_tokens if mode == "cot" else 0)


def read_calls(reply: CompletionReply, box: Toolbox, query: Query) -> Decision:
    """Return the decision in an answer to a request with tools; without a call its text is the action."""
    thought, text = reply.reasoning, reply.text.strip()
    if thought is None and THINK_CLOSE in text:
        thought, _, text = text.rpartition(THINK_CLOSE)
        thought = thought.replace(THINK_OPEN, "")
    elif thought is None and query.mode == "cot" and reply.calls:
        thought, text = text or None, ""  # Words before a call can only be its reasoning.
    action = json.dumps([_call(call, box) for call in reply.calls], ensure_ascii=False) if reply.calls else _said(text)
    trace = thought.strip() if thought is not None else None
    generated = reply.tokens or 0
    in_trace = min(generated, reply.reasoning_tokens)
    return Decision(
        action=action,
        trace=trace if query.mode == "cot" else None,
        raw="".join((f"{THINK_OPEN}{trace}{THINK_CLOSE}\n" if trace is not None else "", text, action if reply.calls else "")),
        format_ok=bool(reply.calls) and not text.strip() and (trace is None) == (query.mode == "prompt"),
        trace_truncated=reply.finish == "length" and not reply.calls,
        trace_tokens=in_trace,
        action_tokens=generated - in_trace,
    )


def _said(text: str) -> str:
    return parse_answer(text).action if ACTION_OPEN in text else text.strip()


def _call(call: Mapping[str, Any], box: Toolbox) -> dict[str, Any]:
    """Return one call with the function's own name; arguments that are no JSON stay text."""
    function = call.get("function")
    told: Mapping[str, Any] = function if isinstance(function, Mapping) else {}
    name, arguments = str(told.get("name", "")), told.get("arguments") or {}
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    return {"name": box.names.get(name, name), "arguments": arguments}
