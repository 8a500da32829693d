"""Entries of one kind, by name. Invariant: what comes with cotbench, what a decorator registered and what an installed package
offers are found in one way; a name belongs to one entry.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from cotbench.errors import CotbenchError, UnknownNameError, UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """The entries of one kind: agents, environments, probes or recipes.

    Args:
        noun: what an entry is called in messages: "probe".
        group: the entry-point group through which an installed package offers entries: "cotbench.probes". The object that an
            entry point names is an entry, or importing it registers one of that name.
        kind: the class of an entry; None where anything can be one.
        builtin: the entries that come with cotbench: each itself, or as "module:attribute", imported when it is asked for.
    """

    def __init__(self, noun: str, group: str, kind: type[Any] | None, builtin: Mapping[str, T | str]) -> None:
        self._noun, self._group, self._kind = noun, group, kind
        self._builtin: dict[str, T | str] = dict(builtin)
        self._registered: dict[str, T] = {}

    def register(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            UsageError: the name belongs to another entry.
        """
        if name in self._builtin or self._registered.get(name, entry) is not entry:
            raise UsageError(f"{_article(self._noun)} {self._noun} named {name!r} exists already: choose another name")
        self._registered[name] = entry

    def names(self) -> list[str]:
        """All names: those that come with cotbench in their order, then the others, sorted."""
        others = {*self._registered, *(point.name for point in self._points())}
        return [*self._builtin, *sorted(others - self._builtin.keys())]

    def get(self, name: str) -> T:
        """The entry of a name.

        Raises:
            UnknownNameError: there is none; with near matches.
            UsageError: an installed package offers it, and it cannot be loaded.
        """
        if name in self._registered:
            return self._registered[name]
        if name in self._builtin:
            found = self._builtin[name]
            return load(found) if isinstance(found, str) else found
        for point in self._points(name=name):
            return self._offered(name, point)
        raise UnknownNameError(self._noun, name, self.names())

    def _points(self, **named: Any) -> Any:
        return _installed_points(self._group, tuple(sys.path)).select(**named)

    def _offered(self, name: str, point: Any) -> T:
        try:
            loaded = point.load()
        except CotbenchError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise UsageError(f"{self._noun} {name!r} of {point.value} cannot be loaded: {what}") from error
        if name in self._registered:
            return self._registered[name]
        if self._kind is not None and not isinstance(loaded, self._kind):
            raise UsageError(
                f"{self._noun} {name!r}: {point.value} is a {type(loaded).__name__}, no {self._kind.__name__}, and importing "
                f"it registers no {self._noun} of that name"
            )
        return cast(T, loaded)


@lru_cache
def _installed_points(group: str, path: tuple[str, ...]) -> Any:
    """Return the entry points of a group. Reading what is installed takes tens of milliseconds, and pages ask often."""
    from importlib.metadata import entry_points  # Takes longer to import than all of this package.

    return entry_points(group=group)


def load(path: str) -> Any:
    """The object at "module:attribute"."""
    module, attribute = path.split(":")
    return getattr(import_module(module), attribute)


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
