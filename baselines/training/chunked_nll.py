"""Negative log-likelihood straight from hidden states, a piece at a time. Invariant: no more than `_LOGITS` logits exist at
once, whatever the vocabulary and the number of tokens; the backward pass computes them again.

A piece is two matrix products and a softmax of torch, on a GPU compiled into one kernel each way. What is left out compared
with fused kernels: logits that never leave the chip; they take a few per cent of a step, since only supervised tokens have any.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from cotbench.baselines.training.tree_attention import autocast_dtype

_LOGITS = 2**28
"""Logits that exist at once: 1 GiB in float32."""


def chunked_nll(hidden: Any, weight: Any, target: Any, *, rows: int | None = None) -> Any:
    """Return the negative log-likelihood (nats) of each target under softmax(hidden @ weight.T).

    Matrix products are computed in autocast's dtype, without it in the hidden states'; the softmax in float32.

    Args:
        hidden: (tokens, hidden size).
        weight: (vocabulary, hidden size), the output layer's.
        target: (tokens,), int64.
        rows: tokens of one piece; default: as many as `_LOGITS` allows.

    Returns:
        A tensor (tokens,), float32, with gradients for the hidden states and the weight.
    """
    return _ChunkedNLL.apply(hidden, weight, target, rows or max(1, _LOGITS // weight.shape[0]), autocast_dtype(hidden))


class _ChunkedNLL(torch.autograd.Function):  # type: ignore[misc]
    """Function of `chunked_nll`."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, target: Any, rows: int, dtype: Any) -> Any:
        cast, head = hidden.to(dtype), weight.to(dtype)
        nll = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        normaliser = torch.empty_like(nll)
        for start in range(0, len(hidden), rows):
            piece = slice(start, start + rows)
            # Copies of the pieces: for views a compiler looks at what they are views of, and compiles anew for its size.
            normaliser[piece], nll[piece] = _on(hidden.device, _normalised)(cast[piece] @ head.T, target[piece].clone())
        ctx.save_for_backward(cast, head, target, normaliser)
        ctx.rows, ctx.dtypes = rows, (hidden.dtype, weight.dtype)
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Any) -> tuple[Any, ...]:
        cast, head, target, normaliser = ctx.saved_tensors
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(cast) if of_hidden else None
        weight_grad = None
        for start in range(0, len(cast), ctx.rows):
            piece = slice(start, start + ctx.rows)
            given = (one[piece].clone(memory_format=torch.contiguous_format) for one in (normaliser, target, grad))
            share = _on(cast.device, _logits_gradient)(cast[piece] @ head.T, *given)
            if hidden_grad is not None:
                hidden_grad[piece] = share @ head
            if of_weight:
                added = (share.T @ cast[piece]).to(ctx.dtypes[1])
                weight_grad = added if weight_grad is None else weight_grad.add_(added)
        if hidden_grad is not None:
            hidden_grad = hidden_grad.to(ctx.dtypes[0])
        if of_weight and weight_grad is None:
            weight_grad = torch.zeros_like(head, dtype=ctx.dtypes[1])
        return hidden_grad, weight_grad, None, None, None


def _normalised(logits: Any, target: Any) -> tuple[Any, Any]:
    """Return the logarithm of softmax's denominator, and the negative log-likelihood, of each row."""
    exact = logits.float()
    normaliser = exact.logsumexp(dim=-1)
    return normaliser, normaliser - exact.gather(1, target[:, None])[:, 0]


def _logits_gradient(logits: Any, normaliser: Any, target: Any, grad: Any) -> Any:
    """Return the gradient of the logits: softmax minus the target, times the gradient of each row's loss."""
    place = torch.arange(logits.shape[1], device=logits.device)
    share = (logits.float() - normaliser[:, None]).exp() - (place == target[:, None]).float()
    return (share * grad[:, None]).to(logits.dtype)


def _on(device: Any, compute: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors as it is computed on a device."""
    return _compiled(compute) if device.type == "cuda" else compute


@functools.cache
def _compiled(compute: Callable[..., Any]) -> Any:
    return torch.compile(compute, dynamic=True)
