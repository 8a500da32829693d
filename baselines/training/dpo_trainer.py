"""The trainer of recipe `dpo`. Invariant: that of `trainer`; a row's loss is the sum of its pairs' losses divided by the
number of pairs of the whole step, so a step's loss does not depend on how it is divided into rows or among processes.

What is logged has the names of TRL's `DPOTrainer`: `logps/chosen` and `logps/rejected` are the sums that the loss sees (of a
masked pair without the action), `rewards/...` beta times their log-ratio to the reference.
"""

from __future__ import annotations

import math
from typing import Any, cast

from cotbench.baselines.training.dpo_loss import PairLogprobs, dpo_loss
from cotbench.baselines.training.pair_rows import PairRow, answer_sums, in_order
from cotbench.baselines.training.trainer import TreeTrainer
from cotbench.baselines.training.transfer import device_tensor

_LOGGED = ("logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")


class DPOTrainer(TreeTrainer):
    """Trainer whose dataset is a `PairDataset`.

    Args:
        beta, label_smoothing: as `dpo_loss` takes them.
    """

    def __init__(self, *, beta: float, label_smoothing: float, **rest: Any) -> None:
        super().__init__(**rest)
        self._beta, self._smoothing = beta, label_smoothing
        self._sums: Any = None

    def row_loss(self, nll: Any, weights: Any, packed: Any, count: int) -> Any:
        """Return a row's part of the step's loss.

        Args:
            nll: (tokens,) negative log-likelihoods.
            weights: (tokens,) the tokens' numbers in the row.
            packed: the row, a `PairRow`.
            count: number of pairs of the step.
        """
        row = cast(PairRow, packed)
        logprobs = in_order(nll, weights)
        reference = device_tensor(row.reference, logprobs.device, logprobs.dtype)
        pairs = PairLogprobs(*answer_sums(logprobs, row), *answer_sums(reference, row))
        counted = device_tensor(row.counted, logprobs.device, logprobs.dtype)
        self._note(pairs, counted)
        return (dpo_loss(pairs, self._beta, self._smoothing) * counted).sum() / count

    def row_weight(self, packed: Any, weights: Any) -> float:
        """Return the sum of the loss weights of a row's tokens.

        Args:
            packed: the row, a `PairRow`.
            weights: not used: they are the tokens' numbers.
        """
        return math.fsum(cast(PairRow, packed).loss_weights)

    def _note(self, pairs: PairLogprobs, counted: Any) -> None:
        """Add to the sums that are logged; the tensors stay where they are, so nothing waits for a GPU."""
        import torch

        with torch.no_grad():
            chosen, rejected = self._beta * pairs.chosen_ratio, self._beta * pairs.rejected_ratio
            columns = (pairs.chosen, pairs.rejected, chosen, rejected, chosen - rejected, (chosen > rejected).float())
            sums = torch.stack([*((column.detach() * counted).sum().float() for column in columns), counted.sum().float()])
            self._sums = sums if self._sums is None else self._sums + sums

    def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
        """Log the Trainer's numbers, with the means over the pairs in the loss since the last log."""
        if "loss" in logs:
            logs |= self._means()
        super().log(logs, *rest, **more)

    def _means(self) -> dict[str, float]:
        import torch

        sums, self._sums = self._sums, None
        if self.accelerator.num_processes > 1:  # All processes log at the same steps.
            none = torch.zeros(len(_LOGGED) + 1, device=self.args.device)
            sums = self.accelerator.reduce(none if sums is None else sums, "sum")
        if sums is None:
            return {}
        *totals, count = sums.tolist()
        return {name: total / count for name, total in zip(_LOGGED, totals, strict=True)} if count else {}
