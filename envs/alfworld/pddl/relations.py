"""The facts of one predicate. Invariant: a relation never changes; a change makes a new one. So a state is a list of
references, a copy of it costs nothing, and an index stays valid for as long as the relation is in use.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cotbench.envs.alfworld.pddl.problem import Arguments

T = TypeVar("T")

State = list["Relation"]
"""One relation for each slot of a game."""


@dataclass(frozen=True)
class Lookup:
    """Way to index a relation: by the arguments at some positions, for the arguments at others.

    Attributes:
        number: tells lookups of one game apart.
        by: positions of the arguments that are given.
        wanted: positions of the arguments that are returned.
        members: for each wanted position the objects that may stand there; None allows all.
        equal: pairs of positions that must hold the same object.
        order: if given, the position of each object's type tuple in the order of the answer (types that are not named do not
            count), and within it answers are sorted by name; else the order is undefined.
        types: object -> type, for `order`.
    """

    number: int
    by: tuple[int, ...]
    wanted: tuple[int, ...]
    members: tuple[frozenset[str] | None, ...]
    equal: tuple[tuple[int, int], ...] = ()
    order: tuple[tuple[str, ...], ...] | None = None
    types: Mapping[str, str] = field(default_factory=dict, compare=False)


def split_terms(terms: Sequence[T], known: Container[T]) -> tuple[tuple[int, ...], dict[T, int], tuple[tuple[int, int], ...]]:
    """Return how an atom is looked up.

    Args:
        terms: the atom's terms.
        known: the terms whose values are given.

    Returns:
        The positions of the known terms, the first position of each other term, and the pairs of positions at which another
            term
        occurs twice.
    """
    by = tuple(position for position, term in enumerate(terms) if term in known)
    first: dict[T, int] = {}
    equal = []
    for position, term in enumerate(terms):
        if term not in known and first.setdefault(term, position) != position:
            equal.append((first[term], position))
    return by, first, tuple(equal)


class Relation:
    """Argument tuples of which a predicate holds, with the indexes built so far."""

    __slots__ = ("facts", "indexes")

    def __init__(self, facts: frozenset[Arguments]) -> None:
        self.facts = facts
        self.indexes: dict[int, dict[Any, list[Arguments]]] = {}

    def index(self, lookup: Lookup) -> dict[Any, list[Arguments]]:
        """Return given arguments -> the tuples of the wanted ones. One given argument is itself the key, several are a
        tuple.

        Args:
            lookup: numbered by `Planner.lookup`.
        """
        table = self.indexes.get(lookup.number)
        # Two threads may build the same table at the same time; both build the same.
        if table is None:
            table = self.indexes[lookup.number] = self._build(lookup)
        return table

    def changed(self, removed: set[Arguments], added: set[Arguments]) -> Relation:
        """Return the relation after a change; additions win. Itself if nothing changes.

        Args:
            removed: argument tuples that no longer hold.
            added: argument tuples that hold from now on.
        """
        facts = (self.facts - removed) | added
        return self if facts == self.facts else Relation(facts)

    def _build(self, lookup: Lookup) -> dict[Any, list[Arguments]]:
        table: dict[Any, list[Arguments]] = {}
        wanted, by = lookup.wanted, lookup.by
        single = by[0] if len(by) == 1 else None
        for fact in self.facts if lookup.order is None else self._ordered(lookup.order, lookup.types):
            if lookup.equal and any(fact[left] != fact[right] for left, right in lookup.equal):
                continue
            answer = tuple([fact[position] for position in wanted])
            if any(members is not None and name not in members for name, members in zip(answer, lookup.members, strict=True)):
                continue
            key = fact[single] if single is not None else tuple([fact[position] for position in by])
            table.setdefault(key, []).append(answer)
        return table

    def _ordered(self, order: tuple[tuple[str, ...], ...], types: Mapping[str, str]) -> list[Arguments]:
        by_types: dict[tuple[str, ...], list[Arguments]] = {}
        for fact in self.facts:
            by_types.setdefault(tuple([types[name] for name in fact]), []).append(fact)
        return [fact for kinds in order for fact in sorted(by_types.get(kinds, ()))]
