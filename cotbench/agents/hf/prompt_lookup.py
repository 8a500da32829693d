"""Prompt-lookup decoding: draft tokens copied from earlier text. Invariant: a draft decides how many tokens one forward pass
yields, never which: each is chosen from the logits that it would have been chosen from alone.

A forward pass over few rows takes as long as reading the weights, so some more rows cost next to nothing. What agents write
repeats itself: names out of the prompt, phrases of the last trace. So the tokens that followed the same n-gram earlier in the
episode are put into the pass, and as many of them are kept as the model then chooses. transformers has this method
(`prompt_lookup_num_tokens`) for one sequence within one call of `generate`, not for a batch nor from turn to turn.
"""

from __future__ import annotations

from collections.abc import Sequence

_MAX_NGRAM, _MIN_NGRAM = 3, 2
"""Length of the n-grams that are looked up, in tokens; the longest that is found counts."""

_FIRST_DRAFT, _LONGEST_DRAFT = 3, 15
"""Length of a draft in tokens: at first, and at most."""


class NgramIndex:
    """A growing sequence of tokens that finds the last occurrence of an n-gram in constant time."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}

    def extend(self, ids: Sequence[int]) -> None:
        """Append tokens."""
        for token in ids:
            # Before the token is appended: an n-gram counts once something follows it.
            for length in range(_MIN_NGRAM, _MAX_NGRAM + 1):
                if len(self._ids) >= length:
                    self._places[tuple(self._ids[-length:])] = len(self._ids)
            self._ids.append(token)

    def after(self, tail: Sequence[int], count: int) -> list[int]:
        """Return up to `count` tokens that followed the last occurrence of the longest indexed n-gram that ends `tail`."""
        for length in range(min(_MAX_NGRAM, len(tail)), _MIN_NGRAM - 1, -1):
            place = self._places.get(tuple(tail[-length:]))
            if place is not None:
                return self._ids[place : place + count]
        return []


class PromptLookup:
    """Draft the next tokens of one continuation, from its own text first, then from the episode before it.

    The length of the drafts adapts to how many of their tokens are accepted.

    Args:
        episode: what was read and written before.
        prefix: the tokens that the continuation begins after; their end is what is looked up first.
    """

    def __init__(self, episode: NgramIndex, prefix: Sequence[int]) -> None:
        self._episode, self._own = episode, NgramIndex()
        self._tail = list(prefix)[-_MAX_NGRAM:]
        self._own.extend(self._tail)
        self._length = _FIRST_DRAFT

    def draft(self, limit: int) -> list[int]:
        """Return what may come next, `limit` tokens at most; nothing where no n-gram is found."""
        count = min(limit, self._length)
        if count < 1:
            return []
        return self._own.after(self._tail, count) or self._episode.after(self._tail, count)

    def update(self, chosen: Sequence[int], drafted: int) -> None:
        """Take in the tokens that the model chose.

        Args:
            chosen: the accepted tokens of the draft, and one more.
            drafted: how many tokens the draft had.
        """
        self._own.extend(chosen)
        self._tail = [*self._tail, *chosen][-_MAX_NGRAM:]
        if drafted:
            accepted = len(chosen) - 1
            self._length = min(_LONGEST_DRAFT, 2 * self._length + 1) if accepted == drafted else max(1, accepted)
