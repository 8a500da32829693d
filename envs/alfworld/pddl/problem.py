"""A planning problem: objects, initial facts, goal. Invariant: every fact is about declared objects and a declared
predicate.
"""

from __future__ import annotations

from dataclasses import dataclass

from cotbench.envs.alfworld.pddl.conditions import Condition
from cotbench.envs.alfworld.pddl.domain import Domain
from cotbench.envs.alfworld.pddl.sexpr import Node, read, refuse, typed_list

Arguments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem in a domain.

    Attributes:
        objects: name -> type, the domain's constants included.
        facts: predicate -> the arguments of which it holds at first.
        spoken_of: the objects that some fact is about.
        goal: what must hold in the end.
    """

    objects: dict[str, str]
    facts: dict[str, frozenset[Arguments]]
    spoken_of: frozenset[str]
    goal: Condition


def read_problem(text: str, domain: Domain) -> Problem:
    """Return the problem that a PDDL text describes.

    Args:
        text: PDDL.
        domain: the domain that the problem names.

    Raises:
        GameFileError: not a problem of this domain, or a feature outside the supported subset, with its line.
    """
    node = read(text, "PDDL problem")
    parts = {part.head(): part for part in node[1:] if isinstance(part, Node)}
    if node.head() != "define" or "problem" not in parts:
        refuse(node, "(define (problem …) …) expected")
    for head, part in parts.items():
        if head not in ("problem", ":domain", ":requirements", ":objects", ":init", ":goal", ":metric"):
            refuse(part, f"unsupported PDDL feature: ({head or '…'} …)")
    for head in (":domain", ":init", ":goal"):
        if head not in parts:
            refuse(node, f"no ({head} …)")
    if parts[":domain"][1:] != [domain.name]:
        refuse(parts[":domain"], f"a problem of another domain than {domain.name!r}")
    objects: dict[str, str] = {}
    owner = parts.get(":objects", node)
    for name, kind in (*domain.constants, *typed_list(parts.get(":objects", [""])[1:], owner)):
        if name in objects:
            refuse(owner, f"{name!r} is declared twice")
        if kind not in domain.types:
            refuse(owner, f"{name!r} is of the undeclared type {kind!r}")
        objects[name] = kind
    facts, spoken_of = _facts(parts[":init"], domain, objects)
    goal = parts[":goal"]
    if len(goal) != 2 or not isinstance(goal[1], Node):
        refuse(goal, "(:goal condition) expected")
    return Problem(objects, facts, spoken_of, domain.reader(objects).condition(goal[1], {}))


def _facts(node: Node, domain: Domain, objects: dict[str, str]) -> tuple[dict[str, frozenset[Arguments]], frozenset[str]]:
    arities = domain.arities
    facts: dict[str, set[Arguments]] = {predicate: set() for predicate in arities}
    spoken_of: set[str] = set()
    intern = {name: name for name in objects}
    for fact in node[1:]:
        if not isinstance(fact, Node) or not fact:
            refuse(node, f"a fact expected, not {fact!r}")
        head = fact[0]
        if head == "not":
            continue  # A fact that is not listed does not hold anyway.
        if head == "=":
            # A number given to a function: nothing here depends on it, but upstream then knows the objects by name.
            if len(fact) == 3 and isinstance(fact[1], Node):
                spoken_of.update(name for name in fact[1][1:] if name in objects)
            continue
        arity = arities.get(head) if isinstance(head, str) else None
        if arity is None:
            refuse(fact, f"unsupported PDDL feature or undeclared predicate: ({fact.head() or '…'} …)")
        if arity != len(fact) - 1:
            refuse(fact, f"{head!r} takes {arity} arguments, not {len(fact) - 1}")
        try:
            arguments = tuple([intern[name] for name in fact[1:]])
        except (KeyError, TypeError):
            unknown = next(name for name in fact[1:] if isinstance(name, Node) or name not in objects)
            refuse(fact, f"unknown object {unknown!r}")
        facts[head].add(arguments)
        spoken_of.update(arguments)
    return {predicate: frozenset(known) for predicate, known in facts.items()}, frozenset(spoken_of)
