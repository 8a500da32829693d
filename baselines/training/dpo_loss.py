"""The loss of direct preference optimisation (DPO). Invariant: a pure function of four sums of token log-probabilities; which
tokens are in the sums, and with what weight, is decided before, the same for all four.

Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; label smoothing: Mitchell 2023, "conservative DPO", not normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PairLogprobs:
    """Sums of log-probabilities (nats) of the two answers of each pair; sums, not means over the tokens.

    Attributes:
        chosen, rejected: (pairs,) under the model in training.
        reference_chosen, reference_rejected: (pairs,) under the model that the training began with.
    """

    chosen: Any
    rejected: Any
    reference_chosen: Any
    reference_rejected: Any

    @property
    def chosen_ratio(self) -> Any:
        """(pairs,) logarithm of the chosen answer's probability ratio to the reference."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Any:
        """(pairs,) the same of the rejected answer."""
        return self.rejected - self.reference_rejected


def dpo_margin(logprobs: PairLogprobs, beta: float) -> Any:
    """Return beta times the difference of the two log-ratios, (pairs,): the logit of preferring the chosen answer.

    Args:
        logprobs: of the pairs.
        beta: how strongly a departure from the reference counts.
    """
    return beta * (logprobs.chosen_ratio - logprobs.rejected_ratio)


def dpo_loss(logprobs: PairLogprobs, beta: float, label_smoothing: float = 0.0) -> Any:
    """Return the loss of each pair, (pairs,).

    Args:
        logprobs: of the pairs.
        beta: how strongly a departure from the reference counts.
        label_smoothing: probability that a pair is labelled the wrong way round, below 0.5.
    """
    from torch.nn.functional import logsigmoid

    margin = dpo_margin(logprobs, beta)
    loss = -(1 - label_smoothing) * logsigmoid(margin)
    return loss - label_smoothing * logsigmoid(-margin) if label_smoothing else loss
