"""Values in a grammar's braces. Invariant: a game file is data: of the Python expressions that upstream hands to `eval`, only
names, their fields, string constants, + and `or`/`and` are read, and everything else is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cotbench.errors import GameFileError


@dataclass(frozen=True, slots=True)
class Entity:
    """Thing as texts speak of it (`textworld.generator.game.EntityInfo`)."""

    id: str
    type: str
    name: str

    def __str__(self) -> str:
        return self.name


_ALWAYS = {"definite": "the", "indefinite": "a"}
_NEVER = frozenset(("noun", "adj", "desc", "room_type", "synonyms"))
"""Fields that upstream has and never fills in games of this format."""


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> ast.expr:
    """Return the checked syntax tree of an expression.

    Raises:
        GameFileError: not an expression, or one outside the subset.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise GameFileError(f"grammar: {text[:80]!r} in braces is not an expression") from None
    for node in ast.walk(tree):
        if not _allowed(node):
            raise GameFileError(f"grammar: unsupported feature {type(node).__name__} in the expression {text[:80]!r}")
    return tree


Value = Callable[[Mapping[str, Entity]], object]
"""Value of an expression, as a function of name -> entity."""


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Value:
    """Return the value of an expression as a function of name -> entity.

    The function raises `GameFileError` for a name that stands for nothing and for an addition of something that is no text.

    Raises:
        GameFileError: not an expression, or one outside the subset.
    """
    return _compiled(parse_expression(text))


def names_in(text: str) -> frozenset[str]:
    """Return the names that an expression contains."""
    return frozenset(node.id for node in ast.walk(parse_expression(text)) if isinstance(node, ast.Name))


def _compiled(tree: ast.expr) -> Value:
    match tree:
        case ast.Attribute(value=ast.Name(id=name), attr=field):
            if field in _NEVER or field in _ALWAYS:
                constant = _ALWAYS.get(field)
                return lambda entities: (_entity(name, entities), constant)[1]
            return lambda entities: getattr(entities[name] if name in entities else _entity(name, entities), field)
        case ast.Name(id=name):
            return lambda entities: _entity(name, entities)
        case ast.Constant(value=value):
            return lambda entities: value
        case ast.BinOp(left=left, right=right):
            first, second = _compiled(left), _compiled(right)
            return lambda entities: _joined(first(entities), second(entities))
        case ast.BoolOp(op=operator, values=values):
            parts, stop = [_compiled(part) for part in values], isinstance(operator, ast.Or)
            return lambda entities: _first(parts, stop, entities)
    raise AssertionError(ast.dump(tree))


def _joined(first: object, second: object) -> str:
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    raise GameFileError(f"grammar: + of {str(first)[:40]!r} and {str(second)[:40]!r}")


def _first(parts: Sequence[Value], stop: bool, entities: Mapping[str, Entity]) -> object:
    value: object = None
    for part in parts:
        value = part(entities)
        if bool(value) is stop:
            break
    return value


def _allowed(node: ast.AST) -> bool:
    match node:
        case ast.Name() | ast.Load() | ast.And() | ast.Or() | ast.Add() | ast.BoolOp() | ast.Constant(value=str()):
            return True
        case ast.BinOp(op=ast.Add()):
            return True
        case ast.Attribute(value=ast.Name(), attr=field):
            return field in ("id", "type", "name") or field in _ALWAYS or field in _NEVER
    return False


def _entity(name: str, entities: Mapping[str, Entity]) -> Entity:
    entity = entities.get(name)
    if entity is None:
        raise GameFileError(f"grammar: {name!r} stands for nothing here")
    return entity
