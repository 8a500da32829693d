"""Entries of the pinned bfcl-eval wheel. Invariant: read, never written; a caller gets copies, so that no task can change
another one's data.

Source: bfcl-eval `utils.py`: `load_dataset_entry`, `populate_test_cases_with_predefined_functions`,
`_func_doc_language_specific_pre_processing`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from cotbench.envs import wheels
from cotbench.envs.bfcl.upstream import SERVICES
from cotbench.errors import UnknownNameError

PREFIX = "bfcl/"
PACKAGE = "cotbench.envs.bfcl"
_DATA = "bfcl_eval/data"

MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
_COUNTED = {
    **dict.fromkeys(MULTI_TURN, 200),
    "simple_python": 400,
    "simple_java": 100,
    "simple_javascript": 50,
    "multiple": 200,
    "parallel": 200,
    "parallel_multiple": 200,
    "irrelevance": 240,
}
_LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance")
CATEGORIES = (*_COUNTED, *_LIVE)

_HINTS = {"python": "Python 3", "java": "Java 8 SDK", "javascript": "JavaScript"}


@cache
def ids(category: str) -> tuple[str, ...]:
    """Return the task ids of a category, in upstream's order; known without the wheel."""
    if category in _COUNTED:
        return tuple(f"{PREFIX}{category}_{index}" for index in range(_COUNTED[category]))
    live = files(PACKAGE).joinpath("live_ids.txt").read_text("utf-8").split()
    return tuple(PREFIX + line for line in live if line.rsplit("_", 1)[0] == category)


@cache
def _categories() -> Mapping[str, str]:
    return {task: category for category in CATEGORIES for task in ids(category)}


def category_of(task: str) -> str:
    """Return the category of a task.

    Raises:
        UnknownNameError: there is no such task.
    """
    if task not in _categories():
        raise UnknownNameError("task", task, _categories(), "of bfcl")
    return _categories()[task]


def language_of(category: str) -> str:
    """Return the language in which a category's calls are written: "python", "java" or "javascript"."""
    return category.removeprefix("simple_") if category in ("simple_java", "simple_javascript") else "python"


@cache
def _rows(member: str) -> Mapping[str, str]:
    """Return id -> line of a file of the wheel; a line is decoded when it is needed."""
    lines = [line for line in wheels.read("bfcl", f"{_DATA}/{member}").splitlines() if line.strip()]
    return {json.loads(line)["id"]: line for line in lines}


@lru_cache(maxsize=8)
def entry(task: str) -> dict[str, Any]:
    """Return upstream's entry of a task, as it is written. Not to be changed."""
    loaded: dict[str, Any] = json.loads(_rows(f"BFCL_v4_{category_of(task)}.json")[task.removeprefix(PREFIX)])
    return loaded


def _answers(task: str) -> Any:
    return json.loads(_rows(f"possible_answer/BFCL_v4_{category_of(task)}.json")[task.removeprefix(PREFIX)])["ground_truth"]


def ground_truth(task: str) -> list[list[str]]:
    """Return the calls of each turn of a multi-turn task."""
    turns: list[list[str]] = _answers(task)
    return turns


def possible_answers(task: str) -> list[dict[str, Any]]:
    """Return the possible answers of a single-turn task, as upstream's checker takes them."""
    answers: list[dict[str, Any]] = _answers(task)
    return answers


def turns(task: str) -> list[str]:
    """Return the user's text of each turn; empty where functions are added instead."""
    return [_request_text(messages) for messages in entry(task)["question"]]


def _request_text(messages: list[dict[str, str]]) -> str:
    """Return one text for the messages before an answer, with their roles where it is not one message of the user."""
    if [message["role"] for message in messages] == ["user"]:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


@cache
def _documents(service: str) -> tuple[dict[str, Any], ...]:
    lines = wheels.read("bfcl", f"{_DATA}/multi_turn_func_doc/{SERVICES[service]}.json").splitlines()
    return tuple(json.loads(line) for line in lines if line.strip())


def functions(task: str) -> list[dict[str, Any]]:
    """Return the described functions of a task, held-out ones included, in upstream's own schema."""
    return [copy.deepcopy(function) for function in _described(task)]


@cache
def _described(task: str) -> tuple[dict[str, Any], ...]:
    loaded = entry(task)
    if category_of(task) in MULTI_TURN:
        return tuple(function for service in loaded["involved_classes"] for function in _documents(service))
    return tuple(loaded["function"])


def held_out(task: str) -> Mapping[int, list[str]]:
    """Return turn -> names of the functions that are described only from that turn on."""
    return {int(turn): names for turn, names in entry(task).get("missed_function", {}).items()}


def schemas(task: str) -> list[dict[str, Any]]:
    """Return the functions as the JSON schemas of the prompt, with upstream's hint on the language. Not to be changed."""
    category = category_of(task)
    if category in MULTI_TURN:
        return [schema for service in entry(task)["involved_classes"] for schema in _service_schemas(service)]
    return [_schema(function, language_of(category)) for function in functions(task)]


@cache
def _service_schemas(service: str) -> tuple[dict[str, Any], ...]:
    return tuple(_schema(copy.deepcopy(function), "python") for function in _documents(service))


def _schema(function: dict[str, Any], language: str) -> dict[str, Any]:
    function["description"] += f" Note that the provided function is in {_HINTS[language]} syntax."
    properties = function["parameters"]["properties"]
    if language != "python":
        for parameter in properties.values():
            _in_words(parameter, _HINTS[language].split()[0])
    function["parameters"] = _converted(function["parameters"])
    if "response" in function:
        function["response"] = _converted(function["response"])
    return function


def _in_words(parameter: dict[str, Any], language: str) -> None:
    """Turn a parameter of another language into text: its type goes into its description."""
    kind = parameter["type"]
    of = f"{kind} type parameter" if kind != "any" else "parameter of any type"
    parameter["description"] += f" This is a {language} {of}, in string representation."
    if kind in ("ArrayList", "Array", "array"):
        parameter["description"] += f" The list elements are of type {parameter.pop('items')['type']}."
    if "properties" in parameter:
        parameter["description"] += f" The entries have this schema: {json.dumps(parameter.pop('properties'))}"
    parameter["type"] = "string"


_JSON_TYPES = {
    "integer": "integer",
    "number": "number",
    "float": "number",
    "double": "number",
    "string": "string",
    "String": "string",
    "char": "string",
    "any": "string",
    "Any": "string",
    "boolean": "boolean",
    "bool": "boolean",
    "array": "array",
    "list": "array",
    "tuple": "array",
    "dict": "object",
    "object": "object",
    "byte": "integer",
    "short": "integer",
    "long": "integer",
}
"""Upstream: `GORILLA_TO_OPENAPI`; a type that is not here is a string, as there."""


def _converted(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with JSON Schema's type names, all the way down."""
    changed = dict(schema)
    if "type" in schema or "properties" not in schema:
        changed["type"] = _JSON_TYPES.get(schema.get("type", "string"), "string")
    if isinstance(schema.get("properties"), dict):
        changed["properties"] = {name: _converted(inner) for name, inner in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        changed["items"] = _converted(schema["items"])
    return changed
