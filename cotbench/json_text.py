"""JSON text that comes from outside. Invariant: what is read here can be written again and means one thing: no lone half of a
surrogate pair, which no file can hold, and no key that stands twice in an object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the text, or its bytes in UTF-8.

    Raises:
        ValueError: not UTF-8, not JSON, a key that stands twice, or a lone surrogate; the message names its place.
    """
    if isinstance(text, bytes):  # json.loads would let encoded surrogates pass.
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    if "\\u" in text or not _encodable(text):
        place = lone_surrogate(value)
        if place is not None:
            raise ValueError(f"{place or 'it'} holds a lone surrogate, which is not a character")
    return value


def lone_surrogate(value: Any) -> str | None:
    """Return the place of the first text in JSON data that cannot be encoded, such as `messages.0.content`; "" for the value
    itself, None where there is none.
    """
    return next((place for place, text in _texts(value, "") if not _encodable(text)), None)


def repeated_name(pairs: Sequence[tuple[str, Any]]) -> str | None:
    """Return the first name that stands twice among the fields of an object; None where each stands once."""
    if len(dict(pairs)) == len(pairs):  # Nearly always: then the loop would only cost time.
        return None
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return None


def replace_surrogates(value: Any) -> Any:
    """Return JSON data with a question mark in the place of each lone surrogate."""
    if isinstance(value, str):
        return value if _encodable(value) else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {replace_surrogates(key): replace_surrogates(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(replace_surrogates, value)) if type(value) in (list, tuple) else value
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield each text in JSON data with its place; a key stands where its object does."""
    waiting = [(place, value)]
    while waiting:
        here, one = waiting.pop()
        if isinstance(one, str):
            yield here, one
        elif isinstance(one, dict):
            yield from ((f"a name in {here or 'it'}", name) for name in one)
            waiting += [(f"{here}.{name}" if here else name, inner) for name, inner in reversed(one.items())]
        elif isinstance(one, list | tuple):
            waiting += [(f"{here}.{index}" if here else str(index), inner) for index, inner in reversed(list(enumerate(one)))]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    name = repeated_name(pairs)
    if name is not None:
        raise ValueError(f"the key {name!a} occurs twice in one object")
    return dict(pairs)
