"""Effects of an action. Invariant: the facts follow PDDL (additions win over removals); what texts can query, and whether the
action exists at all, follows upstream's planner, which prunes effects before it plays.

Sources: fast-downward's `translate/instantiate.py` and `translate/translate.py` (`translate_strips_operator_aux`,
`build_sas_operator`): an addition of a fact that the action requires is none; nor is a removal of a fact that it requires to be
false, that it adds for sure, or that can never hold; an action of which nothing is left does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cotbench.envs.alfworld.pddl.conditions import TRUE, Condition, Conjunction, Literal
from cotbench.envs.alfworld.pddl.domain import Effect, Schema
from cotbench.envs.alfworld.pddl.problem import Arguments
from cotbench.envs.alfworld.pddl.queries import Planner, Query
from cotbench.envs.alfworld.pddl.reachable import relaxed
from cotbench.envs.alfworld.pddl.relations import State

Atom = tuple[int, Arguments]
"""A slot and the arguments of a fact in it."""
ChangedAtoms = list[tuple["Change", set[Arguments]]]
_Literals = list[tuple[int, tuple[int | str, ...]]]
_Required = tuple[_Literals, _Literals]
"""Literals over parameters (by position) and constants: those that must hold, and those that must not."""


@dataclass(frozen=True, slots=True)
class Change:
    """Planned effect.

    Attributes:
        slot: the predicate's place in a state.
        positive: whether the effect adds facts; else it removes them.
        query: the rows over which it happens, from the action's arguments; None: just the arguments.
        possible: the rows over which it might happen in some state.
        sure: the rows over which it happens in every state.
        places: positions of the effect's terms in a row.
        text_slots: the slots in which texts see that it holds, and that it does not, where these are not the facts' own slot.
        reachable: whether what it removes could hold whenever the action can be done.
    """

    slot: int
    positive: bool
    query: Query | None
    possible: Query | None
    sure: Query | None
    places: tuple[int, ...]
    text_slots: tuple[int | None, int | None]
    reachable: bool

    def atoms(self, query: Query | None, arguments: Arguments, state: State) -> set[Arguments]:
        """Return the terms of the effect over the rows of one of its queries.

        Args:
            query: one of `query`, `possible` and `sure`.
            arguments: the action's arguments.
            state: the state in which the query is answered.
        """
        rows = [arguments] if query is None else query.rows(state, arguments)
        return {tuple([row[place] for place in self.places]) for row in rows}


class Changes:
    """Effects of one action.

    Args:
        schema: the action.
        planner: plans the conditions of effects.
        slots: predicate -> place in a state.
        text_slots: predicate -> the place where texts look it up; `not_p` has one only where the grammar queries it.
        static: the predicates that no action changes.
        relaxed_state: returns a state that holds every fact that could ever hold; called only when it is needed.
    """

    def __init__(
        self,
        schema: Schema,
        planner: Planner,
        slots: Mapping[str, int],
        text_slots: Mapping[str, int],
        static: frozenset[str],
        relaxed_state: Callable[[], State],
    ) -> None:
        names = [name for name, _ in schema.parameters]
        self._relaxed_state = relaxed_state
        self._changes = [_change(effect, schema, planner, slots, text_slots, static) for effect in schema.effects]
        self._alternatives: list[_Required] = [_required(part, names, slots) for part in schema.precondition]
        self.always = _always_changes(schema, self._changes)
        self._pruning_equalities = None if self.always else _pruning_equalities(schema, self._changes)
        self._with_text_slots = [change for change in self._changes if change.text_slots != (None, None)]

    def exist(self, arguments: Arguments, alternative: int) -> bool:
        """Tell whether the planner leaves anything of the action with these arguments.

        Args:
            arguments: the action's arguments.
            alternative: number of the conjunction of the action's precondition that holds.
        """
        if self.always:
            return True
        if self._pruning_equalities is not None:
            return any(
                not any(all(arguments[left] == arguments[right] for left, right in pairs) for pairs in ways)
                for ways in self._pruning_equalities
            )
        return any(
            atoms for _, atoms in self._unpruned(self._changes, arguments, self._alternatives[alternative : alternative + 1])
        )

    def facts(self, arguments: Arguments, state: State) -> tuple[dict[int, set[Arguments]], dict[int, set[Arguments]]]:
        """Return the facts that become false and those that become true, each by slot.

        Args:
            arguments: the action's arguments.
            state: the state in which it is executed.
        """
        removed: dict[int, set[Arguments]] = {}
        added: dict[int, set[Arguments]] = {}
        for change in self._changes:
            into = added if change.positive else removed
            into.setdefault(change.slot, set()).update(change.atoms(change.query, arguments, state))
        return removed, added

    def text_changes(self, arguments: Arguments) -> ChangedAtoms:
        """Return the changes that texts see in slots of their own, additions first.

        These are all changes that an effect might make, whether or not its condition holds now.
        """
        return (
            sorted(self._unpruned(self._with_text_slots, arguments, self._alternatives), key=lambda pair: not pair[0].positive)
            if self._with_text_slots
            else []
        )

    def _unpruned(self, changes: Sequence[Change], arguments: Arguments, alternatives: Sequence[_Required]) -> ChangedAtoms:
        """Return what the planner leaves of some of the effects, under any of these alternatives of the action's condition."""
        sure: set[Atom] = set()
        removing = {change.slot for change in changes if not change.positive}
        for change in self._changes:
            if change.positive and change.slot in removing:
                state = [] if change.sure is None else self._relaxed_state()
                sure |= {(change.slot, atom) for atom in change.atoms(change.sure, arguments, state)}
        required = [
            tuple({(slot, _ground(terms, arguments)) for slot, terms in literals} for literals in alternative)
            for alternative in alternatives
        ]
        result: ChangedAtoms = []
        for change in changes:
            atoms = change.atoms(change.possible, arguments, [] if change.possible is None else self._relaxed_state())
            if not change.positive and not change.reachable:
                atoms &= self._relaxed_state()[change.slot].facts
            if not change.positive:
                atoms = {atom for atom in atoms if (change.slot, atom) not in sure}
            sign = 0 if change.positive else 1
            left = {atom for atom in atoms if any((change.slot, atom) not in alternative[sign] for alternative in required)}
            result.append((change, left))
        return result


