"""transformers' Trainer over a dataset of packed trees. Invariant: a training killed at any moment and resumed ends with the
same weights (on a CPU, bit for bit); a checkpoint counts only once its card is written, which comes last.

What is left out of the Trainer: its data sampling, collating and accumulation, which the dataset replaces; its rotation of
checkpoints, because a study needs them all (the state of the optimizer is kept for the newest one alone).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import transformers

from cotbench.baselines.training.dataset import PackedDataset, StepBatch
from cotbench.baselines.training.ema import RAW_WEIGHTS, WeightEMA
from cotbench.baselines.training.flops import StepCost, peak_flops
from cotbench.baselines.training.loss import Losses, mean_loss
from cotbench.baselines.training.model import writing
from cotbench.baselines.training.packing import Packed
from cotbench.baselines.training.processes import weights_are_sharded
from cotbench.baselines.training.recipe_card import CARD
from cotbench.baselines.training.signal_hold import SignalHold
from cotbench.errors import CotbenchError
from cotbench.runs.atomic_file import write_atomically

CHECKPOINT = "checkpoint"
INTERRUPTED = "interrupted"
"""Names of the folders `checkpoint-N`, the series that is measured, and `interrupted-N`, a state that is only gone on from."""

_OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "optimizer_0", "latest")
"""One of these is in a checkpoint that a training can go on from."""

_SHARDED_STATE = (
    *("optimizer.bin", "optimizer_*", "pytorch_model_fsdp.bin", "pytorch_model_fsdp_*"),
    *("latest", "zero_to_fp32.py", "global_step*"),
)
"""State of a training whose weights are divided, as accelerate and DeepSpeed write it."""

TRAINING_STATE = ("optimizer.pt", "scheduler.pt", "scaler.pt", RAW_WEIGHTS, "rng_state*.pth", *_SHARDED_STATE)
"""Patterns of the files and folders in a checkpoint that a training is gone on from, and that no model needs."""

Card = Callable[[int, dict[str, float]], dict[str, Any]]
"""Makes the card of a checkpoint from its step and the counts so far."""


class TreeTrainer(transformers.Trainer):  # type: ignore[misc]
    """Trainer whose dataset is a `PackedDataset`.

    Args:
        compute: the losses of a row, as the model is prepared for them.
        replace: prepares the model for another way where the first row fails, and returns it; None where there is none.
        card: makes the recipe card of a checkpoint.
        saves: after which steps a checkpoint is written.
        average: decay of the running average of the weights, which is what is saved; 0: the weights themselves are.
        hold: holds back the signals at which the training is to save its state and stop.

    Attributes:
        stopping: whether this process or another one was told to stop.
    """

    def __init__(
        self,
        *,
        compute: Losses,
        replace: Callable[[Exception], Losses] | None,
        card: Card,
        saves: Sequence[int],
        hold: SignalHold,
        average: float = 0.0,
        **rest: Any,
    ) -> None:
        super().__init__(data_collator=_only, **rest)
        self._losses, self._replace = compute, replace
        self._hold, self.stopping = hold, False
        self.counts = {"tokens": 0.0, "actions": 0.0, "actions_in_loss": 0.0}
        self._since = (time.monotonic(), 0.0)
        self._cost = StepCost.of(self.model)
        self._computed = {"supervised": 0, "flops": 0.0}
        self.ema = WeightEMA(self.model, average) if average else None
        self.add_callback(_Checkpoints(self, card, frozenset(saves)))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Compute every pass of a step, forward and backward, and return the loss of the whole step.

        Args:
            model: the model, wrapped by accelerate.
            inputs: the portion, as `_only` collates it.
            num_items_in_batch: not used.
        """
        import torch

        portion = cast(StepBatch, inputs["portion"])
        model.train()
        total, weight, tokens = torch.zeros((), device=self.args.device), 0.0, 0
        rows = (*portion.passes, *portion.padding)
        for index, packed in enumerate(rows):
            last = index == len(rows) - 1
            counted = index < len(portion.passes)
            self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed takes a step with every pass that syncs.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss, counts = self._pass(model, packed, portion.count, counted)
            if counted:
                total = total + loss
                weight += self.row_weight(packed, counts)
                tokens += len(packed.ids)
                self._computed["supervised"] += len(packed.target)
                self._computed["flops"] += self._cost.flops(packed)
        self._add_counts(tokens, portion.actions, weight - portion.others)
        return total * self.accelerator.num_processes

    def _pass(self, model: Any, packed: Packed, count: int, counted: bool) -> tuple[Any, Any]:
        """Compute a row forward and backward; return its part of the step's loss, and the loss weights."""
        import torch

        try:
            with self.compute_loss_context_manager(), self.accelerator.autocast():
                nll, counts = self._losses(model, packed, self.args.device)
                loss = self.row_loss(nll, counts, packed, count) if counted else 0.0 * nll.sum()
            # Gradients are averaged over the processes, where a sum is wanted.
            self.accelerator.backward(loss * self.accelerator.num_processes)
        except Exception as error:  # Whatever a compiler raises on a card that it does not know.
            if self._replace is None or isinstance(error, torch.OutOfMemoryError):
                raise
            self._losses, self._replace = self._replace(error), None
            model.zero_grad()
            return self._pass(model, packed, count, counted)
        self._replace = None  # What has worked once is there.
        return loss.detach(), counts

    def row_loss(self, nll: Any, weights: Any, packed: Packed, count: int) -> Any:
        """Return a row's part of the step's loss; the sum over all rows of all processes is the step's.

        Args:
            nll: (tokens,) negative log-likelihoods of the supervised tokens.
            weights: (tokens,) what the losses returned as their weights.
            packed: the row.
            count: what the loss of the step is divided by (see `StepBatch`).
        """
        return mean_loss(nll, weights, count)

    def row_weight(self, packed: Packed, weights: Any) -> float:
        """Return the sum of the loss weights of a row's tokens.

        Args:
            packed: the row.
            weights: (tokens,) what the losses returned as their weights.
        """
        # Of the list: reading the tensor would wait for a GPU.
        return math.fsum(packed.weight) if weights.is_cuda else float(weights.double().sum())

    def _add_counts(self, tokens: float, actions: float, in_loss: float) -> None:
        """Add this process's counts of a step, and those of the others; all learn at the same step that one is to stop."""
        stop = float(self._hold.number is not None)
        if self.accelerator.num_processes > 1:
            import torch

            own = torch.tensor([tokens, actions, in_loss, stop], dtype=torch.float64 if self.args.use_cpu else torch.float32)
            tokens, actions, in_loss, stop = self.accelerator.reduce(own.to(self.args.device), "sum").tolist()
        self.stopping = stop > 0
        for name, number in (("tokens", tokens), ("actions", actions), ("actions_in_loss", in_loss)):
            self.counts[name] += number

    def saved(self) -> AbstractContextManager[Any]:
        """Return a context in which the model holds the weights that are to be saved; it yields those that training goes on
        with.
        """
        return contextlib.nullcontext({}) if self.ema is None else self.ema.averaged_weights()

    def write_model(self, folder: Path) -> None:
        """Write the weights as they are, without the tokenizer; the first process writes, and where the weights are divided all
        call it together.

        Args:
            folder: where they are written.
        """
        state = self.accelerator.get_state_dict(self.model_wrapped) if weights_are_sharded() else None
        if self.args.should_save:
            with writing(folder):
                more = {} if state is None else {"state_dict": state}
                self.accelerator.unwrap_model(self.model).save_pretrained(folder, **more)

    def _save_checkpoint(self, *args: Any, **more: Any) -> None:
        with self.saved() as raw, writing(Path(self.args.output_dir)):
            super()._save_checkpoint(*args, **more)
        if self.ema is not None and self.args.should_save:
            self.ema.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", raw)
        self.accelerator.wait_for_everyone()  # Each process writes the state of its random numbers.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.ema is not None:
            self.ema.restore(Path(resume_from_checkpoint))

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: tokens are counted instead."""
        return 0

    def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
        """Log the Trainer's numbers, with the tokens and the share that the masks left out, as the loss saw it."""
        if "loss" in logs:
            dataset = cast(PackedDataset, self.train_dataset)
            now, before = time.monotonic(), self._since
            seconds = max(1e-9, now - before[0])
            logs["tokens_per_second"] = round((self.counts["tokens"] - before[1]) / seconds, 1)
            logs |= self._rates(seconds)
            logs["tokens"] = self.counts["tokens"]
            logs["masked_share"] = self.masked_share
            logs["data_epoch"] = dataset.steps[max(0, self.state.global_step - 1)].epoch
            self._since = (now, self.counts["tokens"])
        super().log(logs, *rest, **more)

    def _rates(self, seconds: float) -> dict[str, float]:
        """Return, for the time since the last log, supervised tokens a second, and on a known card the model-flop utilisation.

        Those of this process, times the number of processes.
        """
        computed, self._computed = self._computed, {"supervised": 0, "flops": 0.0}
        rates = {"supervised_tokens_per_second": computed["supervised"] * self.accelerator.num_processes / seconds}
        peak = peak_flops(self.args.device, self.accelerator.mixed_precision, self.model)
        if peak is not None:
            rates["mfu"] = computed["flops"] / seconds / peak
        return {name: round(rate, 4) for name, rate in rates.items()}

    def count_from(self, seen: dict[str, float]) -> None:
        """Go on counting from the counts of an earlier checkpoint.

        Args:
            seen: the counts, by the names of `counts`.
        """
        self.counts.update(seen)
        self._since = (time.monotonic(), self.counts["tokens"])

    @property
    def masked_share(self) -> float:
        """Share of the action tokens so far that the loss left out; with an action weight below 1, of their weight."""
        left = 1 - self.counts["actions_in_loss"] / self.counts["actions"] if self.counts["actions"] else 0.0
        return max(0.0, round(left, 6))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        import torch

        return torch.utils.data.SequentialSampler(self.train_dataset)


