"""Losses of groups of branches: a preference pair, the three answers of FRODO's answerer. Invariant: a loss is a function of
the summed log-probabilities of a group's branches, and is divided by the number of groups of the whole step; so it does not
depend on how a step is divided into rows.

A group is `size` branches of a tree, one after the other, such as (chosen, rejected). Log-probabilities are sums over a
branch's supervised tokens times their loss weights, not means: what a margin means would depend on the length of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cotbench.baselines.training.dpo_loss import PairLogprobs, dpo_loss, dpo_margin
from cotbench.baselines.training.loss import Losses, plain_losses
from cotbench.baselines.training.packing import Packed, pack
from cotbench.baselines.training.sequence_tree import Tree
from cotbench.baselines.training.transfer import device_tensor

Figures = dict[str, Any]
"""Name -> a number of each group, a tensor (groups,)."""


class GroupLoss(Protocol):
    """The loss of groups of `size` branches."""

    @property
    def size(self) -> int:
        """Number of branches of a group."""

    def __call__(self, logprobs: Any, references: Any, supervised: Any) -> tuple[Any, Figures]:
        """Return the loss of each group, a tensor (groups,), and what is logged.

        Args:
            logprobs: (groups, size) summed log-probabilities, in nats, with gradient.
            references: (groups, size) the same under the reference model; 0 where there is none.
            supervised: (groups, size) whether any token of the branch has a loss weight; on the CPU.
        """


def group_losses(loss: GroupLoss, nll: Any, weights: Any, packed: Packed, *, row_order: bool = True) -> tuple[Any, Figures]:
    """Return the loss of each group of a row, a tensor (groups,), and what is logged.

    Args:
        loss: of the groups.
        nll, weights: (tokens,) as a `Losses` returns them.
        packed: the row.
        row_order: whether the tokens come in the row's order, or branch by branch (`plain_losses`).
    """
    import torch

    logprobs = branch_sums(packed, -nll * weights, row_order=row_order)
    branches = [branch for tree in packed.trees for branch in tree.branches]
    references = device_tensor([one.reference for one in branches], logprobs.device, logprobs.dtype)
    supervised = torch.tensor([any(one.weights) for one in branches])
    return loss(*(numbers.view(-1, loss.size) for numbers in (logprobs, references, supervised)))


def branch_sums(packed: Packed, values: Any, *, row_order: bool = True) -> Any:
    """Return the sum over each branch's supervised tokens, a tensor (branches,), in the order of the trees and their branches.

    Args:
        packed: a row of trees whose trunks have no supervised tokens.
        values: (tokens,) a number of each supervised token.
        row_order: whether they come in the row's order, or branch by branch (`plain_losses`).

    Raises:
        ValueError: a trunk is supervised, or there is another number of tokens.
    """
    import torch

    places: list[int] = []
    start = 0
    for tree in packed.trees:
        if any(tree.weights):
            raise ValueError("a tree whose trunk is supervised has no groups of branches")
        order = list(range(len(tree.branches)))
        if row_order and order and tree.branches[-1].at == len(tree.trunk):
            order = [order[-1], *order[:-1]]  # `pack` appends this one to the trunk, before the others.
        for index in order:
            places += [start + index] * sum(weight > 0 for weight in tree.branches[index].weights)
        start += len(order)
    if len(places) != len(values):
        raise ValueError(f"{len(values)} values for {len(places)} supervised tokens")
    return values.new_zeros(start).index_add(0, device_tensor(places, values.device, torch.long), values)


def branch_logprobs(model: Any, trees: Sequence[Tree], *, compute: Losses, device: Any, tokens: int) -> list[tuple[float, ...]]:
    """Return the summed log-probability (nats) of each branch of each tree, without a gradient.

    Args:
        model: a transformers model.
        trees: whose branches have loss weights of 0 or 1.
        compute: the losses of a row, as the model is prepared for them.
        device: where it is.
        tokens: at most so many go through the model at once, except where a tree is longer.
    """
    import torch

    found: list[tuple[float, ...]] = []
    model.eval()
    with torch.inference_mode():
        for group in _rows(trees, tokens):
            packed = pack(group)
            nll, _ = compute(model, packed, device)
            sums = iter(branch_sums(packed, -nll, row_order=compute is not plain_losses).tolist())
            found += [tuple(next(sums) for _ in tree.branches) for tree in group]
    return found


def _rows(trees: Sequence[Tree], tokens: int) -> list[list[Tree]]:
    rows: list[list[Tree]] = []
    held = tokens + 1
    for tree in trees:
        if held + tree.tokens > tokens:
            rows.append([])
            held = 0
        rows[-1].append(tree)
        held += tree.tokens
    return rows


Preference = Callable[[Any, Any, Any, Any], tuple[Any, Figures]]
"""The loss of preference pairs: (chosen, rejected, their references), each (pairs,) summed log-probabilities -> (pairs,)."""


@dataclass(frozen=True, slots=True)
class SigmoidPreference:
    """DPO's loss: -log sigmoid of the margin (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

    Attributes:
        beta: what the difference of log-ratios is multiplied by.
    """

    beta: float

    def __call__(self, chosen: Any, rejected: Any, chosen_reference: Any, rejected_reference: Any) -> tuple[Any, Figures]:
        """See `Preference`."""
        pairs = PairLogprobs(chosen, rejected, chosen_reference, rejected_reference)
        margin = dpo_margin(pairs, self.beta)
        return dpo_loss(pairs, self.beta), {"margin": margin, "preferred": (margin > 0).float(), "chosen_logprob": chosen}


@dataclass(frozen=True, slots=True)
class PairLoss:
    """The loss of pairs of branches, (chosen, rejected).

    Attributes:
        preference: of the pair.
        likelihood_weight: weight of -log p(chosen) beside it.
    """

    preference: Preference
    likelihood_weight: float = 0.0

    @property
    def size(self) -> int:
        """Number of branches of a pair."""
        return 2

    def __call__(self, logprobs: Any, references: Any, supervised: Any) -> tuple[Any, Figures]:
        """See `GroupLoss`."""
        (chosen, rejected), (chosen_reference, rejected_reference) = logprobs.unbind(1), references.unbind(1)
        loss, figures = self.preference(chosen, rejected, chosen_reference, rejected_reference)
        return loss - self.likelihood_weight * chosen, figures
