"""The face of an agent: what has to be there before it is asked anything. Invariant: what passes here can be queried; what does
not is refused in one line that names the missing part.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Final

from cotbench.errors import UsageError

NEEDS: Final = ("admissible_actions", "expert_action")
"""Fields of a query that an agent may ask for in `needs`."""

_METHODS: Final = {"decide": ("queries",), "close": ()}
_STREAMING: Final = {"submit": ("key", "query"), "collect": ("wait",)}


def check_class(name: str, agent_class: type) -> None:
    """Check the methods of a class that is registered as an agent.

    A class that finds its attributes by itself (`__getattr__`) is checked when an agent is made of it.

    Args:
        name: the name under which it is registered.
        agent_class: the class.

    Raises:
        UsageError: a method is missing, or cannot be called as an agent's.
    """
    if not hasattr(agent_class, "__getattr__"):
        _check_methods(f"agent {name!r}", agent_class)


def check_agent(agent: object, title: str = "") -> None:
    """Check an agent: its name, its methods, what it needs; of one that takes queries at any time also `batch`.

    Args:
        agent: the agent.
        title: how to call it; its own name where that is left out.

    Raises:
        UsageError: a part is missing or of another kind.
    """
    name = getattr(agent, "name", None)
    title = title or (f"agent {name}" if isinstance(name, str) and name else f"agent of class {type(agent).__name__}")
    if not isinstance(name, str) or not name:
        raise UsageError(f'{title}: a {type(agent).__name__} without a name is not an agent: give it  name = "..."')
    _check_methods(title, agent)
    needs = getattr(agent, "needs", ())
    several = isinstance(needs, Iterable) and not isinstance(needs, str)
    if not several or not all(isinstance(need, str) for need in needs):
        raise UsageError(f"{title}: needs is a set of names, such as frozenset({{'expert_action'}}), not {needs!r}")
    for need in sorted(set(needs) - set(NEEDS)):
        raise UsageError(f"{title}: needs names {need!r}; an agent may need {' and '.join(NEEDS)}")
    batch = getattr(agent, "batch", None)
    if hasattr(agent, "submit") and (not isinstance(batch, int) or batch < 1):
        raise UsageError(f"{title}: batch is {batch!r}, not the number of episodes that keep it busy")


def _check_methods(title: str, owner: object) -> None:
    for method, parameters in _METHODS.items():
        _check_method(title, owner, method, parameters)
    if any(hasattr(owner, method) for method in _STREAMING):
        for method, parameters in _STREAMING.items():
            _check_method(title, owner, method, parameters)


def _check_method(title: str, owner: object, method: str, parameters: tuple[str, ...]) -> None:
    wanted = f"def {method}({', '.join(('self', *parameters))})"
    found = getattr(owner, method, None)
    if not callable(found):
        raise UsageError(f"{title} has no method {method}: add  {wanted}  (cotbench.Agent says what each does)")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # A function of C does not tell its parameters.
        return
    # Taken from a class, a function has `self` as its first parameter.
    unbound = inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, method))
    try:
        signature.bind(*("self",) * unbound, *parameters)
    except TypeError as error:
        raise UsageError(f"{title}: its {method} cannot be called ({error}): make it  {wanted}") from error