def _only(items: Sequence[StepBatch]) -> dict[str, Any]:
    """Return the one portion of a batch, which the dataset has put together."""
    return {"portion": items[0]}


class _Checkpoints(transformers.TrainerCallback):  # type: ignore[misc]
    """Callback that asks for checkpoints at the chosen steps, and for one more where the training is interrupted, and completes
    them with their card.
    """

    def __init__(self, trainer: TreeTrainer, card: Card, steps: frozenset[int]) -> None:
        self._trainer, self._card, self._steps = trainer, card, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Update the average, and ask for a checkpoint after the chosen steps, or before the training stops."""
        if self._trainer.ema is not None:
            self._trainer.ema.update(state.global_step)
        control.should_save = state.global_step in self._steps or self._trainer.stopping
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the card, then forget the older states."""
        control.should_training_stop = control.should_training_stop or self._trainer.stopping
        if not state.is_world_process_zero:
            return
        out = Path(args.output_dir)
        newest = out / f"{CHECKPOINT}-{state.global_step}"
        of_series = state.global_step in self._steps
        if not of_series:  # Under another name before it has a card: it is not one of the series.
            newest = newest.rename(out / f"{INTERRUPTED}-{state.global_step}")
        seen = {**self._trainer.counts, "masked_share": self._trainer.masked_share}
        write_card(newest, {**self._card(state.global_step, seen), "seen": seen})
        for folder in _states(out):
            if folder != newest and folder.name.startswith(INTERRUPTED):
                shutil.rmtree(folder)
            elif folder != newest and of_series:
                for path in [path for pattern in TRAINING_STATE for path in folder.glob(pattern)]:
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink(missing_ok=True)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a checkpoint's card, atomically.

    Args:
        folder: the checkpoint, or the trained model.
        card: JSON data.
    """
    write_atomically(folder / CARD, [json.dumps(card, indent=2) + "\n"])


def newest_checkpoint(out: Path) -> Path | None:
    """Return the newest whole checkpoint or interrupted state, and remove newer ones that a kill left half-written.

    Args:
        out: the folder of the training.

    Raises:
        CotbenchError: a newer one was taken away: the older ones have no optimizer to go on with.
    """
    for folder in _states(out):
        if not (folder / CARD).is_file():
            shutil.rmtree(folder)
        elif any((folder / name).exists() for name in _OPTIMIZERS):
            return folder
        else:
            raise CotbenchError(
                f"{folder} has no {_OPTIMIZERS[0]}, which only the newest checkpoint has: restore the newest one, or start "
                "again in another --out"
            )
    return None


def last_step(out: Path) -> int:
    """Return after which step the training in a folder goes on; 0 where nothing of it is saved.

    Args:
        out: the folder of the training.
    """
    return max((_step_of(folder) for folder in _states(out) if (folder / CARD).is_file()), default=0)


def saved_steps(out: Path) -> dict[Path, int]:
    """Return after which step each model of a training goes on, by the folder of its checkpoints; without those that have none.

    Args:
        out: the folder of the training: the model's own, or that of the folders of several models, each trained in its own.
    """
    folders = [out, *sorted(path for path in out.iterdir() if path.is_dir() and _step_of(path) < 0)] if out.is_dir() else []
    found = {folder: last_step(folder) for folder in folders}
    return {folder: step for folder, step in found.items() if step}


def _states(out: Path) -> list[Path]:
    """Return the folders of checkpoints and interrupted states, whole or not, the newest first."""
    return sorted((path for path in out.glob("*-*") if _step_of(path) >= 0), key=_step_of, reverse=True)


def _step_of(folder: Path) -> int:
    found = re.fullmatch(rf"(?:{CHECKPOINT}|{INTERRUPTED})-(\d+)", folder.name)
    return int(found[1]) if found else -1


def restore_counts(trainer: TreeTrainer, checkpoint: Path) -> None:
    """Go on counting where a checkpoint stopped.

    Args:
        trainer: whose counts are set.
        checkpoint: its folder.

    Raises:
        CotbenchError: its card is damaged.
    """
    try:
        seen = json.loads((checkpoint / CARD).read_text("utf-8"))["seen"]
        trainer.count_from({name: float(seen[name]) for name in trainer.counts})
    except (ValueError, KeyError, TypeError) as error:
        raise CotbenchError(f"{checkpoint / CARD} is damaged: start again in another --out") from error


def steps_at(fractions: Sequence[float], steps: int) -> list[int]:
    """Return after which steps the given fractions of a training are done; the last step is always among them.

    Args:
        fractions: from 0 to 1.
        steps: number of steps of the training.
    """
    return sorted({min(steps, max(1, math.ceil(fraction * steps - 1e-9))) for fraction in (*fractions, 1.0)})
