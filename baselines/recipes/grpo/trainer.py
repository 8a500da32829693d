"""transformers' Trainer over batches of rollouts. Invariant: a batch is played by the weights that its first update begins
with; checkpoints are written between batches alone, so a training killed at any moment and resumed ends with the same weights
(on a CPU, bit for bit); several processes learn from the same batch what one does, each from its share of the rows.

What the Trainer's dataset holds is the schedule: which tasks a batch plays. Optimizer, checkpoints, cards, resuming, adapters
and trackers are those of the other recipes (`training.trainer`). The log-probabilities that ratios are taken to are those of a
batch's first update: the weights are still the ones that sampled, so they are recomputed in the trainer's own numerics, at no
cost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from cotbench.baselines.recipes.grpo.batch import PolicyBatch
from cotbench.baselines.recipes.grpo.config import GRPOConfig
from cotbench.baselines.recipes.grpo.loss import clipped, grpo_loss, k3
from cotbench.baselines.recipes.grpo.rollouts import TaskBatch
from cotbench.baselines.training.batching import TrainingStep
from cotbench.baselines.training.dataset import portion
from cotbench.baselines.training.processes import Processes
from cotbench.baselines.training.token_logprobs import TokenRow, group_cost, row_groups, token_logprobs
from cotbench.baselines.training.trainer import TreeTrainer
from cotbench.baselines.training.transfer import device_tensor
from cotbench.errors import CotbenchError

_WIDEST_GAP = 0.5
"""Mean distance (nats) of a token's two log-probabilities, when it is sampled and when it is learned, beyond which they are of
other weights: the number formats that both are computed in differ by a hundredth of it.
"""

Sample = Callable[[TaskBatch], PolicyBatch]
"""Plays the rollouts of a batch with the weights as they are now."""

Reference = Callable[[Sequence[TokenRow]], Any]
"""Returns the reference model's log-probabilities of the tokens that rows ask for, without gradient."""


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """One update of the weights.

    Attributes:
        batch: whose rollouts it learns from.
        iteration: how many updates the same rollouts were used for before.
    """

    batch: TaskBatch
    iteration: int


