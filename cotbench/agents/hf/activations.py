"""Activations on a CPU. Invariant: an element's bits depend on its value alone, not on how many rows are computed beside it nor
on the number of threads.

Torch computes an activation in vectors, and what is left over at the end of each thread's share one element at a time, by a
scalar routine whose last bit can differ. Where the shares end depends on the number of rows and of threads. Pieces that one
thread takes whole, and whose length is a multiple of every vector, leave nothing over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

_PIECE = 16_320
"""Elements of a piece: below 16,384, from which on torch shares some activations out, and a multiple of 64."""

_ACTIVATIONS = frozenset({"silu", "gelu", "mish", "sigmoid", "logsigmoid", "softplus", "elu", "celu", "selu"})
"""Names of torch's functions that are computed element by element with an exponential in them."""

_SAFE_THREADS = 2
"""Half of a multiple of four rows is a multiple of every vector."""


def activations_in_pieces(device: Any) -> AbstractContextManager[Any]:
    """Return a context in which activations are computed piece by piece, where that is needed.

    Args:
        device: where the model computes.
    """
    import torch

    if device.type != "cpu" or torch.get_num_threads() <= _SAFE_THREADS:
        return nullcontext()
    mode: AbstractContextManager[Any] = _mode()()
    return mode


@cache
def _mode() -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    class ActivationsInPieces(TorchFunctionMode):  # type: ignore[misc]
        """A mode that computes activations piece by piece."""

        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Sequence[type],
            args: Sequence[Any] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            named = kwargs or {}
            if getattr(func, "__name__", "") in _ACTIVATIONS and args and args[0].numel() > _PIECE:
                pieces = args[0].reshape(-1).split(_PIECE)
                return torch.cat([func(piece, *args[1:], **named) for piece in pieces]).reshape(args[0].shape)
            return func(*args, **named)

    return ActivationsInPieces
