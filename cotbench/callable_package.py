"""A package that can be called like a function. Invariant: it stays the package that it is; calling it calls the function.

`cotbench.study` is the room of studies, and what does a study in Python. One name cannot be bound to both: whichever was
imported last would be found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import Any


def make_callable(package: str, target: str) -> None:
    """Make a package callable.

    Args:
        package: its `__name__`; it is being imported.
        target: "module:function", imported when it is first called.
    """

    def function() -> Callable[..., Any]:
        module, _, name = target.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found

    class CallablePackage(ModuleType):
        """A package, and the function of the same name."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function()(*args, **kwargs)

        @property
        def __signature__(self) -> Signature:
            return signature(function())

    sys.modules[package].__class__ = CallablePackage
