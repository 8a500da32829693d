"""Texts of a running game. Invariant: the words, and the order of things in lists, are those of TextWorld's grammar over the
same facts.

Source: `textworld.envs.pddl.textgen.ContextSensitiveGrammar` and `textworld.logic.State.all_assignments`: queries are nested
loops over sorted facts, different placeholders stand for different things, and the first rule whose condition has an answer
is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cotbench.envs.alfworld.pddl.expressions import Entity, compile_expression, names_in
from cotbench.envs.alfworld.pddl.grammar import Atom, Grammar, Rule, Symbol, Text, parse_query
from cotbench.envs.alfworld.pddl.queries import Planner
from cotbench.envs.alfworld.pddl.relations import Lookup, State, split_terms
from cotbench.envs.alfworld.pddl.types import Types
from cotbench.errors import GameFileError

Placeholder = tuple[str, str]
"""Name and type."""

STRANGER = "\0"
"""Stands for an object whose type is narrower than its placeholder's: upstream's queries never find it again."""


class Context(NamedTuple):
    """Values of placeholders and names while a text is rendered."""

    objects: dict[Placeholder, str]
    entities: dict[str, Entity]


@dataclass(frozen=True, slots=True)
class _Atom:
    """Lookup of one atom of a query; `keys` are the positions of the given arguments in a row."""

    slot: int
    lookup: Lookup
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Search:
    """Planned query: the placeholders that are given, its atoms, and the placeholders that they bind."""

    seed: tuple[Placeholder, ...]
    atoms: tuple[_Atom, ...]
    found: tuple[Placeholder, ...]


class Speaker:
    """Renderer of the texts of one game.

    Args:
        grammar: the rules.
        entities: the things, by id.
        slots: predicate -> the place in a state where texts look it up; a predicate without a place holds of nothing.
        planner: numbers the lookups.
        types: the domain's types.
        kinds: object -> type.
    """

    def __init__(
        self,
        grammar: Grammar,
        entities: Mapping[str, Entity],
        slots: Mapping[str, int],
        planner: Planner,
        types: Types,
        kinds: Mapping[str, str],
    ) -> None:
        self._rules = grammar.rules
        self._entities = entities
        self._slots = slots
        self._planner = planner
        self._types = types
        self._kinds = kinds
        self._searches: dict[tuple[str, frozenset[Placeholder]], _Search | None] = {}

    def context(self, parameters: Mapping[Placeholder, str]) -> Context:
        """Return the context of an action's texts: its parameters and what they stand for.

        Args:
            parameters: (name, type) of each parameter -> the object's id.
        """
        kinds = self._kinds
        objects = {ph: name if kinds[name] == ph[1] else STRANGER for ph, name in parameters.items()}
        return Context(objects, {ph[0]: self._entities[name] for ph, name in parameters.items()})

    def say(self, text: Text, context: Context, state: State) -> str:
        """Return the rendered text.

        Args:
            text: the symbols of the text.
            context: what placeholders and names stand for.
            state: answers the queries of the text and its rules.

        Raises:
            GameFileError: the text names a rule, a type or a thing that does not exist, or no rule applies.
        """
        return "".join([self._piece(symbol, context, state) for symbol in text])

    def asks(self, text: Text) -> tuple[frozenset[str], tuple[Atom, ...]]:
        """Return the names whose values a text contains, and the atoms of all queries that it may make."""
        found: set[str] = set()
        atoms: list[Atom] = []
        for symbol, rules in self._reach(text, set()):
            if symbol.kind == "value":
                found |= names_in(symbol.text)
            for query in (symbol.given, *(rule.condition for rule in rules)):
                if query:
                    atoms += parse_query(query)
        return frozenset(found), tuple(atoms)

    def _reach(self, text: Text, seen: set[str]) -> list[tuple[Symbol, tuple[Rule, ...]]]:
        reached: list[tuple[Symbol, tuple[Rule, ...]]] = []
        for symbol in text:
            mentioned = [symbol.text] if symbol.kind == "rule" else []
            mentioned += ["list_empty", "list_separator", "list_last_separator"] if symbol.listed else []
            rules = [rule for name in mentioned if name not in seen for rule in self._rules.get(name, ())]
            seen.update(mentioned)
            reached.append((symbol, tuple(rules)))
            for rule in rules:
                reached += self._reach(rule.text, seen)
        return reached

    def _piece(self, symbol: Symbol, context: Context, state: State) -> str:
        if symbol.kind == "literal":
            return symbol.text
        if not symbol.given and not symbol.listed:
            return self._one(symbol, context, state)
        contexts = self._answers(symbol.given, context, state) if symbol.given else [context]
        items = [self._one(symbol, inner, state) for inner in contexts]
        if not symbol.listed:
            return "".join(items)
        if not items:
            return self._rule("list_empty", context, state)
        if len(items) == 1:
            return items[0]
        separator = self._rule("list_separator", context, state) if len(items) > 2 else ""
        return separator.join(items[:-1]) + self._rule("list_last_separator", context, state) + items[-1]

    def _one(self, symbol: Symbol, context: Context, state: State) -> str:
        if symbol.kind == "rule":
            return self._rule(symbol.text, context, state)
        return str(compile_expression(symbol.text)(context.entities))

    def _rule(self, name: str, context: Context, state: State) -> str:
        rules = self._rules.get(name)
        if not rules:
            raise GameFileError(f"grammar: there is no rule {name!r}")
        try:
            for rule in rules:
                if not rule.condition or self._rows(rule.condition, context, state)[1]:
                    return self.say(rule.text, context, state)
        except GameFileError as error:
            # Only the innermost rule adds its name to the message.
            text = str(error)
            raise GameFileError(text.replace("grammar: ", f"grammar, rule {name!r}: ", 1)) from error
        raise GameFileError(f"grammar: no case of rule {name!r} applies")

    def _answers(self, query: str, context: Context, state: State) -> list[Context]:
        search, rows = self._rows(query, context, state)
        if search is None:
            return []
        first, entities = len(search.seed), self._entities
        contexts = []
        for row in rows:
            objects, known = dict(context.objects), dict(context.entities)
            for placeholder, name in zip(search.found, row[first:], strict=True):
                objects[placeholder] = name
                known[placeholder[0]] = entities[name]
            contexts.append(Context(objects, known))
        return contexts

    def _rows(self, query: str, context: Context, state: State) -> tuple[_Search | None, list[tuple[str, ...]]]:
        """Return the answers to a query, in upstream's order: the given objects and then those found."""
        bound = context.objects
        key = (query, frozenset(bound))
        try:
            search = self._searches[key]
        except KeyError:
            search = self._searches[key] = self._plan(query, bound)
        if search is None:
            return None, []
        rows = [tuple([bound[placeholder] for placeholder in search.seed])]
        used = set(bound.values())
        for atom in search.atoms:
            table = state[atom.slot].index(atom.lookup)
            keys = atom.keys
            single = keys[0] if len(keys) == 1 else None
            longer: list[tuple[str, ...]] = []
            for row in rows:
                found = table.get(row[single] if single is not None else tuple([row[key] for key in keys]), ())
                # Different placeholders stand for different things.
                taken = used.union(row)
                longer += [row + answer for answer in found if taken.isdisjoint(answer) and len(set(answer)) == len(answer)]
            if not longer:
                return search, []
            rows = longer
        return search, rows

    def _plan(self, query: str, bound: Mapping[Placeholder, str]) -> _Search | None:
        atoms = parse_query(query)
        mentioned = dict.fromkeys(placeholder for atom in atoms for placeholder in atom.placeholders)
        seed = tuple(placeholder for placeholder in mentioned if placeholder in bound)
        place = {placeholder: position for position, placeholder in enumerate(seed)}
        found: list[Placeholder] = []
        planned = []
        for atom in atoms:
            slot = self._slots.get(atom.predicate)
            if slot is None:
                return None
            by, first, equal = split_terms(atom.placeholders, place)
            try:
                order = self._types.combinations(tuple(kind for _, kind in atom.placeholders))
            except KeyError as error:
                raise GameFileError(f"grammar: unknown type {error.args[0]!r} in the query {query!r}") from None
            wanted = tuple(first.values())
            lookup = Lookup(0, by, wanted, (None,) * len(wanted), equal, order, self._kinds)
            planned.append(_Atom(slot, self._planner.lookup(lookup), tuple(place[atom.placeholders[spot]] for spot in by)))
            for placeholder in first:
                place[placeholder] = len(place)
                found.append(placeholder)
        return _Search(seed, tuple(planned), tuple(found))
