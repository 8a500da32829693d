"""Over-estimate of the facts that could ever become true. Invariant: facts are only added here, never removed.

Upstream's planner leaves out what this over-estimate excludes: effects whose condition can never hold, removals of facts that
can never hold, and actions of which nothing is left. Only domains with conditional effects, or with texts about what was made
false, show the difference; for the others none of this is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.envs.alfworld.pddl.conditions import Condition, Conjunction
from cotbench.envs.alfworld.pddl.domain import Schema
from cotbench.envs.alfworld.pddl.problem import Arguments
from cotbench.envs.alfworld.pddl.queries import Planner
from cotbench.envs.alfworld.pddl.relations import Relation, State


def relaxed(condition: Condition, static: frozenset[str] | None) -> Condition:
    """Return a condition's delete relaxation: its positive literals.

    Args:
        condition: the condition.
        static: predicates that no action changes, whose negative literals are kept; None drops all of them.
    """
    return tuple(
        Conjunction(
            part.variables,
            tuple(item for item in part.literals if item.positive or (static is not None and item.predicate in static)),
        )
        for part in condition
    )


def reachable(schemas: Sequence[Schema], planner: Planner, slots: dict[str, int], initial: State) -> State:
    """Return the facts that some sequence of actions could make true if nothing were ever lost and no negation counted.

    Args:
        schemas: the domain's actions.
        planner: plans their conditions.
        slots: predicate -> its place in a state.
        initial: the state in which the game begins.

    Source: fast-downward's `translate/build_model.py` (a Datalog program over the relaxed task).
    """
    rules = []
    for schema in schemas:
        names = [name for name, _ in schema.parameters]
        for effect in schema.effects:
            if effect.positive:
                both = tuple(
                    first & second for first in relaxed(schema.precondition, None) for second in relaxed(effect.condition, None)
                )
                kinds = dict((*schema.parameters, *effect.variables))
                # Every parameter must exist, whether or not the fact names it.
                wanted = [*effect.terms, *(name for name in (*names, *dict(effect.variables)) if name not in effect.terms)]
                rules.append((slots[effect.predicate], len(effect.terms), planner.query(both, (), kinds, wanted)))
    state = list(initial)
    grown = True
    while grown:
        grown = False
        for slot, arity, query in rules:
            found: set[Arguments] = {row[:arity] for row in query.rows(state)}
            if not found <= state[slot].facts:
                state[slot] = Relation(state[slot].facts | found)
                grown = True
    return state
