"""A game, ready to be played. Invariant: a world does not change while it is played, so engines and threads can share one;
what it remembers (planned queries, spoken commands) is worked out the same by whoever comes first.

Sources: `textworld.envs.pddl.pddl.PddlEnv`, `textworld.envs.pddl.logic.PddlState`, and the translator of fast-downward, whose
grounding decides which actions exist: actions that would change nothing, whatever the state, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cotbench.envs.alfworld.pddl.conditions import Literal, predicates_of
from cotbench.envs.alfworld.pddl.domain import Domain, Effect, Schema, compile_domain
from cotbench.envs.alfworld.pddl.expressions import Entity
from cotbench.envs.alfworld.pddl.grammar import Wording, compile_grammar, parse_text
from cotbench.envs.alfworld.pddl.problem import Arguments, read_problem
from cotbench.envs.alfworld.pddl.queries import Planner, Query
from cotbench.envs.alfworld.pddl.reachable import reachable, relaxed
from cotbench.envs.alfworld.pddl.relations import Relation, State
from cotbench.envs.alfworld.pddl.wording import Context, Speaker
from cotbench.errors import GameFileError

Naming = Callable[[Iterable[str]], Mapping[str, str]]
"""Ids of things -> the names under which they are spoken of."""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Change:
    """A planned effect: where its condition holds, the terms are added to (or removed from) a slot.

    Attributes:
        query: gives the rows over which the effect happens, from the action's arguments; None: just the arguments.
        possible: the same for what texts hear of, which is every row whose condition could ever hold.
        places: positions of the terms in a row.
        told: the slots in which texts see that it holds and that it does not, where these are not the facts.
        vain: the effect is none where all pairs of one of these are equal: then the action's own conditions or additions
            say it already.
        certain: whether it can happen whenever it is not in vain.
    """

    slot: int
    positive: bool
    query: Query | None
    possible: Query | None
    places: tuple[int, ...]
    told: tuple[int | None, int | None]
    vain: tuple[tuple[Pair, ...], ...]
    certain: bool


@dataclass(frozen=True, slots=True)
class Action:
    """A planned action schema.

    Attributes:
        depends: the slots on which it depends whether it can be done, and how it is called for.
        spoken: positions of the arguments that its command mentions.
        fixed: whether the command depends on these arguments alone.
        effective: whether something can change whatever its arguments are.
    """

    schema: Schema
    wording: Wording
    query: Query
    depends: frozenset[int]
    changes: tuple[_Change, ...]
    effective: bool
    spoken: tuple[int, ...]
    fixed: bool
    placeholders: tuple[tuple[str, str], ...]
    commands: dict[Arguments, str]


class World:
    """A loaded game.

    Args:
        pddl_domain: the domain's text.
        pddl_problem: the problem's text.
        grammar: the grammar's text.
        naming: how things are called; None calls them by their ids.

    Raises:
        GameFileError: a text is damaged or uses a feature outside the supported subset; says where.
    """

    def __init__(self, pddl_domain: str, pddl_problem: str, grammar: str, naming: Naming | None = None) -> None:
        self._domain = domain = compile_domain(pddl_domain)
        problem = read_problem(pddl_problem, domain)
        words = compile_grammar(grammar)
        names = dict(naming(problem.spoken_of)) if naming else {}
        self.entities = {name: Entity(name, kind, names.get(name, name)) for name, kind in problem.objects.items()}
        self.spoken_of = frozenset(problem.spoken_of)
        self._slots = {predicate: slot for slot, predicate in enumerate(domain.arities)}
        self.initial: State = [Relation(problem.facts[predicate]) for predicate in domain.arities]
        self._told = self._add_told_slots(domain, grammar)
        sizes = [len(relation.facts) for relation in self.initial]
        self._planner = Planner(domain.types, problem.objects, self._slots, sizes)
        self._speaker = Speaker(words, self.entities, self._told, self._planner, domain.types, problem.objects)
        self._changing = frozenset(self._slots[predicate] for predicate in domain.fluents) | self._told_changing
        for schema in domain.schemas:
            if schema.name not in words.actions:
                raise GameFileError(f"grammar: no wording for the action {schema.name!r} of the domain")
        self.actions = tuple(self._action(schema, words.actions[schema.name]) for schema in domain.schemas)
        self.goal = self._planner.query(problem.goal, (), {}, ())
        self.goal_depends = frozenset(self._slots[predicate] for predicate in predicates_of(problem.goal))

    def intro(self) -> str:
        """The text with which the game begins."""
        return self._speaker.say(parse_text("#intro#"), Context({}, {}), self.initial)

    def doable(self, action: Action, state: State) -> list[tuple[str, Arguments]]:
        """The commands that call for an action in a state, each with the action's arguments."""
        result = []
        for arguments in action.query.rows(state):
            if not action.effective and not any(self._atoms(change, arguments) for change in action.changes):
                continue
            result.append((self._command(action, arguments, state), arguments))
        return result

    def apply(self, action: Action, arguments: Arguments, state: State) -> tuple[State, set[int]]:
        """The state after an action, and the slots that changed."""
        removed: dict[int, set[Arguments]] = {}
        added: dict[int, set[Arguments]] = {}
        after = list(state)
        changed: set[int] = set()
        for change in action.changes:
            if change.vain and _vain(change, arguments):
                continue
            rows = [arguments] if change.query is None else change.query.rows(state, arguments)
            for row in rows:
                atom = tuple([row[place] for place in change.places])
                (added if change.positive else removed).setdefault(change.slot, set()).add(atom)
        for slot in {*removed, *added}:
            relation = state[slot].changed(removed.get(slot, set()), added.get(slot, set()))
            if relation is not state[slot]:
                after[slot] = relation
                changed.add(slot)
        self._tell(action, arguments, after, changed)
        return after, changed

    def feedback(self, action: Action, arguments: Arguments, state: State) -> str:
        """What the game says about an action, seen from the state that it led to."""
        return self._speaker.say(action.wording.feedback, self._context(action, arguments), state)

    def _context(self, action: Action, arguments: Arguments) -> Context:
        return self._speaker.context(dict(zip(action.placeholders, arguments, strict=True)))

    def _command(self, action: Action, arguments: Arguments, state: State) -> str:
        if not action.fixed:
            return self._speaker.say(action.wording.command, self._context(action, arguments), state)
        key = tuple([arguments[position] for position in action.spoken])
        command = action.commands.get(key)
        if command is None:
            command = self._speaker.say(action.wording.command, self._context(action, arguments), state)
            action.commands[key] = command
        return command

    def _tell(self, action: Action, arguments: Arguments, after: State, changed: set[int]) -> None:
        """Change what texts see besides the facts: see `_add_told_slots`."""
        for positive in (True, False):
            for change in action.changes:
                holds, fails = change.told
                if change.positive is not positive or (holds is None and fails is None):
                    continue
                atoms = self._atoms(change, arguments)
                for slot, adds in ((holds, positive), (fails, not positive)):
                    if slot is None:
                        continue
                    relation = after[slot].changed(set() if adds else atoms, atoms if adds else set())
                    if relation is not after[slot]:
                        after[slot] = relation
                        changed.add(slot)

    def _atoms(self, change: _Change, arguments: Arguments) -> set[Arguments]:
        """What upstream hears of an effect: all that it might do, whether or not its condition holds now."""
        if _vain(change, arguments):
            return set()
        rows = [arguments] if change.possible is None else change.possible.rows(self._reachable, arguments)
        atoms = {tuple([row[place] for place in change.places]) for row in rows}
        return atoms if change.certain or change.positive else atoms & self._reachable[change.slot].facts

    @cached_property
    def _reachable(self) -> State:
        return reachable(self._domain.schemas, self._planner, self._slots, self.initial)

    def _add_told_slots(self, domain: Domain, grammar: str) -> dict[str, int]:
        """Where texts find a predicate.

        Texts see the facts, with two exceptions that upstream has. `not_p` holds of what an action made false, and of nothing
        at first. And of a predicate that some action changes under a condition, texts see every change that was possible.
        """
        told = dict(self._slots)
        conditional = {effect.predicate for schema in domain.schemas for effect in schema.effects if not effect.unconditional}
        changing: set[int] = set()
        for predicate in domain.arities:
            if predicate in conditional:
                told[predicate] = len(self.initial)
                changing.add(len(self.initial))
                self.initial.append(Relation(self.initial[self._slots[predicate]].facts))
            if f"not_{predicate}" in grammar:
                told[f"not_{predicate}"] = len(self.initial)
                changing.add(len(self.initial))
                self.initial.append(Relation(frozenset()))
        self._told_changing = frozenset(changing)
        return told

    def _action(self, schema: Schema, wording: Wording) -> Action:
        names = [name for name, _ in schema.parameters]
        query = self._planner.query(schema.precondition, (), dict(schema.parameters), names)
        depends = {self._slots[predicate] for predicate in predicates_of(schema.precondition)}
        spoken_of = self._speaker.predicates(wording.command)
        heard = {self._told[predicate] for predicate in spoken_of if predicate in self._told}
        mentioned = self._speaker.names(wording.command)
        placeholders = tuple((name.strip("?"), kind) for name, kind in schema.parameters)
        changes = tuple(self._change(effect, schema) for effect in schema.effects)
        return Action(
            schema=schema,
            wording=wording,
            query=query,
            depends=frozenset((depends | heard) & self._changing),
            changes=changes,
            effective=any(change.certain and not change.vain for change in changes),
            spoken=tuple(position for position, (name, _) in enumerate(placeholders) if name in mentioned),
            fixed=not heard & self._changing,
            placeholders=placeholders,
            commands={},
        )

    def _change(self, effect: Effect, schema: Schema) -> _Change:
        names = [name for name, _ in schema.parameters]
        inner = [name for name, _ in effect.variables]
        constants = [term for term in effect.terms if term not in names and term not in inner]
        place = {name: position for position, name in enumerate([*names, *inner])}
        query = possible = None
        if not effect.unconditional or inner or constants:
            kinds = dict((*schema.parameters, *effect.variables))
            wanted = [*names, *inner, *constants]
            query = self._planner.query(effect.condition, names, kinds, wanted)
            settled = frozenset((*self._domain.arities, "=")) - self._domain.fluents
            possible = self._planner.query(relaxed(effect.condition, settled), names, kinds, wanted)
            place |= {name: len(place) + position for position, name in enumerate(constants)}
        slot, told, fails = self._slots[effect.predicate], self._told[effect.predicate], f"not_{effect.predicate}"
        return _Change(
            slot=slot,
            positive=effect.positive,
            query=query,
            possible=possible,
            places=tuple(place[term] for term in effect.terms),
            told=(told if told != slot else None, self._told.get(fails)),
            vain=_in_vain(effect, schema),
            certain=effect.unconditional and not inner and (effect.positive or _required(effect, schema)),
        )


