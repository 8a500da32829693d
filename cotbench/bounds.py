"""How long a text may be that an agent, an environment or a server gives. Invariant: a text is cut where it arises, before it
is sent, stored or shown; the same text is always cut in the same way, and ends with a mark.

Upstream's texts and models' answers are far shorter: an episode has some 100,000 characters.
"""

from __future__ import annotations

TEXT_CHARS = 1_000_000
"""Characters of an observation, a trace, an action, a whole answer."""

OBSERVATIONS_CHARS = 16_000_000
"""Characters of all observations of an episode."""

ANSWERS_CHARS = 64_000_000
"""Characters of all that an agent answers in an episode: 168 steps with traces of 32,000 tokens, each there twice, fit."""

ERROR_CHARS = 10_000
"""Characters of an error, and of a traceback."""

_SPENT_CHARS = 1_000


def bounded(text: str, limit: int = TEXT_CHARS) -> str:
    """Return a text of at most so many characters: the text, or its beginning and a mark that says how long it was.

    Args:
        text: the text.
        limit: in characters; the mark has some 30 of them.
    """
    if len(text) <= limit:
        return text
    mark = f" [cut: {len(text):,} characters]"
    return text[: limit - len(mark)] + mark


class TextBudget:
    """Bounds the texts of an episode: each, and all of them together. Of those that come when the budget is spent the first
    `_SPENT_CHARS` characters stay.

    Args:
        limit: characters of all of them.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, text: str) -> str:
        """Return the text, bounded, and count it."""
        text = bounded(text, min(TEXT_CHARS, max(_SPENT_CHARS, self._left)))
        self._left -= len(text)
        return text
