"""The training loss. Invariant: the sum, over the supervised tokens, of weight times negative log-likelihood, divided by a
number of tokens that does not depend on how a step is divided into passes: all answer tokens of the step, so that a mask takes
away what it masks and changes the weight of nothing else; or those of a weight above 0 (`loss_normalisation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cotbench.baselines.training.packing import Packed

Losses = Callable[[Any, Packed, Any], tuple[Any, Any]]
"""Returns negative log-likelihood and weight of each supervised token of a row: `losses`, `plain_losses` or a `TreeLosses`."""


def losses(model: Any, packed: Packed, device: Any = "cpu") -> tuple[Any, Any]:
    """Return negative log-likelihood (nats) and weight of each supervised token, in the row's order.

    The vocabulary's logits are computed for the supervised tokens alone.

    Args:
        model: must use the attention of `cotbench.baselines.training.packing`.
        packed: the row.
        device: where the model is.

    Returns:
        Two tensors (tokens,), float32.
    """
    import torch
    from torch.nn.functional import cross_entropy

    out = model(
        input_ids=torch.tensor([packed.ids], device=device),
        position_ids=torch.tensor([packed.positions], device=device),
        use_cache=False,
        logits_to_keep=torch.tensor(packed.source, dtype=torch.long, device=device),
        cotbench_packed=packed,
    )
    target = torch.tensor(packed.target, dtype=torch.long, device=device)
    return cross_entropy(out.logits[0].float(), target, reduction="none"), torch.tensor(packed.weight, device=device)


@dataclass(frozen=True, slots=True)
class TreeLosses:
    """The same for a GPU: `tree_attention`, rows padded to few lengths, one transfer, logits a piece at a time.

    Attributes:
        buckets: lengths that rows are padded to, in ascending order; a longer row is padded to a multiple of 128 tokens.
        dense: whether attention has a mask over the whole row instead of FlexAttention's blocks.
        own_head: whether the model computes all logits itself, at once: weights that are divided among processes are there
            only while their layer computes.
    """

    buckets: Sequence[int] = ()
    dense: bool = False
    own_head: bool = False

    def __call__(self, model: Any, packed: Packed, device: Any = "cpu") -> tuple[Any, Any]:
        """Return what `losses` returns, without waiting for the device.

        Args:
            model: must use the attention of `cotbench.baselines.training.tree_attention`; it may be wrapped.
            packed: the row.
            device: where the model is.
        """
        from torch.nn.functional import cross_entropy

        from cotbench.baselines.training.chunked_nll import chunked_nll
        from cotbench.baselines.training.tree_row import block_mask, dense_mask, padded, tree_row

        row = tree_row(packed, device, padded(len(packed.ids), self.buckets))

        def output() -> Any:
            mask = dense_mask(row) if self.dense else block_mask(row)
            out = model(
                input_ids=row.ids, position_ids=row.positions, use_cache=False, logits_to_keep=row.source, cotbench_trees=mask
            )
            return out.logits[0]

        if self.own_head:
            return cross_entropy(output().float(), row.target, reduction="none"), row.weight
        head = _output_layer(model)
        with _skipped(head):
            hidden = output()
        return chunked_nll(hidden, head.weight, row.target), row.weight


def _output_layer(model: Any) -> Any:
    """Return the layer that computes a model's logits, whatever wraps the model; a plain linear one without a bias.

    Raises:
        NotImplementedError: it is another.
    """
    import torch

    model = getattr(model, "module", model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None:
        raise NotImplementedError("an output layer that is not a plain linear one")
    return head


@contextmanager
def _skipped(layer: Any) -> Iterator[None]:
    """Let a layer return what it is given, so that a model returns the hidden states that it would compute logits of."""
    before = vars(layer).get("forward")
    layer.forward = lambda hidden: hidden
    try:
        yield
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before


def plain_losses(model: Any, packed: Packed, device: Any = "cpu") -> tuple[Any, Any]:
    """Return the same with the model's own attention, in another order of tokens: each branch with its history, one by one.

    For layers that the packed attention does not support. Takes the arguments of `losses`.
    """
    import torch
    from torch.nn.functional import cross_entropy

    nlls, weights = [], []
    for ids, counts in _sequences(packed):
        logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, :-1].float()
        supervised = [place for place, weight in enumerate(counts[1:]) if weight > 0]
        target = torch.tensor([ids[place + 1] for place in supervised], device=device)
        nlls.append(cross_entropy(logits[supervised], target, reduction="none"))
        weights += [counts[place + 1] for place in supervised]
    return torch.cat(nlls), torch.tensor(weights, device=device)


def mean_loss(nll: Any, weight: Any, count: int | None = None) -> Any:
    """Return the weighted sum over the tokens, divided by their number.

    Args:
        nll: negative log-likelihoods (tokens,).
        weight: of each (tokens,); all above 0, some may be above 1.
        count: what the sum is divided by (see `StepBatch`); default: the number of these tokens.
    """
    return (nll * weight).sum() / (len(nll) if count is None else count)


def _sequences(packed: Packed) -> list[tuple[list[int], list[float]]]:
    found = []
    for tree in packed.trees:
        if any(tree.weights) or not tree.branches:
            found.append((list(tree.trunk), list(tree.weights)))
        for branch in tree.branches:
            found.append(([*tree.trunk[: branch.at], *branch.ids], [0.0] * branch.at + list(branch.weights)))
    return [(ids, counts) for ids, counts in found if any(counts[1:])]