def _vain(change: _Change, arguments: Arguments) -> bool:
    return any(all(arguments[left] == arguments[right] for left, right in pairs) for pairs in change.vain)


def _in_vain(effect: Effect, schema: Schema) -> tuple[tuple[Pair, ...], ...]:
    """The ways in which an unconditional effect says nothing new: each a set of parameters that must be the same.

    An addition is in vain if the action requires the very fact; a removal, if the action requires that it does not hold or
    adds it at the same time.
    """
    ways = []
    matches: list[tuple[str, ...]] = []
    for conjunction in schema.precondition if len(schema.precondition) == 1 else ():
        matches += [item.terms for item in conjunction.literals if _same(item, effect)]
    if not effect.positive:
        matches += [
            other.terms
            for other in schema.effects
            if other.positive and other.unconditional and not other.variables and other.predicate == effect.predicate
        ]
    position = {name: place for place, (name, _) in enumerate(schema.parameters)}
    for terms in matches:
        pairs = [(left, right) for left, right in zip(effect.terms, terms, strict=True) if left != right]
        if all(left in position and right in position for left, right in pairs):
            ways.append(tuple((position[left], position[right]) for left, right in pairs))
    return tuple(ways)


def _required(effect: Effect, schema: Schema) -> bool:
    """Whether the action requires the very fact that the effect removes."""
    return all(
        any(item.positive and (item.predicate, item.terms) == (effect.predicate, effect.terms) for item in part.literals)
        for part in schema.precondition
    )


def _same(literal: Literal, effect: Effect) -> bool:
    return literal.predicate == effect.predicate and literal.positive is effect.positive
