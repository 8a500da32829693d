"""A loaded game. Invariant: a world does not change while it is played, so engines and threads can share one; its caches
(planned queries, rendered commands) hold the same values, whichever engine fills them.

Sources: `textworld.envs.pddl.pddl.PddlEnv`, `textworld.envs.pddl.logic.PddlState`, and the translator of fast-downward, whose
grounding decides which actions exist: actions that would change nothing, whatever the state, do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cotbench.envs.alfworld.pddl.changes import Changes
from cotbench.envs.alfworld.pddl.conditions import predicates_of
from cotbench.envs.alfworld.pddl.domain import Domain, Schema, compile_domain
from cotbench.envs.alfworld.pddl.expressions import Entity
from cotbench.envs.alfworld.pddl.grammar import Wording, compile_grammar, parse_text
from cotbench.envs.alfworld.pddl.problem import Arguments, read_problem
from cotbench.envs.alfworld.pddl.queries import Planner, Query
from cotbench.envs.alfworld.pddl.reachable import reachable
from cotbench.envs.alfworld.pddl.relations import Relation, State
from cotbench.envs.alfworld.pddl.wording import Context, Speaker
from cotbench.errors import GameFileError

Naming = Callable[[Iterable[str]], Mapping[str, str]]
"""Ids of things -> their names in texts."""

_MENTIONED = re.compile(r"(!?[\w/]+)\s*\(")
"""Predicates in the queries of a grammar, and other words before a bracket."""


@dataclass(frozen=True, slots=True)
class Action:
    """Planned action schema.

    Attributes:
        queries: the arguments with which it can be done: one query, or one for each alternative of its condition.
        depends: the slots on which its possible arguments and its command depend.
        spoken: positions of the arguments that its command mentions.
        fixed: whether the command depends on these arguments alone.
        placeholders: (name, type) of its parameters, as texts know them.
        commands: cache of the commands, by the arguments that they mention.
    """

    schema: Schema
    wording: Wording
    queries: tuple[Query, ...]
    depends: frozenset[int]
    changes: Changes
    spoken: tuple[int, ...]
    fixed: bool
    placeholders: tuple[tuple[str, str], ...]
    commands: dict[Arguments, str]


class World:
    """Loaded game.

    Args:
        pddl_domain: the domain's text.
        pddl_problem: the problem's text.
        grammar: the grammar's text.
        naming: gives things their names; None names them by their ids.

    Raises:
        GameFileError: a text is damaged or uses a feature outside the supported subset, with its line.
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
        self._text_slots = self._add_text_slots(domain, grammar)
        sizes = [len(relation.facts) for relation in self.initial]
        self._planner = Planner(domain.types, problem.objects, self._slots, sizes)
        self._speaker = Speaker(words, self.entities, self._text_slots, self._planner, domain.types, problem.objects)
        self._changing = frozenset(self._slots[predicate] for predicate in domain.fluents) | self._changing_text_slots
        for schema in domain.schemas:
            if schema.name not in words.actions:
                raise GameFileError(f"grammar: no wording for the action {schema.name!r} of the domain")
            for effect in schema.effects:
                for term in effect.terms:
                    if not term.startswith("?") and term not in problem.objects:
                        raise GameFileError(f"PDDL domain: action {schema.name!r} changes the unknown object {term!r}")
        self.actions = tuple(self._action(schema, words.actions[schema.name]) for schema in domain.schemas)
        self._derive(domain)
        self.goal = self._planner.query(problem.goal, (), {}, ())
        if self.goal.holds(self.initial):
            raise GameFileError("PDDL problem: the goal holds before anything is done")
        self.goal_depends = frozenset(self._slots[predicate] for predicate in predicates_of(problem.goal))

    def intro(self) -> str:
        """Return the text with which the game begins."""
        return self._speaker.say(parse_text("#intro#"), Context({}, {}), self.initial)

    def doable(self, action: Action, state: State) -> list[tuple[str, Arguments]]:
        """Return the commands of an action that can be executed in a state, each with the action's arguments.

        Args:
            action: one of `actions`.
            state: one relation for each slot.
        """
        able = {
            arguments: None
            for alternative, query in enumerate(action.queries)
            for arguments in query.rows(state)
            if action.changes.exist(arguments, alternative)
        }
        return [(self._command(action, arguments, state), arguments) for arguments in able]

    def apply(self, action: Action, arguments: Arguments, state: State) -> tuple[State, set[int]]:
        """Return the state after an action, and the slots that changed.

        Args:
            action: one of `actions`.
            arguments: arguments with which it can be executed.
            state: the state before it, not changed.
        """
        removed, added = action.changes.facts(arguments, state)
        after = list(state)
        changed: set[int] = set()
        for slot in {*removed, *added}:
            _alter(after, slot, removed.get(slot, set()), added.get(slot, set()), changed)
        for change, atoms in action.changes.text_changes(arguments):
            for text_slot, adds in zip(change.text_slots, (change.positive, not change.positive), strict=True):
                if text_slot is not None:
                    _alter(after, text_slot, set() if adds else atoms, atoms if adds else set(), changed)
        return after, changed

    def feedback(self, action: Action, arguments: Arguments, state: State) -> str:
        """Return the game's feedback on an action, rendered in the state after it.

        Args:
            action: one of `actions`.
            arguments: the arguments with which it was executed.
            state: the state after it.
        """
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

    @cached_property
    def _reachable(self) -> State:
        return reachable(self._domain.schemas, self._planner, self._slots, self.initial)

    def _add_text_slots(self, domain: Domain, grammar: str) -> dict[str, int]:
        """Return predicate -> the slot in which texts look it up, and add the slots that only texts use.

        Texts see the facts, with three exceptions that upstream has. `not_p` holds of what an action made false, and of nothing
        at first. Of a predicate that some action changes under a condition, texts see every change that was possible. And
        derived facts are for ever those of the beginning.
        """
        text_slots = dict(self._slots)
        mentioned = set(_MENTIONED.findall(grammar))
        conditional = {effect.predicate for schema in domain.schemas for effect in schema.effects if not effect.unconditional}
        changing: set[int] = set()
        for predicate in domain.arities:
            if predicate in conditional and mentioned & {predicate, f"not_{predicate}", f"!{predicate}"}:
                text_slots[predicate] = len(self.initial)
                changing.add(len(self.initial))
                self.initial.append(Relation(self.initial[self._slots[predicate]].facts))
            if mentioned & {f"not_{predicate}", f"!{predicate}"}:
                text_slots[f"not_{predicate}"] = len(self.initial)
                changing.add(len(self.initial))
                self.initial.append(Relation(frozenset()))
        self._changing_text_slots = frozenset(changing)
        return text_slots

    def _derive(self, domain: Domain) -> None:
        reader = domain.reader(dict.fromkeys(self.entities, ""))
        for predicate, definition in domain.derived.items():
            names = [f"?{number}" for number in range(len(definition.parameters))]
            kinds = {name: kind for name, (_, kind) in zip(names, definition.parameters, strict=True)}
            scope = {own: name for name, (own, _) in zip(names, definition.parameters, strict=True)}
            query = self._planner.query(reader.condition(definition.body, scope), (), kinds, names)
            # Only texts read this slot: in conditions the predicate is replaced by its definition.
            self.initial[self._slots[predicate]] = Relation(frozenset(query.rows(self.initial)))

    def _action(self, schema: Schema, wording: Wording) -> Action:
        names = [name for name, _ in schema.parameters]
        depends = {self._slots[predicate] for predicate in predicates_of(schema.precondition)}
        mentioned, atoms = self._speaker.asks(wording.command)
        queried_slots = {self._text_slots[atom.predicate] for atom in atoms if atom.predicate in self._text_slots}
        placeholders = tuple((name.strip("?"), kind) for name, kind in schema.parameters)
        queried = {placeholder for atom in atoms for placeholder in atom.placeholders}
        # What a query finds besides must differ from every argument, so then the text depends on all of them.
        mentioned |= {name for name, _ in (queried if queried <= set(placeholders) else placeholders)}
        static = frozenset((*self._domain.arities, "=")) - self._domain.fluents
        changes = Changes(schema, self._planner, self._slots, self._text_slots, static, lambda: self._reachable)
        # One query for all alternatives, unless it matters which of them holds.
        alternatives = [schema.precondition] if changes.always else [(part,) for part in schema.precondition]
        return Action(
            schema=schema,
            wording=wording,
            queries=tuple(self._planner.query(part, (), dict(schema.parameters), names) for part in alternatives),
            depends=frozenset((depends | queried_slots) & self._changing),
            changes=changes,
            spoken=tuple(position for position, (name, _) in enumerate(placeholders) if name in mentioned),
            fixed=not queried_slots & self._changing,
            placeholders=placeholders,
            commands={},
        )


def _alter(state: State, slot: int, removed: set[Arguments], added: set[Arguments], changed: set[int]) -> None:
    relation = state[slot].changed(removed, added)
    if relation is not state[slot]:
        state[slot] = relation
        changed.add(slot)
