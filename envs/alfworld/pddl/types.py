"""The types of a domain. Invariant: the order in which subtypes are tried is TextWorld's, because lists in texts follow it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence


class Types:
    """Types and what they inherit from; "object" is the root.

    Args:
        declared: (name, parent) in the order of the domain.
    """

    def __init__(self, declared: Sequence[tuple[str, str]]) -> None:
        self._parents: dict[str, list[str]] = {"object": []}
        for name, parent in declared:
            self._parents.setdefault(name, []).append(parent)
        # As upstream's: all descendants of a type are its children, sorted; a second declaration of "object" is ignored.
        self._children: dict[str, list[str]] = {name: [] for name in self._parents}
        for name in self._parents:
            if name != "object":
                for ancestor in self._ancestors(name):
                    self._children.setdefault(ancestor, []).append(name)
        for children in self._children.values():
            children.sort()
        self._tuples: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._parents

    def members(self, name: str) -> frozenset[str]:
        """Return a type and everything below it; nothing for an undeclared one."""
        if name not in self._parents:
            return frozenset()
        return frozenset((name, *self._children[name]))

    def combinations(self, types: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Return the tuples of types that a tuple of types covers, in the order in which TextWorld tries them.

        Source: `textworld.logic.TypeHierarchy.multi_subtypes`, a breadth-first search that may name a tuple twice; so do we.

        Raises:
            KeyError: an undeclared type.
        """
        known = self._tuples.get(types)
        if known is None:
            known = self._tuples[types] = (types, *self._search(types))
        return known

    def _search(self, types: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        seen: set[tuple[str, ...]] = set()
        queue = deque(self._narrowed(types))
        while queue:
            item = queue.popleft()
            yield item
            for narrower in self._narrowed(item):
                if narrower not in seen:
                    seen.add(narrower)
                    queue.append(narrower)

    def _narrowed(self, types: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for position, name in enumerate(types):
            for child in self._children[name]:
                yield (*types[:position], child, *types[position + 1 :])

    def _ancestors(self, name: str) -> list[str]:
        found: list[str] = []
        waiting = list(self._parents.get(name, ()))
        while waiting:
            parent = waiting.pop()
            if parent not in found and parent != name:
                found.append(parent)
                waiting.extend(self._parents.get(parent, ()))
        return found
