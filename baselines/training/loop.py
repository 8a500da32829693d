"""A training in progress: the model, the trainer, its checkpoints. Invariant: what fails costs the time since the last
checkpoint and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from cotbench.agents.hf.pretrained import first_line, hushed, is_disk_full, quiet
from cotbench.baselines.training.dataset import StepDataset
from cotbench.baselines.training.loss import Losses, TreeLosses, losses
from cotbench.baselines.training.model import TrainableModel, mixes_precision, writing
from cotbench.baselines.training.options import TrainingOptions
from cotbench.baselines.training.packing import install_packed_attention
from cotbench.baselines.training.processes import use_own_gpu, weights_are_sharded
from cotbench.baselines.training.signal_hold import SignalHold
from cotbench.baselines.training.trackers import guard_trackers, require_trackers
from cotbench.baselines.training.trainer import TreeTrainer, newest_checkpoint, restore_counts, steps_at, write_card
from cotbench.baselines.training.tree_attention import compile_layers, uncompile_layers
from cotbench.baselines.training.tree_row import bucket_lengths
from cotbench.errors import CotbenchError, UsageError

_log = logging.getLogger(__name__)

_CHECKPOINTING = (
    "activation_checkpointing"
    if "activation_checkpointing" in transformers.TrainingArguments.__dataclass_fields__
    else "gradient_checkpointing"
)
"""The argument's name, which transformers has changed."""

_SAMPLED, _PADDING = 1024, 0.03
"""Portions of steps whose rows are measured before a training, at most: each takes 2 to 25 ms by the decisions of a step, and a
row that is longer than all measured ones is compiled for when it comes; the share of padding that is let be.
"""

_BUCKETS, _STEPS_A_BUCKET = 4, 400
"""The most lengths that rows are padded to; steps for which it is worth to compile one more, which takes some ten seconds."""


