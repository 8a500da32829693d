"""The trainer of losses over groups of branches. Invariant: that of `trainer`; a row's loss is the sum over its groups divided
by the number of groups of the whole step, so a step's loss does not depend on how it is divided into rows or among processes.
"""

from __future__ import annotations

from typing import Any

from cotbench.baselines.training.branch_loss import GroupLoss, group_losses
from cotbench.baselines.training.loss import plain_losses
from cotbench.baselines.training.trainer import TreeTrainer


class GroupTrainer(TreeTrainer):
    """Trainer whose trees have groups of branches.

    Args:
        group_loss: their loss. What it names beside it is logged, as means over the groups since the last log.
    """

    def __init__(self, *, group_loss: GroupLoss, **rest: Any) -> None:
        super().__init__(**rest)
        self._group_loss = group_loss
        self._figures: dict[str, list[Any]] = {}

    def row_loss(self, nll: Any, weights: Any, packed: Any, count: int) -> Any:
        """Return a row's part of the step's loss.

        Args:
            nll, weights: (tokens,) negative log-likelihoods and loss weights.
            packed: the row.
            count: number of groups of the step.
        """
        found, figures = group_losses(self._group_loss, nll, weights, packed, row_order=self._losses is not plain_losses)
        for name, numbers in figures.items():
            self._figures.setdefault(name, []).append(numbers.detach())
        return found.sum() / count

    def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
        """Log the Trainer's numbers, with this process's means over the groups since the last log."""
        if "loss" in logs:
            logs |= self._means()
        super().log(logs, *rest, **more)

    def _means(self) -> dict[str, float]:
        import torch

        found = {name: torch.cat(numbers) for name, numbers in self._figures.items()}
        self._figures = {}  # Read only here: reading waits for a GPU.
        return {name: round(float(numbers.mean()), 6) for name, numbers in found.items() if len(numbers)}
