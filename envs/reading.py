"""What an environment makes of an agent's text. Invariant: there is an answer for every text, the same for whoever asks.

An environment's `canonical` and `equivalent` have to take any text, but their code may fail at one that nobody has thought of.
That is not the episode's error, or else a model could take its losses out of the figures: the text stands for itself then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cotbench.json_text import replace_surrogates

_log = logging.getLogger(__name__)


def read_action(canonical: Callable[[str], str], action: str) -> str:
    """Return an action's spelling, which can be written to a file; the action itself where `canonical` fails at it.

    Args:
        canonical: of an environment.
        action: the text of an agent's action.
    """
    try:
        spelling = canonical(action)
    except Exception:
        _log.debug("an action has no spelling and is taken as it stands", exc_info=True)
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
        _log.debug("two actions cannot be compared and are taken as they stand", exc_info=True)
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
        _log.debug("an answer cannot be judged leniently", exc_info=True)
        return None
