"""Native tool calling: functions are sent to the server as tools, and its tool calls become the action. Invariant: the
functions are those that the dialogue describes, under names and types that every server takes; an action names them as the
dialogue does.

Left out: past turns stay text, as without tools; so results are not paired with calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cotbench.agents.openai.capabilities import Endpoint
from cotbench.agents.openai.client import CompletionClient
from cotbench.agents.openai.connection import ServerError
from cotbench.agents.openai.reply import CompletionReply, ToolCall
from cotbench.envs.registry import Instructions
from cotbench.errors import AgentError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Message
from cotbench.prompting.generation import TAG_ALLOWANCE
from cotbench.prompting.parsing import THINK_CLOSE, THINK_OPEN, Tags, parse_answer
from cotbench.prompting.query import Decision, Query

INSTRUCTIONS = {
    "prompt": "Call functions as your tools, and write nothing else. An answer without a call is the empty list.",
    "cot": (
        f"First reason about what to do, between {THINK_OPEN} and {THINK_CLOSE}. "
        "Then call functions as your tools. An answer without a call is the empty list."
    ),
}
_LONGEST_NAME = 64

_NAMESPACED = re.compile(r"functions\.(?P<name>.+?)(:\d+)?")
"""A name as some models write it, and some servers pass it on: in a namespace, perhaps with the number of the call."""

_BLANKS = re.compile(r"\s*")

_TRIAL_MESSAGES = (Message("system", "You are brief."), Message("user", "Write one short sentence."))
TRIAL_TOOL = {"name": "ring_bell", "description": "Rings the bell.", "parameters": {"type": "object", "properties": {}}}

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
"""Type names that are not of JSON schema -> those of JSON schema; any other name becomes string."""

_JSON = frozenset({"object", "array", "number", "integer", "boolean", "string", "null"})
_SCHEMA_FIELDS = ("description", "enum", "default", "required")


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Tools in the form of a request, and the functions' own names: name of a tool -> name of its function."""

    tools: tuple[Mapping[str, Any], ...]
    names: Mapping[str, str]


