"""Normal form of PDDL conditions. Invariant: a condition is a tuple of conjunctions of which one must hold; variables are
unique within it, quantifiers are gone, and derived predicates are replaced by what defines them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from cotbench.envs.alfworld.pddl.sexpr import Node, refuse, typed_list

MAX_ALTERNATIVES = 512
MAX_LITERALS = 1000

Variables = tuple[tuple[str, str], ...]
"""Names (with their ?) and types."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Predicate over terms, or its negation. The predicate "=" is equality. Terms that begin with ? are variables.

    A literal is `derived` if it comes from the definition of a derived predicate instead of the condition's own text.
    """

    predicate: str
    terms: tuple[str, ...]
    positive: bool = True
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """Negated existence: no assignment of `variables` makes one of the conjunctions true."""

    variables: Variables
    alternatives: tuple[Conjunction, ...]


@dataclass(frozen=True, slots=True)
class Conjunction:
    """Existential conjunction: there are `variables` such that all literals and all absences hold."""

    variables: Variables = ()
    literals: tuple[Literal, ...] = ()
    absent: tuple[Absent, ...] = ()

    def __and__(self, other: Conjunction) -> Conjunction:
        """Return the conjunction that holds where both hold."""
        return Conjunction(
            tuple(dict.fromkeys(self.variables + other.variables)),
            tuple(dict.fromkeys(self.literals + other.literals)),
            tuple(dict.fromkeys(self.absent + other.absent)),
        )


Condition = tuple[Conjunction, ...]
TRUE: Condition = (Conjunction(),)


@dataclass(frozen=True, slots=True)
class Derived:
    """Definition of a derived predicate."""

    parameters: Variables
    body: Node


def predicates_of(condition: Condition) -> frozenset[str]:
    """Return the predicates that a condition depends on, those inside absences included, "=" not."""
    found = {literal.predicate for conjunction in condition for literal in conjunction.literals}
    for conjunction in condition:
        for absent in conjunction.absent:
            found |= predicates_of(absent.alternatives)
    return frozenset(found - {"="})


class Reader:
    """Converter of one domain's conditions into normal form.

    Args:
        arities: the number of arguments of each declared predicate.
        derived: the definitions of derived predicates.
        constants: the names that may stand for objects; None allows every name.
    """

    def __init__(
        self,
        arities: Mapping[str, int],
        derived: Mapping[str, Derived],
        constants: Mapping[str, str] | None = None,
    ) -> None:
        self._arities = arities
        self._derived = derived
        self._constants = constants
        self._fresh = 0
        self._open: list[str] = []
        self._expanded: dict[tuple[Literal, bool], Condition] = {}

    def condition(self, node: Node, names: Mapping[str, str], negated: bool = False) -> Condition:
        """Return the normal form of a condition.

        Args:
            node: the condition's PDDL.
            names: variables in scope -> the term that stands for each.
            negated: whether the opposite is meant.

        Raises:
            GameFileError: a feature outside the supported subset, an unknown predicate, variable or type.
        """
        if not node:
            return () if negated else TRUE
        head = node.head()
        if head == "not":
            return self.condition(self._only(node), names, not negated)
        if head in ("and", "or"):
            parts = [self.condition(self._node(part, node), names, negated) for part in node[1:]]
            return self._all(parts, node) if (head == "and") != negated else sum(parts, ())
        if head == "imply":
            if len(node) != 3:
                refuse(node, "(imply …) takes two conditions")
            parts = [
                self.condition(self._node(node[1], node), names, not negated),
                self.condition(self._node(node[2], node), names, negated),
            ]
            return self._all(parts, node) if negated else sum(parts, ())
        if head in ("exists", "forall"):
            return self._quantified(node, names, negated)
        return self._atom(node, names, negated)

    def variables(self, node: object, owner: Node, names: Mapping[str, str]) -> tuple[Variables, dict[str, str]]:
        """Return the variables that a typed list declares, renamed to be unique, and the scope extended by them.

        Args:
            node: the typed list.
            owner: the node to point at in an error.
            names: variables in scope -> the term that stands for each.

        Raises:
            GameFileError: not a list of variables.
        """
        if not isinstance(node, Node):
            refuse(owner, "a list of variables expected")
        scope = dict(names)
        declared: list[tuple[str, str]] = []
        # An undeclared type is no error: upstream takes it for one that nothing has. The alfred domain relies on it (its
        # "?l - location, ?r - receptacle" declares a type "location,"): with commas mended, more commands would be admissible.
        for name, kind in typed_list(node, node):
            if not name.startswith("?"):
                refuse(node, f"{name!r} is not a variable")
            self._fresh += 1
            scope[name] = f"{name}@{self._fresh}"
            declared.append((scope[name], kind))
        return tuple(declared), scope

    def literal(self, node: Node, names: Mapping[str, str]) -> Literal:
        """Return a positive literal over terms.

        Args:
            node: a predicate with its arguments.
            names: variables in scope -> the term that stands for each.

        Raises:
            GameFileError: an unknown predicate, variable or object, or a wrong number of arguments.
        """
        head = node.head()
        arity = 2 if head == "=" else self._arities.get(head)
        if arity is None:
            refuse(node, f"unsupported PDDL feature or undeclared predicate: ({head or '…'} …)")
        if arity != len(node) - 1:
            refuse(node, f"{head!r} takes {arity} arguments, not {len(node) - 1}")
        terms = []
        for term in node[1:]:
            if isinstance(term, Node):
                refuse(term, f"unsupported PDDL feature: ({term.head()} …) as an argument")
            if term.startswith("?") and term not in names:
                refuse(node, f"unknown variable {term}")
            if not term.startswith("?") and self._constants is not None and term not in self._constants:
                refuse(node, f"unknown object {term!r}")
            terms.append(names.get(term, term))
        return Literal(head, tuple(terms))

    def _atom(self, node: Node, names: Mapping[str, str], negated: bool) -> Condition:
        literal = self.literal(node, names)
        definition = self._derived.get(literal.predicate)
        if definition is None:
            return (Conjunction(literals=(Literal(literal.predicate, literal.terms, not negated),)),)
        # Expanded once and cached: definitions that use each other twice would otherwise double at each level.
        known = self._expanded.get((literal, negated))
        if known is not None:
            return known
        if literal.predicate in self._open:
            refuse(node, f"unsupported PDDL feature: recursive derived predicate {literal.predicate!r}")
        self._open.append(literal.predicate)
        scope = {name: term for (name, _), term in zip(definition.parameters, literal.terms, strict=True)}
        condition = tuple(
            replace(part, literals=tuple(replace(item, derived=True) for item in part.literals))
            for part in self.condition(definition.body, scope, negated)
        )
        self._open.pop()
        self._expanded[literal, negated] = condition
        return condition

    def _quantified(self, node: Node, names: Mapping[str, str], negated: bool) -> Condition:
        if len(node) != 3:
            refuse(node, f"({node.head()} …) takes variables and one condition")
        declared, scope = self.variables(node[1], node, names)
        body = self._node(node[2], node)
        if (node.head() == "exists") != negated:
            return tuple(Conjunction(declared) & part for part in self.condition(body, scope, negated))
        return (Conjunction(absent=(Absent(declared, self.condition(body, scope, not negated)),)),)

    def _all(self, parts: Sequence[Condition], node: Node) -> Condition:
        count = 1
        for part in parts:
            count *= len(part)
        if count > MAX_ALTERNATIVES:
            refuse(node, f"a condition with {count} alternatives (at most {MAX_ALTERNATIVES} are supported)")
        result = []
        for choice in product(*parts):
            conjunction = Conjunction()
            for piece in choice:
                conjunction = conjunction & piece
            if len(conjunction.literals) > MAX_LITERALS:
                refuse(node, f"a condition with more than {MAX_LITERALS} literals")
            result.append(conjunction)
        return tuple(result)

    @staticmethod
    def _node(part: object, owner: Node) -> Node:
        if not isinstance(part, Node):
            refuse(owner, f"a condition expected, not {part!r}")
        return part

    def _only(self, node: Node) -> Node:
        if len(node) != 2:
            refuse(node, f"({node.head()} …) takes one condition")
        return self._node(node[1], node)