def set_up_torch(threads: int | None, seed: int) -> None:
    """Seed torch, set its threads, and keep transformers quiet.

    Args:
        threads: number of threads; None leaves torch's choice.
        seed: of torch, numpy and Python.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    quiet(transformers)
    use_own_gpu()
    transformers.set_seed(seed)


def train(
    trainable: TrainableModel,
    dataset: StepDataset,
    args: Any,
    record: dict[str, Any],
    out: Path,
    checkpoints: Sequence[float],
    progress: Callable[[], Any] | None,
    ema_decay: float = 0.0,
    make_trainer: Callable[..., TreeTrainer] = TreeTrainer,
) -> dict[str, float]:
    """Train from the newest checkpoint in `out` where there is one, and write the trained model with its card.

    Args:
        trainable: the model.
        dataset: its steps.
        args: transformers' TrainingArguments (`trainer_arguments`).
        record: contents of the cards.
        out: the folder of the trained model.
        checkpoints: after which shares of the training one is written; the last step is always among them.
        progress: makes a callback of transformers that shows how far it is.
        ema_decay: see `TrainingOptions`.
        make_trainer: makes the trainer, whose loss is the recipe's.

    Returns:
        The counts: tokens, action tokens, and `masked_share`, the share of the latter that the loss left out.

    Raises:
        CotbenchError: a checkpoint could not be written; the one before it is whole.
    """
    trainer = fit(
        trainable, dataset, args, record, steps_at(checkpoints, len(dataset.steps)), progress, ema_decay, make_trainer
    )
    measured = {**trainer.counts, "masked_share": trainer.masked_share}
    save_trained(trainer, out, {**record, "step": record["steps"], "progress": 1.0, "seen": measured})
    return measured


def save_trained(trainer: TreeTrainer, out: Path, card: dict[str, Any], best: Callable[[], None] | None = None) -> None:
    """Write the trained model, its tokenizer and its card; every process calls it, and the first one writes.

    Args:
        trainer: after the training.
        out: the folder of the trained model.
        card: its card.
        best: replaces the model by a better one, before the card is written.
    """
    first = trainer.is_world_process_zero()
    if not first and not weights_are_sharded():
        return
    with disk_full_as_error(out), trainer.saved():
        trainer.write_model(out)
        if first:
            with writing(out):
                trainer.processing_class.save_pretrained(out)
            if best is not None:
                best()
            write_card(out, card)


def fit(
    trainable: TrainableModel,
    dataset: StepDataset,
    args: Any,
    record: dict[str, Any],
    saves: Sequence[int],
    progress: Callable[[], Any] | None,
    ema_decay: float = 0.0,
    make_trainer: Callable[..., TreeTrainer] = TreeTrainer,
) -> TreeTrainer:
    """Run the trainer over a dataset and return it.

    Args:
        trainable: the model.
        dataset: its steps.
        args: transformers' TrainingArguments (`trainer_arguments`).
        record: contents of the cards.
        saves: after which steps a checkpoint is written.
        progress: makes a callback of transformers that shows how far it is.
        ema_decay: see `TrainingOptions`.
        make_trainer: makes the trainer, whose loss is the recipe's.

    Raises:
        CotbenchError: a checkpoint could not be written; the one before it is whole.
        KeyboardInterrupt: after Ctrl-C (or whatever else a signal does), once the state is saved.
    """
    hold = SignalHold()
    compute = prepare_kernels(trainable, dataset, checkpointing=getattr(args, _CHECKPOINTING))
    compiled = compute is not trainable.losses
    trainer = make_trainer(
        compute=compute,
        replace=partial(without_kernels, trainable) if compiled else None,
        card=lambda step, seen: {**record, "step": step, "progress": step / len(dataset.steps)},
        saves=saves,
        hold=hold,
        average=ema_decay,
        model=trainable.model,
        args=args,
        train_dataset=dataset,
        processing_class=trainable.tokenizer,
    )
    try:
        run_trainer(trainer, hold, progress)
    finally:
        uncompile_layers(trainable.model)
    return trainer


def run_trainer(trainer: TreeTrainer, hold: SignalHold, progress: Callable[[], Any] | None) -> None:
    """Train, from the newest checkpoint in the trainer's folder where there is one.

    Args:
        trainer: the trainer.
        hold: the same that the trainer was given.
        progress: makes a callback of transformers that shows how far it is.

    Raises:
        CotbenchError: a checkpoint could not be written; the one before it is whole.
        KeyboardInterrupt: after Ctrl-C (or whatever else a signal does), once the state is saved.
    """
    args = trainer.args
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.remove_callback(transformers.trainer_callback.ProgressCallback)
    guard_trackers(trainer)
    if progress is not None:
        trainer.add_callback(progress())
    with args.main_process_first():  # It removes an unfinished checkpoint before the others look.
        checkpoint = newest_checkpoint(Path(args.output_dir))
    if checkpoint is not None:
        restore_counts(trainer, checkpoint)
    with disk_full_as_error(Path(args.output_dir)), hold.held():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        if trainer.stopping and hold.number is None:
            hold.number = signal.SIGTERM  # Another process was told to stop.


def prepare_kernels(trainable: TrainableModel, dataset: StepDataset, *, checkpointing: bool) -> Losses:
    """Compile a model's layers where they run on a GPU with our attention, and return how its losses are computed.

    Args:
        trainable: the model.
        dataset: the steps, whose rows are padded to few lengths.
        checkpointing: whether gradients are checkpointed.
    """
    compute = trainable.losses
    if not isinstance(compute, TreeLosses) or trainable.model.device.type != "cuda":
        return compute
    torch._dynamo.reset()  # What earlier trainings of this process compiled counts towards a limit.
    compile_layers(trainable.model, checkpointing=checkpointing)
    every = -(-len(dataset) // _SAMPLED)
    rows = [len(row.ids) for index in range(0, len(dataset), every) for row in dataset[index].passes]
    count = min(_BUCKETS, 1 + len(dataset) // _STEPS_A_BUCKET)
    return replace(compute, buckets=bucket_lengths(rows, count, _PADDING))


def without_kernels(trainable: TrainableModel, error: Exception) -> Losses:
    """Undo `prepare_kernels` after it failed, and return the losses that need no compiler.

    Args:
        trainable: the model.
        error: what failed.
    """
    _log.warning("attention is computed sequence by sequence: %s", first_line(error))
    uncompile_layers(trainable.model)
    model = trainable.model.get_base_model() if hasattr(trainable.model, "get_base_model") else trainable.model
    install_packed_attention(model)
    return losses


@contextlib.contextmanager
def disk_full_as_error(out: Path) -> Iterator[None]:
    """Turn the failures of a full disk into an error of one line, and hide the libraries' own messages.

    Args:
        out: the folder that is written to.

    Raises:
        CotbenchError: the disk takes no more.
    """
    try:
        with hushed():
            yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise CotbenchError(
            f"cannot write to {out} ({first_line(error)}): earlier checkpoints are intact; free some space and resume with: "
            f"cotbench train --resume {out}"
        ) from error


def trainer_arguments(options: TrainingOptions, out: Path, model: Any) -> Any:
    """Return transformers' arguments for a training in `out`.

    Args:
        options: of the optimiser.
        out: the folder of the trained model.
        model: decides between CPU and GPU.

    Raises:
        UsageError: an average of weights that are divided among the processes.
    """
    if options.ema_decay and weights_are_sharded():
        raise UsageError(
            "the weights are divided among the processes (FSDP, DeepSpeed), and their moving average cannot be kept: omit "
            "--ema-decay, or start without sharding (torchrun)"
        )
    cuda = model.device.type == "cuda"
    args = transformers.TrainingArguments(
        output_dir=str(out),
        num_train_epochs=1,  # The dataset is the whole training.
        per_device_train_batch_size=1,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant_with_warmup" if options.lr_schedule == "constant" else options.lr_schedule,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        adam_beta1=options.betas[0],
        adam_beta2=options.betas[1],
        optim="adamw_torch_fused",
        max_grad_norm=options.max_grad_norm,
        **({_CHECKPOINTING: True} if options.gradient_checkpointing else {}),
        bf16=mixes_precision(options.dtype, model.device),
        use_cpu=not cuda,
        seed=options.seed,
        save_strategy="no",
        logging_steps=options.logging_steps,
        logging_strategy="steps",
        logging_nan_inf_filter=not cuda,  # It reads the loss of every step, and waits for the GPU.
        disable_tqdm=True,
        report_to=require_trackers(options.report_to) or "none",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
    )
    if args.n_gpu > 1:
        # Without a launcher one GPU trains: the Trainer would wrap the model in DataParallel, which cuts every tensor along its
        # first dimension, such as the one row that is all of a pass. Several GPUs have a process each.
        args._n_gpu = 1
    return args
