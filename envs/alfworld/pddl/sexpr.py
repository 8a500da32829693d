"""Parsing of parenthesised text. Invariant: every node knows the line on which it opens, so that errors can name it."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from cotbench.errors import GameFileError

_WORD = re.compile(r"[()\n]|\??[^\s()?]+|\?")
_COMMENT = re.compile(r";[^\n]*")


class Node(list[Any]):
    """List of names and further nodes.

    Attributes:
        line: where it opens, counted from 1.
        what: which text it is part of ("domain", "problem").
    """

    __slots__ = ("line", "what")

    def __init__(self, line: int, what: str) -> None:
        super().__init__()
        self.line = line
        self.what = what

    def head(self) -> str:
        """Return the first element if it is a name, else ""."""
        return self[0] if self and isinstance(self[0], str) else ""


def read(text: str, what: str) -> Node:
    """Return the one node that a text holds, in lower case (PDDL ignores case), without comments.

    Args:
        text: PDDL.
        what: the kind of text, for messages ("PDDL domain").

    Raises:
        GameFileError: brackets do not match, or there is not exactly one node.
    """
    line = 1
    top = Node(1, what)
    node, stack = top, []
    for word in _WORD.findall(_COMMENT.sub("", text.lower())):
        if word == "(":
            inner = Node(line, what)
            node.append(inner)
            stack.append(node)
            node = inner
        elif word == ")":
            if not stack:
                raise GameFileError(f"{what}, line {line}: unmatched )")
            node = stack.pop()
        elif word == "\n":
            line += 1
        else:
            node.append(word)
    if stack:
        raise GameFileError(f"{what}, line {node.line}: ( is never closed")
    if len(top) != 1 or not isinstance(top[0], Node):
        raise GameFileError(f"{what}: one (define …) expected")
    return top[0]


def refuse(node: Node, reason: str) -> NoReturn:
    """Raise an error that says what is wrong with a node, and in which line.

    Args:
        node: where the error is.
        reason: what is wrong.

    Raises:
        GameFileError: always.
    """
    raise GameFileError(f"{node.what}, line {node.line}: {reason}")


def typed_list(names: list[Any], owner: Node) -> list[tuple[str, str]]:
    """Return `a b - t c` as [(a, t), (b, t), (c, "object")].

    Args:
        names: names, and types after dashes.
        owner: the node to point at in an error.

    Raises:
        GameFileError: a type is missing or is not a plain name.
    """
    result: list[tuple[str, str]] = []
    waiting: list[str] = []
    position = 0
    while position < len(names):
        name = names[position]
        if isinstance(name, Node):
            refuse(name, f"a name expected, not ({name.head()} …)")
        if name == "-":
            kind = names[position + 1] if position + 1 < len(names) else None
            if isinstance(kind, Node):
                refuse(kind, f"unsupported PDDL feature: type ({kind.head()} …)")
            if kind is None:
                refuse(owner, "a type is missing after -")
            result.extend((waited, kind) for waited in waiting)
            waiting = []
            position += 2
        else:
            waiting.append(name)
            position += 1
    result.extend((waited, "object") for waited in waiting)
    return result
