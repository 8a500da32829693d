"""Parsing of calls in Java or JavaScript. Invariant: every value is the text of a value in that language, quotes around a plain
string taken away, as upstream's parsers deliver them to the checker.

Upstream reads such answers with tree-sitter; here brackets and quotes are scanned, since only the beginning and the end of an
argument are needed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from cotbench.envs.bfcl.calls import Call, UnreadableError, call_nodes, read, unreadable_otherwise

_CALL = re.compile(r"\s*(?:[A-Za-z_$][\w$]*\s*\.\s*)*[A-Za-z_$][\w$]*\s*\(")
_ARGUMENT = re.compile(r"\s*([A-Za-z_$][\w$]*)\s*=(?!=)")
_OPENING, _CLOSING = "([{", ")]}"


def read_source(text: str) -> list[Call]:
    """Return the calls of an answer to a Java or JavaScript task.

    Values may be strings that hold source text, or the source text itself.

    Raises:
        UnreadableError: it is no call.
    """
    try:
        answer = read(text)
    except UnreadableError:
        return [_scanned(text.strip("`\n "))]
    with unreadable_otherwise():
        if answer.as_json:
            return [{name: {k: _text(v) for k, v in inner.items()} for name, inner in call.items()} for call in answer.calls]
        nodes = call_nodes(text)
        return [
            {name: {keyword.arg: _source(keyword.value) for keyword in node.keywords} for name in call}
            for call, node in zip(answer.calls, nodes, strict=True)
        ]


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _source(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def _scanned(text: str) -> Call:
    text = text.removeprefix("[").removesuffix("]").strip().removesuffix(";")
    head = _CALL.match(text)
    if head is None or not text.endswith(")"):
        raise UnreadableError("not a call")
    arguments: dict[str | None, str] = {}
    for piece in _arguments(text[head.end() : -1]):
        named = _ARGUMENT.match(piece)
        if named is None:
            continue  # A positional argument: the checker has no place for it, and upstream drops most of them.
        if named[1] in arguments:
            raise UnreadableError(f"the argument {named[1]} is given twice")
        arguments[named[1]] = _unquoted(piece[named.end() :].strip())
    return {re.sub(r"\s", "", head[0])[:-1]: arguments}


def _arguments(text: str) -> Iterator[str]:
    """Yield the arguments: cut at the commas outside brackets and quotes after which a new name and `=` follow.

    Raises:
        UnreadableError: brackets or quotes do not match.
    """
    start, place, open_brackets = 0, 0, list[str]()
    while place < len(text):
        sign = text[place]
        if sign in "\"'`":
            place = _end_of_string(text, place)
        elif sign in _OPENING:
            open_brackets.append(_CLOSING[_OPENING.index(sign)])
        elif sign in _CLOSING and (not open_brackets or open_brackets.pop() != sign):
            raise UnreadableError(f"a {sign} too many")
        elif sign == "," and not open_brackets and _ARGUMENT.match(text, place + 1):
            yield text[start:place]
            start = place + 1
        place += 1
    if open_brackets:
        raise UnreadableError(f"a {open_brackets[-1]} is missing")
    if text[start:].strip():
        yield text[start:]


def _end_of_string(text: str, start: int) -> int:
    """Return where the string that begins at `start` has its closing quote."""
    place = start + 1
    while place < len(text) and text[place] != text[start]:
        place += 2 if text[place] == "\\" else 1
    if place >= len(text):
        raise UnreadableError("a quote is missing")
    return place


def _unquoted(value: str) -> str:
    if not value:
        raise UnreadableError("an argument without a value")
    quoted = value[0] in "\"'" and len(value) > 1 and _end_of_string(value, 0) == len(value) - 1
    return value[1:-1] if quoted else value