def _ground(terms: tuple[int | str, ...], arguments: Arguments) -> Arguments:
    return tuple([term if isinstance(term, str) else arguments[term] for term in terms])


def _required(part: Conjunction, names: list[str], slots: Mapping[str, int]) -> _Required:
    """Return what an alternative requires to hold, and not to hold, of parameters and constants."""
    place: dict[str, int | str] = {name: position for position, name in enumerate(names)}
    hidden = {name for name, _ in part.variables}
    literals: _Required = ([], [])
    for item in part.literals:
        if item.predicate != "=" and not item.derived and hidden.isdisjoint(item.terms):
            terms = tuple(place.get(term, term) for term in item.terms)
            literals[0 if item.positive else 1].append((slots[item.predicate], terms))
    return literals


def _change(
    effect: Effect,
    schema: Schema,
    planner: Planner,
    slots: Mapping[str, int],
    text_slots: Mapping[str, int],
    static: frozenset[str],
) -> Change:
    names = [name for name, _ in schema.parameters]
    inner = [name for name, _ in effect.variables]
    constants = [term for term in dict.fromkeys(effect.terms) if term not in names and term not in inner]
    place = {name: position for position, name in enumerate([*names, *inner])}
    query = possible = sure = None
    if not effect.unconditional or inner or constants:
        kinds = dict((*schema.parameters, *effect.variables))
        wanted = [*names, *inner, *constants]

        def plan(condition: Condition) -> Query:
            return planner.query(condition, names, kinds, wanted)

        fixed = tuple(
            part for part in effect.condition if not part.absent and all(item.predicate in static for item in part.literals)
        )
        query, possible, sure = plan(effect.condition), plan(relaxed(effect.condition, static)), plan(fixed)
        # A row of a planned query: the given arguments, and then the wanted terms.
        place |= {name: len(place) + position for position, name in enumerate(constants)}
    slot = slots[effect.predicate]
    text_slot = text_slots[effect.predicate]
    same = Literal(effect.predicate, effect.terms)
    return Change(
        slot=slot,
        positive=effect.positive,
        query=query,
        possible=possible,
        sure=sure,
        places=tuple(place[term] for term in effect.terms),
        text_slots=(text_slot if text_slot != slot else None, text_slots.get(f"not_{effect.predicate}")),
        reachable=effect.positive or all(same in part.literals for part in schema.precondition),
    )


def _always_changes(schema: Schema, changes: list[Change]) -> bool:
    """Tell whether some effect is never pruned, whatever the arguments are."""
    for effect, change in zip(schema.effects, changes, strict=True):
        required = any(
            item.predicate == effect.predicate and item.positive is effect.positive and not item.derived
            for part in schema.precondition
            for item in part.literals
        )
        added = not effect.positive and any(other.positive and other.predicate == effect.predicate for other in schema.effects)
        if effect.condition == TRUE and not effect.variables and change.reachable and not required and not added:
            return True
    return False


_Equalities = list[list[list[tuple[int, int]]]]


def _pruning_equalities(schema: Schema, changes: list[Change]) -> _Equalities | None:
    """Return for each effect the pairs of parameters that must be equal for it to be pruned; None where other conditions matter
    too.

    A short cut through `_left` for the common case, such as going to where one stands.
    """
    if len(schema.precondition) != 1 or schema.precondition[0].variables:
        return None
    position = {name: place for place, (name, _) in enumerate(schema.parameters)}
    result: _Equalities = []
    for effect, change in zip(schema.effects, changes, strict=True):
        if effect.condition != TRUE or effect.variables or not change.reachable:
            return None
        matches = [
            item.terms
            for item in schema.precondition[0].literals
            if item.predicate == effect.predicate and item.positive is effect.positive and not item.derived
        ]
        if not effect.positive:
            matches += [other.terms for other in schema.effects if other.positive and other.predicate == effect.predicate]
        if any(term not in position for terms in (effect.terms, *matches) for term in terms):
            return None
        result.append([[(position[a], position[b]) for a, b in zip(effect.terms, terms, strict=True)] for terms in matches])
    return result
