"""A training in progress: the model, the trainer, its checkpoints. Invariant: what fails costs the time since the last
checkpoint and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from cotbench.agents.hf.loading import first_line, hushed, quiet
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import Examples
from cotbench.baselines.recipes.sft import make_training_data, write_masks
from cotbench.baselines.recipes.sft_config import SFTConfig
from cotbench.baselines.tiny import corpus
from cotbench.baselines.tiny.model import base_steps, new_model, new_tokenizer, text_tree
from cotbench.baselines.tiny.base_config import BaseConfig
from cotbench.baselines.training.dataset import PackedDataset, trees_of_examples, trees_of_texts
from cotbench.baselines.training.logprobs import action_logprobs
from cotbench.baselines.training.model import LoraOptions, TrainableModel, load_trainable, make_trainable, save
from cotbench.baselines.training.recipe_card import TrainingResult, write_begun
from cotbench.baselines.training.trainer import TreeTrainer, newest_checkpoint, restore_counts, steps_at, write_card
from cotbench.errors import CotbenchError
from cotbench.prompting.elicitation import Elicitation

_LOG_EVERY = 10

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_SAYS = ("PytorchStreamWriter", "inline_container", *(f"os error {number}" for number in _FULL))
"""What torch and safetensors say of a disk that takes no more: they do not raise OSError."""


def run_training(
    config: SFTConfig,
    demonstrations: Sequence[Demonstration],
    asked: dict[str, Elicitation],
    record: dict[str, Any],
    out: Path,
    *,
    progress: Callable[[], Any] | None,
) -> TrainingResult:
    """Train, from the newest checkpoint in `out` where there is one."""
    _set_up(config.threads, config.seed)
    lora = None
    if config.lora_rank is not None:
        lora = LoraOptions(config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_targets)
    learner = load_trainable(config.model, device=config.device, lora=lora)
    args = _arguments(config, out, learner.model)
    lesson = make_training_data(
        config,
        demonstrations,
        asked,
        learner,
        processes=args.world_size,
        scores=lambda examples: _scores(learner, examples),
    )
    record = {**record, "base": learner.description, "examples": _counts(lesson.examples), "steps": len(lesson.steps)}
    write_begun(out, record)
    if args.process_index == 0:
        with _room(out):
            write_masks(out, lesson)
    feed = PackedDataset(lesson.steps, trees_of_examples(lesson.examples.episodes, lesson.masks), args.world_size)
    trainer = fit(learner, feed, args, record, steps_at(config.checkpoints, len(lesson.steps)), progress, config.ema_decay)
    counts = _counts(lesson.examples)
    return TrainingResult(out, len(lesson.steps), _finish(trainer, record, out), counts["examples"], counts["too_long"])


def run_base(config: BaseConfig, record: dict[str, Any], out: Path, *, progress: Callable[[], Any] | None) -> TrainingResult:
    """Build the base of `tiny`: every token of the transcripts is to be predicted."""
    _set_up(config.threads, config.seed)
    read = list(corpus.transcripts(config.games, config.seed))
    tokenizer = new_tokenizer(read)
    model = new_model(config, len(tokenizer))
    for settings in (model.config, model.generation_config):
        settings.eos_token_id = settings.pad_token_id = tokenizer.eos_token_id
    learner = make_trainable(model.to(config.device), tokenizer, {})
    trees = [text_tree(one, learner.chat) for one in read]
    steps = base_steps(trees, config)
    record = {**record, "examples": {"examples": len(trees)}, "steps": len(steps)}
    write_begun(out, record)
    arguments = SFTConfig(
        model="",
        data=("",),
        learning_rate=config.learning_rate,
        lr_schedule="linear",
        weight_decay=0.1,
        betas=(0.9, 0.95),
        seed=config.seed,
        report_to=config.report_to,
    )
    args = _arguments(arguments, out, model)
    trainer = fit(
        learner, PackedDataset(steps, trees_of_texts(trees), args.world_size), args, record, steps_at((), len(steps)), progress
    )
    return TrainingResult(out, len(steps), _finish(trainer, record, out), len(trees), 0)


def _set_up(threads: int | None, seed: int) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    quiet(transformers)
    transformers.set_seed(seed)


def _finish(trainer: TreeTrainer, record: dict[str, Any], out: Path) -> dict[str, float]:
    """Write the trained model and its card; what was measured on the way."""
    seen = {**trainer.counts, "masked_share": trainer.masked_share}
    if trainer.is_world_process_zero():
        with _room(out), trainer.saved():
            save(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, out)
            write_card(out, {**record, "step": record["steps"], "progress": 1.0, "seen": seen})
    return seen


def fit(
    learner: TrainableModel,
    feed: PackedDataset,
    args: Any,
    record: dict[str, Any],
    saves: Sequence[int],
    progress: Callable[[], Any] | None,
    average: float = 0.0,
) -> TreeTrainer:
    """Run the trainer over a feed.

    Raises:
        CotbenchError: a checkpoint could not be written; the one before it is whole.
    """
    trainer = TreeTrainer(
        packed=learner.packed,
        card=lambda step, seen: {**record, "step": step, "progress": step / len(feed.steps)},
        saves=saves,
        average=average,
        model=learner.model,
        args=args,
        train_dataset=feed,
        processing_class=learner.tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.remove_callback(transformers.trainer_callback.ProgressCallback)
    if progress is not None:
        trainer.add_callback(progress())
    with args.main_process_first():  # It removes what a kill left behind; the others then see what is left.
        checkpoint = newest_checkpoint(Path(args.output_dir))
    if checkpoint is not None:
        restore_counts(trainer, checkpoint)
    with _room(Path(args.output_dir)):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    return trainer


@contextlib.contextmanager
def _room(out: Path) -> Iterator[None]:
    """Say in one line that the disk is full, and nothing of what libraries tell one another."""
    try:
        with hushed():
            yield
    except Exception as error:
        if getattr(error, "errno", None) not in _FULL and not any(sign in str(error) for sign in _FULL_SAYS):
            raise
        raise CotbenchError(
            f"no room to write to {out} ({first_line(error)}): the checkpoints before are whole; make room and go on with: "
            f"cotbench train --resume {out}"
        ) from error


def _arguments(config: SFTConfig, out: Path, model: Any) -> Any:
    cuda = model.device.type == "cuda"
    return transformers.TrainingArguments(
        output_dir=str(out),
        num_train_epochs=1,  # The feed is the whole training.
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.lr_schedule == "constant" else config.lr_schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        optim="adamw_torch_fused",
        max_grad_norm=config.max_grad_norm,
        **({"activation_checkpointing": True} if config.gradient_checkpointing else {}),
        bf16=cuda and torch.cuda.is_bf16_supported(),
        use_cpu=not cuda,
        seed=config.seed,
        save_strategy="no",
        logging_steps=_LOG_EVERY,
        logging_strategy="steps",
        disable_tqdm=True,
        report_to=list(config.report_to) or "none",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
    )


def _scores(learner: TrainableModel, examples: Examples) -> Any:
    return action_logprobs(learner.model, learner.chat, examples.episodes, packed=learner.packed, device=learner.model.device)


def _counts(examples: Examples) -> dict[str, int]:
    return {
        "examples": len(examples.flat),
        "too_long": len(examples.too_long),
        "shortened": examples.shortened,
        "without_trace": examples.without_trace,
        "beyond_budget": examples.beyond_budget,
    }
