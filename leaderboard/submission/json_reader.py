"""Untrusted JSON. Invariant: what is read here means the same to every reader: UTF-8, no key twice, finite numbers of
bounded length, a bounded number of values; a refusal names the file, the line and the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from cotbench.errors import CotbenchError, SubmissionError
from cotbench.json_text import repeated_name
from cotbench.leaderboard.submission import limits

_STRING = re.compile(rb'"[^"]*"?')
"""A JSON string without escapes, or what is left of one at the end."""

M = TypeVar("M", bound=BaseModel)


def quote_value(value: object) -> str:
    """Return a submitted value for an error: quoted, on one line, cut."""
    text = value if isinstance(value, str) else str(value)
    return repr(text[: limits.QUOTED]) + ("…" if len(text) > limits.QUOTED else "")


def one_line(text: str) -> str:
    """Return a message from outside for an error: on one line, cut."""
    line = " ".join(text.split())
    plain = "".join(character if character.isprintable() else "?" for character in line[:300])
    return plain + ("…" if len(line) > 300 else "")


def read_object(text: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: its bytes.
        where: what to call it in an error: "manifest.json", "episodes.jsonl, line 3".

    Raises:
        SubmissionError: it is not JSON, not an object, too large, or says something twice.
    """
    _bounded(text, where)
    try:
        loaded = json.loads(
            text.decode("utf-8"), object_pairs_hook=_once, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
    except UnicodeDecodeError as error:
        raise SubmissionError(f"{where}: byte {error.start + 1} is not UTF-8") from error
    except _RefusedError as error:
        raise SubmissionError(f"{where}: {error}") from error
    except json.JSONDecodeError as error:
        raise SubmissionError(f"{where}: is not JSON ({error.msg} at character {error.pos + 1})") from error
    except RecursionError as error:
        raise SubmissionError(f"{where}: its values are nested too deeply") from error
    if not isinstance(loaded, dict):
        raise SubmissionError(f"{where}: is not a JSON object")
    return loaded


def read_model(model: type[M], text: bytes, where: str) -> M:
    """Parse a JSON object that `read_object` took as a model. Nothing is converted: "1" is no number.

    Args:
        model: the class.
        text: the object's bytes.
        where: what to call it in an error.

    Raises:
        SubmissionError: it does not fit; names the first field that does not.
    """
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        unknown = first["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        what = "is a field that this cotbench does not know" if unknown else first["msg"]
        raise SubmissionError(f"{where}: {one_line(place)}{': ' if place else ''}{one_line(what)}") from error
    except CotbenchError as error:
        raise SubmissionError(f"{where}: {one_line(str(error))}") from error


def require_fields(document: dict[str, Any], known: Sequence[str], where: str, optional: Sequence[str] = ()) -> None:
    """Refuse an object that lacks a field or has one more.

    Args:
        document: the object.
        known: its fields.
        where: what to call it in an error.
        optional: those of them that may be left out.

    Raises:
        SubmissionError: names it.
    """
    for name in document:
        if name not in known:
            raise SubmissionError(f"{where}: {quote_value(name)} is a field that this cotbench does not know")
    for name in known:
        if name not in document and name not in optional:
            raise SubmissionError(f"{where}: {name} is missing")


def require_format(document: dict[str, Any], known: int, where: str, oldest: int | None = None) -> None:
    """Refuse another format than the known ones.

    Args:
        document: the object.
        known: the newest format that is read.
        where: what to call it in an error.
        oldest: the oldest one that is read; the newest alone where left out.

    Raises:
        SubmissionError: a newer one, or none.
    """
    if "format" not in document:
        raise SubmissionError(f"{where}: format is missing")
    found = document["format"]
    if isinstance(found, int) and not isinstance(found, bool) and found > known:
        raise SubmissionError(f"{where}: has format {found}, this cotbench reads {known}: use a newer cotbench here")
    first = known if oldest is None else oldest
    if not isinstance(found, int) or isinstance(found, bool) or found < first:
        raise SubmissionError(f"{where}: format is {quote_value(found)}, not {known}")


class _RefusedError(Exception):
    """A value that may not stand there."""


def _bounded(text: bytes, where: str) -> None:
    """Count the values that a parser would make, before it makes them."""
    plain_text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Each value and its name are a string at most, of two quotes.
    many = plain_text.count(b'"') > 4 * limits.VALUES
    structure = b"" if many else _STRING.sub(b"", plain_text)
    if many or structure.count(b"{") + structure.count(b"[") > limits.CONTAINERS or structure.count(b",") > limits.VALUES:
        raise SubmissionError(f"{where}: holds too many values, more than an episode of {limits.STEPS:,} steps does")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    name = repeated_name(pairs)
    if name is not None:
        raise _RefusedError(f"the field {quote_value(name)} occurs twice")
    return dict(pairs)


def _integer(text: str) -> int:
    if len(text) > limits.NUMBER or abs(int(text)) >= limits.INTEGER:
        raise _RefusedError(f"holds a number that is too large: {quote_value(text)}")
    return int(text)


def _number(text: str) -> float:
    if len(text) > limits.NUMBER:
        raise _RefusedError(f"holds a number of too many digits: {quote_value(text)}")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _RefusedError(f"holds a number that is too large: {quote_value(text)}")
    return value


def _constant(text: str) -> NoReturn:
    raise _RefusedError(f"holds {text}, which is not a number")
