"""The API's schema as a page for readers. Invariant: pure; the page is made from the schema alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter, with what it may be."""

    name: str
    where: str
    kind: str
    about: str
    required: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: status, what it means, what it holds."""

    status: str
    about: str
    kind: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address."""

    method: str
    path: str
    title: str
    about: str
    body: str
    parameters: tuple[Parameter, ...]
    answers: tuple[Answer, ...]

    @property
    def anchor(self) -> str:
        """Return its anchor on the page."""
        words = "".join(letter if letter.isalnum() else " " for letter in f"{self.method} {self.path}".lower())
        return "-".join(words.split())


def operations(schema: dict[str, Any]) -> tuple[Operation, ...]:
    """Return the operations of an OpenAPI schema, in its order."""
    return tuple(
        _operation(method, path, operation) for path, item in schema["paths"].items() for method, operation in item.items()
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> Operation:
    body = operation.get("requestBody", {}).get("content", {})
    return Operation(
        method=method.upper(),
        path=path,
        title=operation["summary"],
        about=operation.get("description", ""),
        body=", ".join(body),
        parameters=tuple(map(_parameter, operation.get("parameters", ()))),
        answers=tuple(_answer(status, answer) for status, answer in operation["responses"].items()),
    )


def _parameter(parameter: dict[str, Any]) -> Parameter:
    return Parameter(
        parameter["name"],
        parameter["in"],
        _kind(parameter["schema"]),
        parameter.get("description", ""),
        parameter.get("required", False),
    )


def _answer(status: str, answer: dict[str, Any]) -> Answer:
    kinds = [
        f"{media}, {name}" if (name := _kind(content.get("schema", {}))) not in ("", "text") else media
        for media, content in answer.get("content", {}).items()
    ]
    return Answer(status, answer["description"], "; ".join(kinds))


def _kind(schema: dict[str, Any]) -> str:
    """Describe a schema in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(filter(None, (_kind(one) for one in schema["anyOf"] if one.get("type") != "null")))
    usual = f", {schema['default']} unless given" if schema.get("default") not in (None, "") else ""
    if "enum" in schema:
        return f"one of {' '.join(map(str, schema['enum']))}{usual}"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    kind = {"string": "text", "integer": "whole number"}.get(schema.get("type", ""), str(schema.get("type", "")))
    if "minimum" in schema and "maximum" in schema:
        kind += f", {schema['minimum']:,} to {schema['maximum']:,}"
    if "maxLength" in schema:
        kind += f" of at most {schema['maxLength']} characters"
    return kind + usual
