"""Queries for the objects that make a condition true. Invariant: a query is planned once for a game and run on any of its
states; rows that share a prefix share its work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from cotbench.envs.alfworld.pddl.conditions import Absent, Condition, Conjunction, Literal
from cotbench.envs.alfworld.pddl.problem import Arguments
from cotbench.envs.alfworld.pddl.relations import Lookup, State, split_terms
from cotbench.envs.alfworld.pddl.types import Types

Bindings = tuple[str, ...]
JoinStep = Callable[[State, list[Bindings]], list[Bindings]]
"""One step of a join: returns the rows extended by new variables, or filtered."""


class Planner:
    """Planner of the queries of one game.

    Args:
        types: the domain's types.
        objects: name -> type.
        slots: predicate -> its place in a state.
        sizes: the number of facts of each slot at first, to look into small relations first.
    """

    def __init__(self, types: Types, objects: Mapping[str, str], slots: Mapping[str, int], sizes: Sequence[int]) -> None:
        self._objects = objects
        self._slots = slots
        self._sizes = sizes
        self._types = types
        self._numbers = count(1)
        self._lookups: dict[Lookup, Lookup] = {}
        self._members: dict[str, frozenset[str]] = {}

    def members(self, kind: str) -> frozenset[str]:
        """Return the objects of a type or of a type below it."""
        known = self._members.get(kind)
        if known is None:
            below = self._types.members(kind)
            known = self._members[kind] = frozenset(name for name, own in self._objects.items() if own in below)
        return known

    def lookup(self, lookup: Lookup) -> Lookup:
        """Return the same lookup, numbered; equal ones get the same number and so share their tables.

        Args:
            lookup: of any number.
        """
        return self._lookups.setdefault(lookup, replace(lookup, number=next(self._numbers)))

    def query(self, condition: Condition, given: Sequence[str], parameters: Mapping[str, str], wanted: Sequence[str]) -> Query:
        """Return a query for the `wanted` variables.

        Args:
            condition: what must hold.
            given: the variables whose values are arguments of the query, in order.
            parameters: all variables that are free in the condition -> type.
            wanted: the variables of the answer, in order.
        """
        return Query([self._plan(part, given, parameters, wanted) for part in condition])

    def _plan(
        self, conjunction: Conjunction, given: Sequence[str], parameters: Mapping[str, str], wanted: Sequence[str]
    ) -> tuple[Bindings, list[JoinStep], tuple[int, ...]]:
        kinds = {**parameters, **dict(conjunction.variables)}
        terms = {*wanted, *(term for literal in conjunction.literals for term in literal.terms)}
        constants = sorted(term for term in terms if term not in kinds)
        place = {name: position for position, name in enumerate((*given, *constants))}
        waiting: list[Literal | Absent] = [*conjunction.literals, *conjunction.absent]
        steps: list[JoinStep] = []
        while True:
            for part in [part for part in waiting if all(name in place for name in _free(part, kinds))]:
                waiting.remove(part)
                steps.append(self._test(part, place, kinds))
            unbound = [part for part in waiting if isinstance(part, Literal) and part.positive and part.predicate != "="]
            if unbound:
                literal = min(unbound, key=lambda part: self._cost(part, place))
                waiting.remove(literal)
                steps.append(self._extend(literal, place, kinds))
                continue
            # A variable that no fact binds ranges over its type: one of negative literals, or one outside the condition.
            missing = [name for name in (*kinds, *wanted) if name not in place]
            needed = [name for name in missing if name in wanted or any(name in _free(part, kinds) for part in waiting)]
            needed += [name for name, _ in conjunction.variables if name in missing and name not in needed]
            if not needed:
                return tuple(constants), steps, tuple(place[name] for name in wanted)
            steps.append(_enumerate(sorted(self.members(kinds[needed[0]]))))
            place[needed[0]] = len(place)

    def _cost(self, literal: Literal, place: Mapping[str, int]) -> float:
        size = float(self._sizes[self._slots[literal.predicate]])
        return math.sqrt(size) if any(term in place for term in literal.terms) else size

    def _extend(self, literal: Literal, place: dict[str, int], kinds: Mapping[str, str]) -> JoinStep:
        by, first, equal = split_terms(literal.terms, place)
        members = tuple(self.members(kinds[term]) for term in first)
        everything = frozenset(self._objects)
        lookup = self.lookup(
            Lookup(0, by, tuple(first.values()), tuple(None if own == everything else own for own in members), equal)
        )
        keys = tuple(place[literal.terms[position]] for position in by)
        for term in first:
            place[term] = len(place)
        return _extension(self._slots[literal.predicate], lookup, keys)

    def _test(self, part: Literal | Absent, place: Mapping[str, int], kinds: Mapping[str, str]) -> JoinStep:
        if isinstance(part, Literal):
            places = tuple(place[term] for term in part.terms)
            if part.predicate == "=":
                return _equality(places[0], places[1], part.positive)
            return _membership(self._slots[part.predicate], places, part.positive)
        outer = sorted(_free(part, kinds))
        alternatives = tuple(Conjunction(part.variables) & inner for inner in part.alternatives)
        inner = self.query(alternatives, outer, {name: kinds[name] for name in outer}, ())
        return _absence(inner, tuple(place[name] for name in outer))


class Query:
    """Planned condition: the union of its alternatives."""

    __slots__ = ("_plans",)

    def __init__(self, plans: list[tuple[Bindings, list[JoinStep], tuple[int, ...]]]) -> None:
        self._plans = plans

    def rows(self, state: State, given: Bindings = ()) -> list[Arguments]:
        """Return the values of the wanted variables, each answer once.

        Args:
            state: one relation for each slot.
            given: the values of the given variables, in order.
        """
        found: dict[Arguments, None] = {}
        for rows, wanted in self._answers(state, given):
            for row in rows:
                found[tuple([row[position] for position in wanted])] = None
        return list(found)

    def holds(self, state: State, given: Bindings = ()) -> bool:
        """Tell whether there is any answer. Takes the arguments of `rows`."""
        return any(rows for rows, _ in self._answers(state, given))

    def _answers(self, state: State, given: Bindings) -> Iterator[tuple[list[Bindings], tuple[int, ...]]]:
        """Yield the rows of each alternative that has any, and where the wanted values are in them."""
        for constants, steps, wanted in self._plans:
            rows = [given + constants]
            for step in steps:
                rows = step(state, rows)
                if not rows:
                    break
            else:
                yield rows, wanted


def _free(part: Literal | Absent, kinds: Mapping[str, str]) -> set[str]:
    """Return the variables of the surrounding conjunction that a part contains."""
    if isinstance(part, Literal):
        return {term for term in part.terms if term in kinds}
    inner = {name for name, _ in part.variables}
    names: set[str] = set()
    for conjunction in part.alternatives:
        own = inner | {name for name, _ in conjunction.variables}
        pieces: list[Literal | Absent] = [*conjunction.literals, *conjunction.absent]
        for piece in pieces:
            names |= _free(piece, kinds) - own
    return names


def _extension(slot: int, lookup: Lookup, keys: tuple[int, ...]) -> JoinStep:
    if not keys:

        def extend_by_all(state: State, rows: list[Bindings]) -> list[Bindings]:
            answers = state[slot].index(lookup).get((), ())
            return [row + answer for row in rows for answer in answers]

        return extend_by_all
    if len(keys) == 1:
        key = keys[0]

        def extend_by_one(state: State, rows: list[Bindings]) -> list[Bindings]:
            table = state[slot].index(lookup)
            return [row + answer for row in rows for answer in table.get(row[key], ())]

        return extend_by_one

    def extend(state: State, rows: list[Bindings]) -> list[Bindings]:
        table = state[slot].index(lookup)
        return [row + answer for row in rows for answer in table.get(tuple([row[key] for key in keys]), ())]

    return extend


def _membership(slot: int, places: tuple[int, ...], positive: bool) -> JoinStep:
    def test(state: State, rows: list[Bindings]) -> list[Bindings]:
        facts = state[slot].facts
        return [row for row in rows if (tuple([row[place] for place in places]) in facts) is positive]

    return test


def _equality(left: int, right: int, positive: bool) -> JoinStep:
    return lambda state, rows: [row for row in rows if (row[left] == row[right]) is positive]


def _absence(inner: Query, places: tuple[int, ...]) -> JoinStep:
    return lambda state, rows: [row for row in rows if not inner.holds(state, tuple([row[place] for place in places]))]


def _enumerate(names: Sequence[str]) -> JoinStep:
    return lambda state, rows: [(*row, name) for row in rows for name in names]