class UpdateDataset:
    """Schedule of a training as a dataset: item `update * processes + process` is that process's; all have the same one.

    Args:
        batches: the batches of rollouts.
        iterations: updates on each.
        processes: that train together.
    """

    def __init__(self, batches: Sequence[TaskBatch], iterations: int, processes: int = 1) -> None:
        self._processes = processes
        self._updates = [UpdateStep(batch, number) for batch in batches for number in range(iterations)]
        self.steps = [TrainingStep(one.batch.epoch, one.batch.progress, ()) for one in self._updates]

    def __len__(self) -> int:
        return len(self._updates) * self._processes

    def __getitem__(self, index: int) -> UpdateStep:
        return self._updates[index // self._processes]


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that go through the model at once.

    Attributes:
        rows: the rows.
        begin, end: where their tokens stand among those of the batch.
        counted: 1.0; 0.0 for rows of another process, computed so that no process waits.
    """

    rows: tuple[TokenRow, ...]
    begin: int
    end: int
    counted: float = 1.0


@dataclass(slots=True)
class _OpenBatch:
    """A batch between its updates: what it is, and the log-probabilities of its tokens before the first of them.

    Attributes:
        batch: what is learned.
        parts: this process's share of its rows.
        old, reference: of each part, (tokens,).
    """

    batch: PolicyBatch
    parts: list[_Part]
    old: list[Any]
    reference: list[Any]


class GRPOTrainer(TreeTrainer):
    """Trainer whose dataset is an `UpdateDataset`.

    Args:
        config: the options.
        sample: plays the rollouts of a batch; all processes get the same ones.
        reference: log-probabilities under the model that the training began with; None where no divergence from it is taken.
        processes: that train together.
        rest: as `TreeTrainer` takes it.
    """

    def __init__(
        self, *, config: GRPOConfig, sample: Sample, reference: Reference | None, processes: Processes, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self._config, self._sample, self._reference, self._processes = config, sample, reference, processes
        self._open: _OpenBatch | None = None
        self._logged: list[Mapping[str, float]] = []
        self.counts |= {"episodes": 0.0, "groups": 0.0, "zero_variance_groups": 0.0, "flat_batches": 0.0}

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Play a batch where it is the first update on it, compute the update's gradient, and return its loss.

        Args:
            model: the model, wrapped by accelerate.
            inputs: the update, as the dataset holds it.
            num_items_in_batch: not used.

        Raises:
            CotbenchError: as many batches in a row as `patience` says had no group to learn from.
        """
        update = cast(UpdateStep, inputs["portion"])
        if update.iteration == 0:
            self._begin(update)
        open_batch = self._open
        if open_batch is None:
            raise RuntimeError("a training goes on in the middle of a batch, whose rollouts nobody has")
        model.train()
        loss, numbers = self._learn(model, open_batch, first=update.iteration == 0)
        self._logged.append({**numbers, **(open_batch.batch.numbers if update.iteration == 0 else {})})
        tokens = sum(group_cost(part.rows) for part in open_batch.parts if part.counted)
        first = self._processes.rank == 0  # All know the actions of the whole batch, and the counts of all are added.
        self._add_counts(tokens, open_batch.batch.actions * first, open_batch.batch.actions_in_loss * first)
        if update.iteration + 1 < self._config.num_iterations:
            self.stopping = False  # Saved between batches alone: nobody could play this one again.
        return loss * self.accelerator.num_processes  # The Trainer logs the mean over the processes.

    def _begin(self, update: UpdateStep) -> None:
        """Play the batch of an update, and count what it brought."""
        batch = self._sample(update.batch)
        numbers = batch.numbers
        self.counts["episodes"] += self._config.group_size * len(update.batch.tasks)
        self.counts["groups"] += numbers["groups"]
        self.counts["zero_variance_groups"] += numbers["zero_variance_groups"]
        self.counts["flat_batches"] = 0.0 if batch.rows else self.counts["flat_batches"] + 1
        if self.counts["flat_batches"] >= self._config.patience:
            raise CotbenchError(_nothing_to_learn(self._config, update.batch.update, numbers))
        parts = self._share(batch)
        with self.compute_loss_context_manager(), self.accelerator.autocast():  # In the numerics of what it is compared with.
            reference = [self._reference(part.rows) for part in parts] if self._reference is not None else []
        self._open = _OpenBatch(batch, parts, [], reference)

    def _share(self, batch: PolicyBatch) -> list[_Part]:
        """Return this process's rows, and some of another that count nothing, so that all processes make as many passes."""
        parts: list[_Part] = []
        end = 0
        for rows in row_groups(batch.rows, self._config.max_tokens_per_forward):
            begin, end = end, end + sum(row.count for row in rows)
            parts.append(_Part(rows, begin, end))
        own, others = portion(parts, self._processes.rank, self._processes.count)
        return [*own, *(replace(part, counted=0.0) for part in others)]

    def _learn(self, model: Any, open_batch: _OpenBatch, *, first: bool) -> tuple[Any, dict[str, float]]:
        """Compute the gradient of an update, one part after the other; return this process's share of its loss, and what is
        logged of all of it.
        """
        config, batch, device = self._config, open_batch.batch, self.args.device
        total = torch.zeros((), device=device)
        # Of divergence, of clipped tokens, of the distance between playing and learning, and its maximum.
        sums, widest = torch.zeros(3, dtype=torch.float64, device=device), torch.zeros((), dtype=torch.float64, device=device)
        for index, part in enumerate(open_batch.parts):
            last = index == len(open_batch.parts) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed takes a step with every pass that syncs.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager(), self.accelerator.autocast():
                    logprob = token_logprobs(
                        model, part.rows, compute=self._losses, device=device, tokens=config.max_tokens_per_forward
                    )
                    now = logprob.detach()
                    if first:
                        open_batch.old.append(now)
                    advantage = _of(batch.advantage, part, device)
                    reference = open_batch.reference[index] if open_batch.reference else None
                    loss = part.counted * grpo_loss(
                        logprob,
                        open_batch.old[index],
                        reference,
                        advantage=advantage,
                        policy_weight=_of(batch.policy_weight, part, device),
                        kl_weight=_of(batch.kl_weight, part, device),
                        epsilon=config.clip,
                        kl_coef=config.kl_coef,
                    )
                # Gradients are averaged over the processes, where a sum is wanted.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            if not part.counted:
                continue
            total = total + loss.detach()
            none = torch.zeros((), device=device)
            distance = (now - _of(batch.sampled, part, device)).abs() if first else none[None]
            widest = torch.maximum(widest, distance.max())
            hit = clipped(now, open_batch.old[index], advantage, config.clip).sum()
            kl = k3(now, reference).sum() if reference is not None else none
            sums = sums + torch.stack([one.double() for one in (kl, hit, distance.sum())])
            self._computed["supervised"] += part.end - part.begin
        # Read only here: reading waits for a GPU.
        shares = self._processes.together(lambda: torch.cat([sums, widest[None]]).tolist())
        tokens = len(batch.advantage)
        mean_gap = sum(one[2] for one in shares) / max(1, tokens)
        if mean_gap > _WIDEST_GAP:
            raise CotbenchError(
                f"the rollouts are not of the weights in training: log-probabilities of their tokens differ by {mean_gap:.2f} "
                "nats on average between playing and learning; with --rollouts vllm the server does not use what it was handed"
            )
        numbers = {
            "kl": sum(one[0] for one in shares) / max(1, tokens),
            "clip_share": sum(one[1] for one in shares) / max(1, tokens),
            "tokens_learned": float(tokens),
        }
        return total, numbers | ({"sampling_gap": max(one[3] for one in shares)} if first else {})

    def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
        """Log the Trainer's numbers with the means of the batches' own since the last time."""
        if "loss" in logs:
            for name in sorted({name for one in self._logged for name in one}):
                values = [one[name] for one in self._logged if name in one]
                logs[name] = round(sum(values) / len(values), 6)
            self._logged = []
        super().log(logs, *rest, **more)

    def _rates(self, seconds: float) -> dict[str, float]:
        """Return the supervised tokens a second; no utilisation, for most of the time goes into playing."""
        return {name: rate for name, rate in super()._rates(seconds).items() if name != "mfu"}


def _of(values: Sequence[float], part: _Part, device: Any) -> Any:
    """Return the values of a part's tokens as a tensor."""
    return device_tensor(values[part.begin : part.end], device)


def _nothing_to_learn(config: GRPOConfig, update: int, numbers: Mapping[str, float]) -> str:
    """Return why a training stops whose groups have no variance, and what to do."""
    found = (
        f"in {config.patience} batches in a row, up to batch {update}, no group had two different rewards, so nothing can be "
        f"learned (last batch: success {numbers['success']:.2f}, {numbers['unfinished']:.0%} of the episodes not finished, "
        f"{numbers['malformed']:.0%} of the answers malformed)"
    )
    if numbers["success"] > 0.5:
        return f"{found}: the model wins these tasks already; train on others, or raise --group-size"
    return (
        f"{found}: begin with a checkpoint that wins something (--model), reward the score (--reward score), or raise "
        "--group-size"
    )
