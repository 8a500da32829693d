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
        """Log the Trainer's numbers, with the means over the groups of all processes since the last log."""
        if "loss" in logs:
            logs |= self._means()
        super().log(logs, *rest, **more)

    def _means(self) -> dict[str, float]:
        import torch

        found, self._figures = self._figures, {}  # Read only here: reading waits for a GPU.
        # Of no groups: the names in their order, also for a process that had none since the last log.
        none = torch.zeros(0, self._group_loss.size, device=self.args.device)
        _, figures = self._group_loss(none, none, none.bool().cpu())
        columns = [torch.cat([figures[name], *found.get(name, ())]).float() for name in figures]
        sums = torch.stack([torch.stack([column.sum(), column.new_tensor(float(len(column)))]) for column in columns])
        if self.accelerator.num_processes > 1:  # All processes log at the same steps.
            sums = self.accelerator.reduce(sums, "sum")
        return {name: round(total / count, 6) for name, (total, count) in zip(figures, sums.tolist(), strict=True) if count}
