"""Passes over the model that a training begins with: the log-probabilities of a reference, the scores that masks are chosen by,
a row that tries the kernels. Invariant: what a card's compiler cannot do is computed without it, here and in the training that
follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cotbench.baselines.training.loss import Losses, TreeLosses
from cotbench.baselines.training.model import TrainableModel, mixes_precision
from cotbench.baselines.training.options import TrainingDtype
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree

_T = TypeVar("_T")


def start_pass(trainable: TrainableModel, measure: Callable[[Losses], _T], dtype: TrainingDtype | None = None) -> _T:
    """Return what is measured on a model before its training.

    Args:
        trainable: the model; where its kernels fail, its losses are replaced by those that need none.
        measure: computes it with the given losses; called again where they failed.
        dtype: of the training, in whose numerics a reference is computed that the training is compared with. None: in those of
            the weights.
    """
    import torch

    from cotbench.baselines.training.loop import without_kernels

    device = trainable.model.device
    mixed = dtype is not None and mixes_precision(dtype, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        try:
            return measure(trainable.losses)
        except Exception as error:  # Whatever a compiler raises on a card that it does not know.
            if not isinstance(trainable.losses, TreeLosses) or isinstance(error, torch.OutOfMemoryError):
                raise
            trainable.losses = without_kernels(trainable, error)
        return measure(trainable.losses)


def try_kernels(trainable: TrainableModel, dtype: TrainingDtype) -> None:
    """Compute a small row forward and backward where the losses need a compiler, and leave no gradient.

    For a training that has no other way out once it has begun: copies of the model and engines that share its layers must have
    the attention that it will be trained with.

    Args:
        trainable: the model; where its kernels fail, its losses are replaced by those that need none.
        dtype: of the training.
    """
    if not isinstance(trainable.losses, TreeLosses):
        return
    model = trainable.model
    row = pack([Tree(tuple(range(1, 9)), (Branch(4, (1, 2), (1.0, 1.0)), Branch(8, (3, 4), (1.0, 1.0))))])

    def measure(losses: Losses) -> None:
        import torch

        nll, weights = losses(model, row, model.device)
        # The way to one weight goes through all layers; gradients of all would take as much memory as the model.
        torch.autograd.grad((nll * weights).sum(), next(one for one in model.parameters() if one.requires_grad))

    start_pass(trainable, measure, dtype)
