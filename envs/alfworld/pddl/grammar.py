"""A grammar file (TextWorld's .twl2). Invariant: reading it is pure; a text is compiled once, however many grammars hold it, so
that games which differ in the task sentence alone share everything else.

Source of the notation: `textworld/envs/pddl/textgen/textgen.ebnf` and `logic/logic.ebnf`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from cotbench.errors import GameFileError

_SKIP = re.compile(r"(?:\s+|#[^\n]*)*")
_NAME = re.compile(r"[\w/-]+")
_STRING = re.compile(r'"([^"]*)"')
_BLOCK = re.compile(r'"""(.*?)"""', re.DOTALL)

_MARGIN = re.compile(r"(?:[\t]|//[^\n]*\n?|\s+)*")
"""Skipped by upstream's parser before the first symbol: a text never begins with white space."""
_SYMBOL = re.compile(
    r"""\t*(?:
      (?P<list>\[)?
        \{(?:\#(?P<inner>[\w()/!<>\-\s,.]+)\#|(?P<value>[^|\[\]{}\n<>]+))(?:\s*\|\s*+(?P<given>[^;|{}\n\[\]\#]+))?\}
        (?(list)\])
      |\#(?P<rule>[\w()/!<>\-\s,.]+)\#
      |"(?P<quoted>[^;|"<>\[\]\#{}]*)"
      |(?P<literal>[^;|"<>\[\]\#{}]+)
    )""",
    re.VERBOSE,
)
_ATOM = re.compile(r"\s*(!?[\w/]+)\s*\(([^()]*)\)\s*(&|$)")
_PLACEHOLDER = re.compile(r"\s*([\w']+)\s*(?::\s*([\w/-]+)\s*)?")


@dataclass(frozen=True, slots=True)
class Symbol:
    """Piece of a text.

    Attributes:
        kind: "literal" (`text` itself), "rule" (the text of the rule named `text`) or "value" (the value of the expression
            `text`).
        text: see `kind`.
        given: the query over whose answers the piece is repeated, or "".
        listed: whether the repetitions are joined to a list.
    """

    kind: str
    text: str
    given: str = ""
    listed: bool = False


