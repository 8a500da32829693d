"""Entries of one kind, by name. Invariant: what comes with cotbench, what a decorator registered and what an installed package
offers are found in one way; a name belongs to one entry.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from inspect import isclass
from typing import Any, Generic, TypeVar, cast

from cotbench.errors import CotbenchError, UnknownNameError, UsageError

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.+-]*[\w+])?")


class Registry(Generic[T]):
    """The entries of one kind: agents, environments, probes or recipes.

    Args:
        noun: what an entry is called in messages: "probe".
        group: the entry-point group through which an installed package offers entries: "cotbench.probes". The object that an
            entry point names is an entry, or importing it registers one of that name.
        kind: the class of an entry; None where anything can be one.
        builtin: the entries that come with cotbench: each itself, or as "module:attribute", imported when it is asked for.
        check: raises a UsageError for a name and an entry that cannot be one, before anything is done with it.
    """

    def __init__(
        self,
        noun: str,
        group: str,
        kind: type[Any] | None,
        builtin: Mapping[str, T | str],
        check: Callable[[str, T], None] = lambda name, entry: None,
    ) -> None:
        self._noun, self._group, self._kind, self._check = noun, group, kind, check
        self._builtin: dict[str, T | str] = dict(builtin)
        self._registered: dict[str, T] = {}

    def register(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            UsageError: the name belongs to another entry or is no name, or the entry cannot be one.
        """
        check_name(self._noun, name)
        self._check(name, entry)
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
        self._check(name, cast(T, loaded))
        return cast(T, loaded)


def check_name(noun: str, name: object) -> None:
    """Raise an error for what no command line could name.

    Args:
        noun: what is named: "agent".
        name: the name.

    Raises:
        UsageError: it is no text, or has characters that mean something in a spec or a list.
    """
    if not isinstance(name, str):
        what = f"a {type(name).__name__}" if not isclass(name) else f"the class {name.__name__}"
        raise UsageError(f"{_article(noun)} {noun} is registered under a name, not under {what}")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of {_article(noun)} {noun}: write letters and digits, and . _ + - between"
        )


def require_kind(noun: str, entry: object, kind: type) -> None:
    """Raise an error for what is not an object of the class that is registered.

    Args:
        noun: what is registered: "probe".
        entry: what was given.
        kind: the class.

    Raises:
        UsageError: it is of another class.
    """
    if not isinstance(entry, kind):
        found = f"the class {entry.__name__}" if isclass(entry) else f"a {type(entry).__name__}"
        raise UsageError(f"{_article(noun)} {noun} is registered as a {kind.__name__}(...), not as {found}")


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