def toolbox(dialogue: Dialogue) -> Toolbox:
    """Return the functions of a dialogue, those described in later observations included."""
    tools, names = [], dict[str, str]()
    for function in _functions(dialogue):
        if function["name"] in names.values():
            continue
        name = _plain_name(function["name"], names)
        names[name] = function["name"]
        description = {"name": name, "description": str(function.get("description", ""))}
        tools.append(
            {"type": "function", "function": {**description, "parameters": _schema(function.get("parameters") or {}, "object")}}
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
    """Return a JSON schema for upstream's description of a type."""
    kind = str(described.get("type", default))
    kind = kind.lower() if kind.lower() in _JSON else _TYPES.get(kind.lower(), "string")
    schema: dict[str, Any] = {"type": kind, **{name: described[name] for name in _SCHEMA_FIELDS if name in described}}
    properties = described.get("properties")
    if kind == "object":
        inner = properties if isinstance(properties, dict) else {}
        schema["properties"] = {name: _schema(value) for name, value in inner.items()}
    if kind == "array":
        items = described.get("items")
        schema["items"] = _schema(items) if isinstance(items, dict) else {}
    return schema


def messages(dialogue: Dialogue, query: Query) -> list[Message]:
    """Return the chat without the functions, and with the instruction for tools."""
    elicitation = query.elicitation
    chat = elicitation.messages(replace(dialogue, functions=""), query.mode, query.admissible_actions)
    text = elicitation.instructions_text(Instructions(dialogue.instructions.text))
    return [Message("system", f"{text}\n\n{elicitation.tags.rename(INSTRUCTIONS[query.mode])}"), *chat[1:]]


def budget(elicitation: Elicitation, mode: str) -> int:
    """Return the most tokens that an answer may have.

    Args:
        elicitation: trace and action budget.
        mode: "prompt" or "cot".
    """
    return elicitation.action_tokens + TAG_ALLOWANCE + (elicitation.trace_tokens if mode == "cot" else 0)


def check_tools(connection: CompletionClient, model: str, chat: Endpoint) -> None:
    """Raise an error where a server takes no tools.

    Some servers refuse them, others accept the field and show the model nothing of it; then the prompt gets no longer.

    Args:
        connection: to the server.
        model: the server's name for it.
        chat: its endpoint for messages.

    Raises:
        AgentError: it refuses tools, or does not show them to the model.
        ServerError: it does not answer.
    """
    body = {"model": model, "messages": chat.request_messages(_TRIAL_MESSAGES), chat.budget: 16, **chat.extras}
    bare = connection.ask(chat.path, body).prompt_tokens
    tools = [{"type": "function", "function": TRIAL_TOOL}]
    try:
        counted = connection.ask(chat.path, {**body, "tools": tools}, final=(500,)).prompt_tokens
    except ServerError as error:
        if not (error.refused or error.status == 500):  # With 500 some say that they take no tools.
            raise
        raise AgentError(f"tools=native needs a server that takes tools: {error}; or use ?tools=text") from None
    if counted is not None and counted == bare:
        raise AgentError(
            f"tools=native needs a server that shows tools to the model: {connection.url} takes them, but the prompt stays "
            f"{counted} tokens long (no tool in the chat template?); use ?tools=text"
        )


def read_calls(reply: CompletionReply, box: Toolbox, query: Query) -> Decision:
    """Return the decision in an answer to a request with tools; without a call its text is the action.

    A call whose arguments are no JSON object is the model's own, and wrong: they stay as they are, and the format is not kept.

    Args:
        reply: the answer.
        box: the tools of the request.
        query: the query.
    """
    reasoning, text, tags = reply.reasoning, reply.text.strip(), query.elicitation.tags
    if reasoning is None and tags.think_close in text:
        reasoning, _, text = text.rpartition(tags.think_close)
        reasoning = reasoning.replace(tags.think_open, "")
    elif reasoning is None and query.mode == "cot" and reply.calls:
        reasoning, text = text or None, ""  # Text before a call is taken as its reasoning.
    calls = [_call(call, box) for call in reply.calls]
    action = json.dumps(calls, ensure_ascii=False) if calls else _text_action(text, tags)
    understood = bool(calls) and all(isinstance(call["arguments"], dict) for call in calls)
    trace = reasoning.strip() if reasoning is not None else None
    generated = reply.tokens or 0
    in_trace = min(generated, reply.reasoning_tokens)
    return Decision(
        action=action,
        trace=trace if query.mode == "cot" else None,
        raw=(f"{tags.think_open}{trace}{tags.think_close}\n" if trace is not None else "") + text + (action if calls else ""),
        format_ok=understood and not text.strip() and (trace is None) == (query.mode == "prompt"),
        trace_truncated=reply.finish == "length" and not calls,
        trace_tokens=in_trace,
        action_tokens=generated - in_trace,
    )


def _text_action(text: str, tags: Tags) -> str:
    return parse_answer(text, tags).action if tags.action_open in text else text.strip()


def _call(call: ToolCall, box: Toolbox) -> dict[str, Any]:
    """Return one call with the function's own name."""
    return {"name": _function_name(call.name, box), "arguments": _arguments(call.arguments)}


def _function_name(name: str, box: Toolbox) -> str:
    """Return the function's own name for the name in a call; a name that is no tool's stays as it is."""
    known = {**{own: own for own in box.names.values()}, **box.names}
    match = _NAMESPACED.fullmatch(name) if name not in known else None
    return known.get(name if match is None else match["name"], name)


def _arguments(sent: object) -> object:
    """Return the arguments of a call as a dictionary where they can be read as one in one way only; else as they were sent.

    A server's parser leaves traces in them: none at all or null for no arguments, JSON in a JSON string, or an empty value
    beside the arguments (`{}""`, `{}{"a": 1}`).
    """
    value = sent
    while isinstance(value, str):
        values = _json_values(value)
        full = None if values is None else [each for each in values if each not in ({}, "", None)]
        if full is None or len(full) > 1:
            return sent
        value = full[0] if full else {}
    return {} if value is None else value


def _json_values(text: str) -> list[Any] | None:
    """Return the JSON values that stand in a text, one behind the other; None where it holds anything else."""
    decoder, values, place = json.JSONDecoder(), list[Any](), 0
    text = text.strip()
    try:
        while place < len(text):
            value, end = decoder.raw_decode(text, place)
            values.append(value)
            place = next(_BLANKS.finditer(text, end)).end()
    except (ValueError, RecursionError):
        return None
    return values