Text = tuple[Symbol, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One case of a rule: where `condition` has an answer (or is ""), its text is `text`."""

    condition: str
    text: Text


@dataclass(frozen=True, slots=True)
class Wording:
    """Texts of an action: its command, and the feedback after it."""

    command: Text
    feedback: Text


@dataclass(frozen=True, slots=True)
class Grammar:
    """Rules by name, and the wording of each action by its lower-case name."""

    rules: dict[str, tuple[Rule, ...]]
    actions: dict[str, Wording]


@dataclass(frozen=True, slots=True)
class Atom:
    """Predicate of a query over placeholders, each a (name, type)."""

    predicate: str
    placeholders: tuple[tuple[str, str], ...]


@lru_cache(maxsize=64)
def compile_grammar(text: str) -> Grammar:
    """Return the grammar that a text describes.

    Raises:
        GameFileError: not a grammar, with the line.
    """
    blocks: dict[str, Any] = {}
    actions: dict[str, Wording] = {}
    position = _skip(text, 0)
    while position < len(text):
        word, position = _name(text, position)
        if word == "grammar":
            block, position = _field(text, position, _BLOCK)
            blocks.update(_json(block, text, position))
        elif word == "action":
            name, position = _name(text, position)
            fields: dict[str, str] = {}
            position = _expect(text, position, "{")
            while not text.startswith("}", position):
                field, position = _name(text, position)
                if field not in ("template", "feedback", "pddl", "grammar"):
                    _refuse(text, position, f"unknown field {field!r} of action {name!r}")
                fields[field], position = _field(text, position, _STRING if field in ("template", "feedback") else _BLOCK)
            if "grammar" in fields:
                lines = [line for line in fields["grammar"].split("\n") if not line.lstrip().startswith("#")]
                blocks.update(_json("\n".join(lines), text, position))
            position = _expect(text, position, "}")
            if "template" not in fields or "feedback" not in fields:
                _refuse(text, position, f"action {name!r} lacks a template or a feedback")
            actions[name.lower()] = Wording(parse_text(fields["template"]), parse_text(fields["feedback"]))
        else:
            _refuse(text, position, f"'action' or 'grammar' expected, not {word!r}")
    return Grammar({name: _rules(name, rules) for name, rules in blocks.items()}, actions)


@lru_cache(maxsize=8192)
def parse_text(text: str) -> Text:
    """Return the symbols of a text. As upstream, stop without an error where no symbol can be read."""
    symbols: list[Symbol] = []
    margin = _MARGIN.match(text)
    position = margin.end() if margin else 0
    while found := _SYMBOL.match(text, position):
        position = found.end()
        given = found["given"] or ""
        if found["literal"] is not None or found["quoted"] is not None:
            symbols.append(Symbol("literal", found["literal"] or found["quoted"] or ""))
        elif found["rule"] is not None:
            symbols.append(Symbol("rule", found["rule"]))
        else:
            kind = "rule" if found["inner"] is not None else "value"
            symbols.append(Symbol(kind, found["inner"] or found["value"], given, found["list"] is not None))
    return tuple(symbols)


@lru_cache(maxsize=4096)
def parse_query(text: str) -> tuple[Atom, ...]:
    """Return the atoms of a query, `p(a:t, b) & q(b)`; a placeholder without a type has the type of its own name.

    Raises:
        GameFileError: not a query.
    """
    atoms = []
    position, more = 0, True
    while more:
        found = _ATOM.match(text, position)
        if found is None:
            raise GameFileError(f"grammar: {text[:80]!r} is not a query")
        placeholders = []
        for part in found[2].split(",") if found[2].strip() else ():
            placeholder = _PLACEHOLDER.fullmatch(part)
            if placeholder is None:
                raise GameFileError(f"grammar: {part!r} in {text!r} is not a placeholder")
            placeholders.append((placeholder[1], placeholder[2] or placeholder[1].rstrip("'")))
        predicate = f"not_{found[1][1:]}" if found[1].startswith("!") else found[1]
        atoms.append(Atom(predicate, tuple(placeholders)))
        position, more = found.end(), found[3] == "&"
    if position != len(text):
        raise GameFileError(f"grammar: {text[:80]!r} is not a query")
    kinds: dict[str, str] = {}
    for name, kind in (placeholder for atom in atoms for placeholder in atom.placeholders):
        if kinds.setdefault(name, kind) != kind:
            raise GameFileError(f"grammar: {name!r} is of two types in the query {text[:80]!r}")
    return tuple(atoms)


def _rules(name: str, rules: Any) -> tuple[Rule, ...]:
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and isinstance(rule.get("rhs"), str) for rule in rules):
        raise GameFileError(f'grammar: rule {name!r} is not a list of {{"rhs": "…"}}')
    return tuple(_rule(str(rule.get("condition") or ""), rule["rhs"]) for rule in rules)


@lru_cache(maxsize=8192)
def _rule(condition: str, text: str) -> Rule:
    return Rule(condition, parse_text(text))


def _json(block: str, text: str, position: int) -> dict[str, Any]:
    try:
        data = json.loads(block)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        _refuse(text, position, f"a grammar block that ends here is not JSON ({reason})")
    if not isinstance(data, dict):
        _refuse(text, position, "a grammar block that ends here is not a JSON object")
    return data


def _field(text: str, position: int, pattern: re.Pattern[str]) -> tuple[str, int]:
    position = _expect(text, position, "::")
    found = pattern.match(text, position)
    if found is None:
        _refuse(text, position, "a quoted text expected")
    return found[1], _expect(text, _skip(text, found.end()), ";")


def _name(text: str, position: int) -> tuple[str, int]:
    found = _NAME.match(text, position)
    if found is None:
        _refuse(text, position, "a name expected")
    return found[0], _skip(text, found.end())


def _expect(text: str, position: int, sign: str) -> int:
    if not text.startswith(sign, position):
        _refuse(text, position, f"{sign!r} expected")
    return _skip(text, position + len(sign))


def _skip(text: str, position: int) -> int:
    found = _SKIP.match(text, position)
    return found.end() if found else position


def _refuse(text: str, position: int, reason: str) -> NoReturn:
    line = text.count("\n", 0, position) + 1
    raise GameFileError(f"grammar, line {line}: {reason}")
