"""The face of a registered environment: what has to be there before it is made. Invariant: what passes here can be described
and started; what does not is refused in one line that names the missing part.
"""

from __future__ import annotations

from inspect import isclass
from typing import TYPE_CHECKING, Any, Final

from cotbench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

_SOURCE: Final = (
    *("schemes", "tasks", "task_type", "scenario", "out_of_domain"),
    *("missing", "remedy", "unpassable", "data_version"),
)
"""Methods of a `TaskSource`."""


def check_class(name: str, env_class: object) -> None:
    """Check the class of an environment: its base, its methods, and what it tells of itself.

    Args:
        name: the environment's name.
        env_class: the class.

    Raises:
        UsageError: it is no subclass of `TextEnv`, or something is missing in it.
    """
    from cotbench.envs.base import TextEnv

    title = f"environment {name!r}"
    if not isclass(env_class) or not issubclass(env_class, TextEnv):
        raise UsageError(f"{title}: {_called(env_class)} is not a subclass of cotbench.TextEnv")
    for method in (method for method in vars(TextEnv) if _is_abstract(TextEnv, method)):
        if _is_abstract(env_class, method) or not callable(getattr(env_class, method)):
            raise UsageError(f"{title}: {env_class.__name__} has no method {method}: cotbench.TextEnv says what it returns")
    examples = getattr(env_class, "examples", None)
    texts = isinstance(examples, tuple) and all(isinstance(example, str) for example in examples)
    budget = getattr(env_class, "default_max_steps", None)
    _require(title, env_class, "instructions", isinstance(getattr(env_class, "instructions", None), str), "a text")
    _require(title, env_class, "examples", texts, "a tuple of texts")
    _require(title, env_class, "default_max_steps", isinstance(budget, int) and budget > 0, "a number above 0")


def check_source(name: str, source: object) -> None:
    """Check the task source of an environment.

    Raises:
        UsageError: it lacks a method.
    """
    for method in _SOURCE:
        if not callable(getattr(source, method, None)):
            raise UsageError(f"environment {name!r}: its task source, {_called(source)}, has no method {method}")


def check_fields(name: str, given: Collection[str], known: Collection[str], task_source: object) -> None:
    """Check what an environment is registered with.

    Args:
        name: the environment's name.
        given: names of the fields that were given.
        known: names of the fields that there are.
        task_source: makes its `TaskSource`, or names what does.

    Raises:
        UnknownNameError: a field is unknown.
        UsageError: the task source cannot be made.
    """
    for field in given:
        if field not in known:
            raise UnknownNameError("field", field, known, f"of environment {name!r}")
    if not callable(task_source) and not (isinstance(task_source, str) and ":" in task_source):
        raise UsageError(
            f"environment {name!r}: task_source is {_called(task_source)}; give a function that returns a TaskSource, "
            'or "module:attribute"'
        )


def _is_abstract(env_class: type, method: str) -> bool:
    return bool(getattr(getattr(env_class, method, None), "__isabstractmethod__", False))


def _require(title: str, env_class: type, field: str, fits: bool, wanted: str) -> None:
    if not fits:
        found = repr(getattr(env_class, field)) if hasattr(env_class, field) else "missing"
        raise UsageError(f"{title}: {env_class.__name__}.{field} is {found}, not {wanted}")


def _called(thing: Any) -> str:
    return f"the class {thing.__name__}" if isclass(thing) else f"a {type(thing).__name__}"
