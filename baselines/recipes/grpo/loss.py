"""Loss of GRPO, token by token. Invariant: every function is a sum over tokens with fixed denominators, so that the gradient
does not depend on how an update is divided into passes; a token of weight 0 has no part in the term, and no part of its
denominator is lost with it.

Sources: the clipped ratio is PPO's (arXiv 1707.06347, 3); the estimator k3 of the divergence is Schulman's ("Approximating KL
divergence", 2020), in the loss as in DeepSeekMath (arXiv 2402.03300, eq. 4). What is left out: the second clip of a ratio with
a negative advantage (TRL's `delta`), and the correction for tokens that were sampled in other numerics: the log-probabilities
that ratios are taken to are the trainer's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

LossMean = Literal["token", "sequence"]
"""Over what the loss is averaged. `token`: all tokens of the update (DAPO, arXiv 2503.14476): long episodes weigh more.
`sequence`: the tokens of each episode, then the episodes (DeepSeekMath).
"""


def clipped_policy_loss(logprob: Any, old: Any, advantage: Any, epsilon: float) -> Any:
    """Return -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) of each token, with r = exp(logprob - old).

    At r = 1 the gradient is that of -A logprob.

    Args:
        logprob: (tokens,) log-probabilities under the model that is trained, with gradient.
        old: (tokens,) under the model that the tokens were sampled from.
        advantage: (tokens,).
        epsilon: how far the ratio may move before the gradient stops.

    Returns:
        A tensor (tokens,).
    """
    import torch

    ratio = (logprob - old.detach()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)


def clipped(logprob: Any, old: Any, advantage: Any, epsilon: float) -> Any:
    """Return, for each token, whether the clip took its gradient.

    Args:
        logprob, old, advantage, epsilon: as `clipped_policy_loss` takes them.

    Returns:
        A tensor (tokens,), bool.
    """
    ratio = (logprob - old).exp()
    return ((ratio > 1 + epsilon) & (advantage > 0)) | ((ratio < 1 - epsilon) & (advantage < 0))


def k3(logprob: Any, reference: Any) -> Any:
    """Return exp(d) - d - 1 of each token, with d = reference - logprob: an estimate of KL(model || reference).

    It is never negative, and unbiased where the tokens were sampled from the model.

    Args:
        logprob: (tokens,) under the model that is trained, with gradient.
        reference: (tokens,) under the reference model.

    Returns:
        A tensor (tokens,).
    """
    difference = reference.detach() - logprob
    return difference.exp() - difference - 1


def token_shares(counts: Sequence[int], mean: LossMean) -> tuple[float, ...]:
    """Return what one token of each episode counts in the loss.

    Args:
        counts: of each episode of the update the number of tokens in the denominator: all that the model wrote, masked or not.
        mean: over what is averaged.

    Returns:
        One factor for each episode; times its tokens they sum to 1. An episode without tokens has 0.
    """
    if mean == "token":
        total = sum(counts)
        return tuple(1 / total if count else 0.0 for count in counts)
    filled = sum(count > 0 for count in counts)
    return tuple(1 / (count * filled) if count else 0.0 for count in counts)


def grpo_loss(
    logprob: Any,
    old: Any,
    reference: Any | None,
    *,
    advantage: Any,
    policy_weight: Any,
    kl_weight: Any,
    epsilon: float,
    kl_coef: float,
) -> Any:
    """Return the sum over tokens of policy weight times clipped loss, plus KL weight times `kl_coef` times `k3`.

    Args:
        logprob: (tokens,) with gradient.
        old: (tokens,).
        reference: (tokens,); None where `kl_coef` is 0.
        advantage: (tokens,).
        policy_weight, kl_weight: (tokens,) a token's share of the mean (`token_shares`) times the weight that a mask leaves it.
        epsilon: of the clip.
        kl_coef: of the divergence.

    Returns:
        A scalar with gradient.
    """
    loss = (policy_weight * clipped_policy_loss(logprob, old, advantage, epsilon)).sum()
    if reference is not None and kl_coef:
        loss = loss + kl_coef * (kl_weight * k3(logprob, reference)).sum()
    return loss
