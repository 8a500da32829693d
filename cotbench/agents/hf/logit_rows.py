"""Rows of logits that belong to one continuation, from which its next tokens are chosen. Invariant: however the rows were
computed, a continuation takes them by the same two questions: the next token, or the probability of a given text.
"""

from __future__ import annotations

from typing import Any, Protocol

from cotbench.agents.hf.batched_forward import ChosenRows
from cotbench.agents.hf.continuation import Continuation
from cotbench.prompting.generation import Generation


class LogitRows(Protocol):
    """Some consecutive rows of logits."""

    def __len__(self) -> int:
        """Return how many rows there are."""
        ...

    def append_to(self, continuation: Continuation, row: int) -> Generation | None:
        """Choose a continuation's next token from a row; return what `Continuation.append_token` returns."""
        ...

    def score(self, continuation: Continuation) -> Generation:
        """Return a continuation's forced text with its log-probabilities; row i predicts token i."""
        ...


class PlainLogitRows:
    """Rows of logits as they are: float32, (rows, vocabulary)."""

    def __init__(self, logits: Any) -> None:
        self._logits = logits

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._logits)

    def append_to(self, continuation: Continuation, row: int) -> Generation | None:
        """Choose a continuation's next token from a row."""
        return continuation.append_token(self._logits[row])

    def score(self, continuation: Continuation) -> Generation:
        """Return a continuation's forced text with its log-probabilities."""
        return continuation.score(self._logits)


class ChosenLogitRows:
    """Rows of which the host holds what greedy decoding and scoring need.

    Args:
        chosen: the rows of a whole pass.
        start: the first row of these.
        count: how many there are.
    """

    def __init__(self, chosen: ChosenRows, start: int, count: int) -> None:
        self._chosen, self._start, self._count = chosen, start, count

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._count

    def append_to(self, continuation: Continuation, row: int) -> Generation | None:
        """Choose a continuation's next token from a row."""
        place = self._start + row
        if continuation.greedy:
            return continuation.append_chosen(self._chosen.ids[place], self._chosen.logprobs[place])
        if self._chosen.top is not None:
            return continuation.append_sampled(self._chosen.top, self._chosen.top_places[place])
        return continuation.append_token(self._chosen.logits[place])

    def score(self, continuation: Continuation) -> Generation:
        """Return a continuation's forced text with its log-probabilities."""
        return continuation.scored(self._chosen.target_logprobs[self._start : self._start + self._count])
