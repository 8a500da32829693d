"""Spelling of ScienceWorld's actions, and parsing of its answers. Invariant: pure text; no simulator is needed."""

from __future__ import annotations

import re

UNKNOWN = "No known action matches that input."
"""Upstream's answer to an action that it cannot read; also our answer to actions that are refused."""

REFUSED = ("reset task",)
"""Actions of upstream's list that are refused: they would restart the episode while it runs."""

_AMBIGUOUS = "Ambiguous request:"
_OPTION = re.compile(r"^(\d+):", re.MULTILINE)


def canonical(action: str) -> str:
    """Return the spelling under which an action is executed: the first line, lower case, single spaces, no final stop."""
    line = next((line for line in action.splitlines() if line.strip()), "")
    return " ".join(line.lower().split()).rstrip(".").rstrip()


def options(text: str) -> list[str]:
    """Return the numbers that an ambiguous request accepts, in order; nothing if the text is no such request.

    Args:
        text: upstream's answer to an action.
    """
    return _OPTION.findall(text) if text.startswith(_AMBIGUOUS) else []


def why_invalid(action: str, text: str) -> str | None:
    """Return why an action did nothing, as far as upstream's text tells; None if it did something.

    Args:
        action: the canonical action.
        text: upstream's answer to it.
    """
    if not action:
        return "empty action"
    if action in REFUSED:
        return f"{action!r} is refused: an episode is started anew by the harness alone"
    if text.startswith(UNKNOWN):
        return "no known action matches"
    return None
