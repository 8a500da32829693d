"""Guessing how a text goes on. Invariant: a guess decides how many tokens one pass of the model yields, never which: each is
chosen from the logits that it would have been chosen from alone.

A pass over few rows takes as long as reading the weights, so some more rows cost next to nothing. What agents write repeats
itself: names out of the prompt, phrases of the last trace. So the tokens that followed the same tokens earlier in the episode
are put into the pass, and as many of them are kept as the model then chooses (prompt-lookup decoding; transformers has it
for one sequence within one call, not for a batch nor from turn to turn).
"""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST, _SHORTEST = 3, 2
"""Tokens that must have stood before, for a continuation to be guessed."""

_FIRST, _MOST = 3, 15
"""Tokens guessed at once: at first, and at most."""


class NgramIndex:
    """A growing text, in which the last place where given tokens stood is found at once."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}

    def extend(self, ids: Sequence[int]) -> None:
        """Append tokens."""
        for token in ids:
            # Before the token is there: a place is where something follows.
            for count in range(_SHORTEST, _LONGEST + 1):
                if len(self._ids) >= count:
                    self._places[tuple(self._ids[-count:])] = len(self._ids)
            self._ids.append(token)

    def after(self, tail: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens that followed the end of `tail` where it, or a part of it, stood last."""
        for length in range(min(_LONGEST, len(tail)), _SHORTEST - 1, -1):
            place = self._places.get(tuple(tail[-length:]))
            if place is not None:
                return self._ids[place : place + count]
        return []


class PromptLookup:
    """The guesses for one continuation, from its own text and from what was seen before it.

    How many tokens are guessed follows how many were right.
    """

    def __init__(self, before: NgramIndex, opened: Sequence[int]) -> None:
        self._before, self._own = before, NgramIndex()
        self._tail = list(opened)[-_LONGEST:]
        self._own.extend(self._tail)
        self._reach = _FIRST

    def draft(self, limit: int) -> list[int]:
        """What may come next, `limit` tokens at most."""
        count = min(limit, self._reach)
        if count < 1:
            return []
        return self._own.after(self._tail, count) or self._before.after(self._tail, count)

    def learn(self, chosen: Sequence[int], guessed: int) -> None:
        """Take note of the tokens that were chosen: all of `guessed` but for those that are missing, and one more."""
        self._own.extend(chosen)
        self._tail = [*self._tail, *chosen][-_LONGEST:]
        if guessed:
            right = len(chosen) - 1
            self._reach = min(_MOST, 2 * self._reach + 1) if right == guessed else max(1, right)
