"""A planning domain. Invariant: a `Domain` is immutable and independent of any game, so that all games with the same domain
text share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cotbench.envs.alfworld.pddl.conditions import TRUE, Condition, Derived, Reader, Variables
from cotbench.envs.alfworld.pddl.sexpr import Node, read, refuse, typed_list
from cotbench.envs.alfworld.pddl.types import Types

_SECTIONS = (":requirements", ":types", ":constants", ":predicates", ":functions", ":derived", ":action")
"""Sections that are accepted. Functions are ignored: costs guide a planner, no text and no command depends on them."""

_REQUIREMENTS = frozenset(
    (":strips", ":adl", ":typing", ":negation", ":equality", ":conditional-effects", ":derived-predicates", ":action-costs")
) | {f":{kind}-preconditions" for kind in ("negative", "disjunctive", "existential", "universal", "quantified")}
"""Requirements that upstream's planner accepts."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect: for all `variables` for which `condition` holds beforehand, the predicate becomes true (or false) of the
    terms.
    """

    variables: Variables
    condition: Condition
    predicate: str
    terms: tuple[str, ...]
    positive: bool

    @property
    def unconditional(self) -> bool:
        """True if it happens in every state."""
        return self.condition == TRUE


@dataclass(frozen=True, slots=True)
class Schema:
    """Action with variables."""

    name: str
    parameters: Variables
    precondition: Condition
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class Domain:
    """Types, constants, predicates and actions.

    Attributes:
        arities: predicate -> number of arguments.
        fluents: the predicates that some action changes.
    """

    name: str
    types: Types
    constants: tuple[tuple[str, str], ...]
    arities: dict[str, int]
    derived: dict[str, Derived]
    schemas: tuple[Schema, ...]
    fluents: frozenset[str]

    def reader(self, objects: dict[str, str]) -> Reader:
        """Return a reader of conditions over the objects of a problem (name -> type)."""
        return Reader(self.arities, self.derived, objects)


@lru_cache(maxsize=16)
def compile_domain(text: str) -> Domain:
    """Return the domain that a PDDL text describes; compiled once for each text.

    Raises:
        GameFileError: not a domain, or a feature outside the supported subset, with its line.
    """
    node = read(text, "PDDL domain")
    if node.head() != "define" or len(node) < 2 or not isinstance(node[1], Node) or not _named(node[1], "domain"):
        refuse(node, "(define (domain …) …) expected")
    sections: dict[str, list[Node]] = {head: [] for head in _SECTIONS}
    for part in node[2:]:
        head = part.head() if isinstance(part, Node) else ""
        if head not in sections:
            refuse(part if isinstance(part, Node) else node, f"unsupported PDDL feature: ({head or '…'} …)")
        sections[head].append(part)
    for part in sections[":requirements"]:
        for requirement in part[1:]:
            if not isinstance(requirement, str) or requirement not in _REQUIREMENTS:
                refuse(part, f"unsupported PDDL feature: {requirement}")
    types = Types([pair for part in sections[":types"] for pair in typed_list(part[1:], part)])
    constants = [pair for part in sections[":constants"] for pair in typed_list(part[1:], part)]
    arities = _arities(sections[":predicates"])
    derived: dict[str, Derived] = {}
    for part in sections[":derived"]:
        _define(part, arities, derived)
    actions = sections[":action"]
    reader = Reader(arities, derived)
    schemas = tuple(schema for action in actions if (schema := _schema(action, reader, arities, derived)))
    fluents = frozenset(effect.predicate for schema in schemas for effect in schema.effects)
    return Domain(str(node[1][1]), types, tuple(constants), arities, derived, schemas, fluents)


def _arities(parts: list[Node]) -> dict[str, int]:
    arities: dict[str, int] = {}
    for part in parts:
        for declared in part[1:]:
            if not isinstance(declared, Node) or not declared.head():
                refuse(part, "a predicate with its arguments expected")
            arities[declared.head()] = len(typed_list(declared[1:], declared))
    return arities


def _named(node: Node, kind: str) -> bool:
    return len(node) == 2 and node.head() == kind and isinstance(node[1], str)


def _define(part: Node, arities: dict[str, int], derived: dict[str, Derived]) -> None:
    if len(part) != 3 or not isinstance(part[1], Node) or not isinstance(part[2], Node):
        refuse(part, "(:derived (predicate …) condition) expected")
    head = part[1].head()
    if head not in arities:
        refuse(part, f"undeclared predicate {head!r}")
    if len(part[1]) - 1 < arities[head] or len(typed_list(part[1][1:], part[1])) != arities[head]:
        refuse(part, f"{head!r} takes {arities[head]} arguments")
    if head in derived:
        refuse(part, f"unsupported PDDL feature: a second definition of {head!r}")
    derived[head] = Derived(tuple(typed_list(part[1][1:], part[1])), part[2])


def _schema(node: Node, reader: Reader, arities: dict[str, int], derived: dict[str, Derived]) -> Schema | None:
    if len(node) < 2 or not isinstance(node[1], str) or len(node) % 2:
        refuse(node, "(:action name :parameters … :precondition … :effect …) expected")
    name = node[1]
    fields = {str(key): field for key, field in zip(node[2::2], node[3::2], strict=True)}
    for key in fields:
        if key not in (":parameters", ":precondition", ":effect"):
            refuse(node, f"unsupported PDDL feature: {key} in action {name!r}")
    for key, field in fields.items():
        if not isinstance(field, Node):
            refuse(node, f"{key} of action {name!r} is not in brackets")
    parameters = tuple(typed_list(fields.get(":parameters", []), node))
    scope = {variable: variable for variable, _ in parameters}
    if any(not variable.startswith("?") for variable in scope):
        refuse(node, f"a parameter of action {name!r} is not a variable")
    precondition = reader.condition(fields[":precondition"], scope) if ":precondition" in fields else TRUE
    effects: list[Effect] = []
    if fields.get(":effect"):
        _effects(fields[":effect"], scope, (), TRUE, reader, effects)
    for effect in effects:
        if effect.predicate == "=":
            refuse(node, f"action {name!r} changes what equals what")
        if effect.predicate in derived:
            refuse(node, f"action {name!r} changes the derived predicate {effect.predicate!r}")
    # An action without effects does not exist, as in upstream.
    return Schema(name, parameters, precondition, tuple(dict.fromkeys(effects))) if effects else None


def _effects(
    node: Node, scope: dict[str, str], variables: Variables, condition: Condition, reader: Reader, into: list[Effect]
) -> None:
    match node.head():
        case "and":
            for part in node[1:]:
                if not isinstance(part, Node):
                    refuse(node, f"an effect expected, not {part!r}")
                _effects(part, scope, variables, condition, reader, into)
        case "forall" if len(node) == 3 and isinstance(node[2], Node):
            declared, inner = reader.variables(node[1], node, scope)
            _effects(node[2], inner, variables + declared, condition, reader, into)
        case "when" if len(node) == 3 and isinstance(node[1], Node) and isinstance(node[2], Node):
            if condition != TRUE:
                refuse(node, "unsupported PDDL feature: (when …) inside (when …)")
            _effects(node[2], scope, variables, reader.condition(node[1], scope), reader, into)
        case "increase":
            if not (len(node) == 3 and isinstance(node[1], Node) and node[1] == ["total-cost"]):
                refuse(node, "unsupported PDDL feature: (increase …) of anything but (total-cost)")
        case "not" if len(node) == 2 and isinstance(node[1], Node):
            literal = reader.literal(node[1], scope)
            into.append(Effect(variables, condition, literal.predicate, literal.terms, False))
        case _:
            literal = reader.literal(node, scope)
            into.append(Effect(variables, condition, literal.predicate, literal.terms, True))
