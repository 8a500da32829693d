"""Choosing the next token. Invariant: a choice depends on the logits and the seed of its own sequence alone."""

from __future__ import annotations

from typing import Any


class Sampler:
    """Picks tokens for one continuation.

    Args:
        temperature: 0 is greedy.
        top_p: the nucleus: the fewest tokens whose probability reaches it.
        seed: of a generator of its own.
    """

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self._temperature, self._top_p, self._seed = temperature, top_p, seed
        self._generator: Any = None

    def choose(self, logits: Any) -> tuple[int, float]:
        """The next token, and the natural logarithm of its probability at temperature 1; `logits` is float32, (vocabulary)."""
        import torch

        logprobs = torch.log_softmax(logits, dim=-1)
        if self._temperature == 0.0:
            token = int(torch.argmax(logits))
            return token, float(logprobs[token])
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self._seed)
        chances, order = torch.sort(torch.softmax(logits.cpu() / self._temperature, dim=-1), descending=True, stable=True)
        # The nucleus; the most probable token always belongs to it.
        chances = torch.where(torch.cumsum(chances, dim=-1) - chances < self._top_p, chances, torch.zeros(()))
        token = int(order[int(torch.multinomial(chances, 1, generator=self._generator))])
        return token, float(logprobs[token])
