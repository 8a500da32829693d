"""What an environment makes of an agent's text. Invariant: there is an answer for every text, the same for whoever asks.

An environment's `canonical` and `equivalent` have to take any text, but their code may fail at one that nobody has thought of.
That is not the episode's error, or else a model could take its losses out of the figures: the text stands for itself then, and
a warning names the code that failed, once in a process.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

from cotbench.json_text import replace_surrogates

_log = logging.getLogger(__name__)


class ActionParts(NamedTuple):
    """An action, taken apart.

    Attributes:
        form: the action with "{}" in the place of each argument: "take {} from {}".
        arguments: the names and values in these places.
    """

    form: str
    arguments: tuple[str, ...] = ()


def word_parts(action: str) -> ActionParts:
    """Return the first word of an action as its form, and each further word as an argument.

    Args:
        action: a canonical action.
    """
    verb, *words = action.split() or [""]
    return ActionParts(" ".join([verb, *["{}"] * len(words)]), tuple(words))


def read_parts(action_parts: Callable[[str], ActionParts], action: str) -> ActionParts:
    """Return the parts of an action; its words where `action_parts` fails at it.

    Args:
        action_parts: of an environment.
        action: a canonical action.
    """
    try:
        form, arguments = action_parts(action)
        return ActionParts(str(form), tuple(map(str, arguments)))
    except Exception:
        _warn(action_parts, "an action is taken apart word by word")
        return word_parts(action)


def read_action(canonical: Callable[[str], str], action: str) -> str:
    """Return an action's spelling, which can be written to a file; the action itself where `canonical` fails at it.

    Args:
        canonical: of an environment.
        action: the text of an agent's action.
    """
    try:
        spelling = canonical(action)
    except Exception:
        _warn(canonical, "an action is taken as it stands")
        spelling = action
    return str(replace_surrogates(spelling if isinstance(spelling, str) else action))


def are_equivalent(equivalent: Callable[[str, str], bool], first: str, second: str) -> bool:
    """Return whether two actions have the same effect; where `equivalent` fails at them, whether they are the same.

    Args:
        equivalent: of an environment.
        first: an action.
        second: another one.
    """
    try:
        return bool(equivalent(first, second))
    except Exception:
        _warn(equivalent, "two actions are compared as they stand")
        return first == second


def lenient_kind(judged: Callable[[str, str], str | None], task: str, answer: str) -> str | None:
    """Return what a right answer was, as `leniently_judged` of an environment says; None where that fails.

    Args:
        judged: of an environment.
        task: the task id.
        answer: the text of the last action.
    """
    try:
        return judged(task, answer)
    except Exception:
        _warn(judged, "an answer counts as none that was judged leniently")
        return None


_failed: set[str] = set()


def _warn(code: Callable[..., object], consequence: str) -> None:
    """Warn that an environment's code fails at a text, once for each function; to be called while its error is handled."""
    name = f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', type(code).__name__)}"
    if name not in _failed:
        _failed.add(name)
        error = type(sys.exc_info()[1]).__name__
        _log.warning("%s failed at an agent's text (%s): %s", name, error, consequence)
