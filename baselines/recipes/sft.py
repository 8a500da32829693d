"""Recipe `sft`: supervised fine-tuning on traces and actions, with or without reduced action supervision (paper: SFT, SFT+).
Invariant: the loss is taken over the answers alone, on exactly the tokens of evaluation's queries; which action tokens are left
out depends on the options and the seed alone, and is stored beside the weights. What is left out compared with common trainers:
packing does not let a token see another example, and no prompt is cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations
from cotbench.baselines.data.examples import Examples, elicitations_of, make_examples
from cotbench.baselines.data.scored_tasks import check_trainable
from cotbench.baselines.recipes.require import require_training
from cotbench.baselines.training.batching import ExampleUnit, TrainingStep, make_steps
from cotbench.baselines.training.masks import MaskConfig, Masks
from cotbench.baselines.training.options import LRSchedule, TrainingOptions
from cotbench.baselines.training.recipe_card import TrainingResult, data_card, training_folder, write_begun
from cotbench.baselines.training.trackers import require_trackers
from cotbench.envs.registry import TokenSizes
from cotbench.errors import UsageError
from cotbench.flags import ELICITATION, EXECUTION, MODEL, OPTIMISATION, Flag
from cotbench.prompting.elicitation import Elicitation
from cotbench.recipes import Masking, Preset, Recipe
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.manifest import provenance

MASKS = "masks.json"
NAME = "sft"
PAPER_FRACTION = 0.3
"""The paper's mask fraction: recipe `sft+` is `sft` with this one."""

Progress = Annotated[float, Field(gt=0, le=1)]
"""A fraction of the training."""


class SFTConfig(MaskConfig):
    """Options of recipe `sft`. The defaults are the paper's where it gives a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Annotated[str, Flag(panel=MODEL)] = Field(
        description="model to train: hub name, alias, local folder, smollm2 or tiny"
    )
    data: Annotated[tuple[str, ...], Flag(panel=MODEL, default="for --model tiny: made for it")] = Field(
        min_length=1, description="traces: a folder of cotbench traces, a .jsonl or a .parquet file; may be repeated"
    )
    epochs: Annotated[float, Flag(panel=OPTIMISATION)] = Field(5, gt=0, description="training epochs")
    learning_rate: Annotated[float, Flag(names=("--lr",), panel=OPTIMISATION)] = Field(
        1e-5, gt=0, description="learning rate of AdamW"
    )
    batch_size: Annotated[int, Flag(names=("-b",), panel=OPTIMISATION)] = Field(16, ge=1, description="decisions per step")
    unit: Annotated[ExampleUnit, Flag(panel=OPTIMISATION)] = Field(
        "decision", description="what is drawn: a decision, or a whole episode as one sequence"
    )
    lr_schedule: Annotated[LRSchedule, Flag(panel=OPTIMISATION)] = Field(
        "constant", description="learning rate schedule after the warmup"
    )  # Constant keeps decay apart from progress, so that checkpoints can be compared.
    warmup: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.03, ge=0, lt=1, description="fraction of the steps over which the learning rate rises from 0"
    )
    weight_decay: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, description="weight decay of AdamW, on matrices only"
    )
    betas: Annotated[tuple[float, float], Flag(panel=OPTIMISATION, joined=True)] = Field(
        (0.9, 0.999), description="betas of AdamW"
    )
    ema_decay: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, lt=1, description="decay of an exponential moving average of the weights, which is saved; 0: none"
    )
    max_grad_norm: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        1.0, ge=0, description="gradient norm that gradients are clipped to; 0: no clipping"
    )
    checkpoints: Annotated[tuple[Progress, ...], Flag(panel=OPTIMISATION, joined=True)] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0), description="fractions of the training after which a checkpoint is saved"
    )
    max_length: Annotated[int | None, Flag(panel=OPTIMISATION, default="the model's context")] = Field(
        None, ge=64, description="tokens of the longest example"
    )
    max_tokens_per_forward: Annotated[int, Flag(panel=OPTIMISATION)] = Field(8192, ge=64, description="tokens per forward pass")
    lora_rank: Annotated[int | None, Flag(panel=OPTIMISATION)] = Field(
        None, ge=1, description="train a LoRA adapter of this rank instead of all weights"
    )
    lora_alpha: Annotated[float, Flag(panel=OPTIMISATION)] = Field(32.0, gt=0, description="LoRA alpha, the adapter's scale")
    lora_dropout: Annotated[float, Flag(panel=OPTIMISATION)] = Field(0.0, ge=0, lt=1, description="LoRA dropout")
    lora_targets: Annotated[tuple[str, ...], Flag(panel=OPTIMISATION, joined=True, default="all linear layers")] = Field(
        (), description="layers that get a LoRA adapter"
    )
    gradient_checkpointing: Annotated[bool, Flag(panel=OPTIMISATION)] = Field(
        False, description="compute activations twice to save memory"
    )
    seed: Annotated[int, Flag(panel=OPTIMISATION)] = Field(0, ge=0, description="seed of the order, the masks and new weights")
    device: Annotated[str, Flag(panel=EXECUTION)] = Field("auto", description="auto, cpu or cuda")
    threads: Annotated[int | None, Flag(panel=EXECUTION, default="torch's choice")] = Field(
        None, ge=1, description="number of torch threads"
    )
    logging_steps: Annotated[int, Flag(panel=EXECUTION)] = Field(10, ge=1, description="steps from one logged loss to the next")
    report_to: Annotated[tuple[str, ...], Flag(panel=EXECUTION)] = Field(
        (), description="tracker that transformers knows: wandb, tensorboard, mlflow, ..., all or none; may be repeated"
    )
    elicitation: Annotated[dict[str, Any], Flag(panel=ELICITATION, table=Elicitation)] = Field(
        default_factory=dict, description="how the model will be asked, where that is not as usual"
    )

    @property
    def training(self) -> TrainingOptions:
        """Options of the optimiser."""
        return TrainingOptions(**{one.name: getattr(self, one.name) for one in fields(TrainingOptions)})


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Data of a training, fixed before the first step.

    Attributes:
        demonstrations: what is learned from.
        examples: one a decision.
        masks: which examples are masked, at each point of the training.
        steps: the schedule: which decisions make up each step.
    """

    demonstrations: Sequence[Demonstration]
    examples: Examples
    masks: Masks
    steps: Sequence[TrainingStep]


def train(config: SFTConfig, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None) -> TrainingResult:
    """Train a model; the same as `cotbench train --recipe sft`.

    Args:
        config: the options.
        out: the folder of the trained model, its checkpoints (`checkpoint-N`) and cards.
        resume: go on from the newest whole checkpoint in `out`.
        progress: makes a callback of transformers that shows how far it is.

    Raises:
        UsageError: data that cannot be trained on, or another training lies in `out`.
        AgentError: the model cannot be loaded.
        MissingExtraError: the libraries for training are not installed.
    """
    require_training()
    require_trackers(config.report_to)
    demonstrations = [one for path in config.data for one in _read(path)]
    check_trainable(demonstrations)
    elicitations = elicitations_of(demonstrations, config.elicitation)
    record = {
        "recipe": NAME,
        "config": config.model_dump(mode="json"),
        "data": data_card(config.data, demonstrations),
        "elicitations": {env: elicitation.fingerprint for env, elicitation in elicitations.items()},
        **provenance(),
    }
    with training_folder(out, record, resume=resume):
        return _train(config, demonstrations, elicitations, record, out, progress)


def _train(
    config: SFTConfig,
    demonstrations: Sequence[Demonstration],
    elicitations: dict[str, Elicitation],
    record: dict[str, Any],
    out: Path,
    progress: Callable[[], Any] | None,
) -> TrainingResult:
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.dataset import PackedDataset, trees_of_examples
    from cotbench.baselines.training.logprobs import action_logprobs
    from cotbench.baselines.training.lora import LoraOptions
    from cotbench.baselines.training.model import load_trainable

    loop.set_up_torch(config.threads, config.seed)
    lora = None
    if config.lora_rank is not None:
        lora = LoraOptions(config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_targets)
    trainable = load_trainable(config.model, device=config.device, lora=lora)
    args = loop.trainer_arguments(config.training, out, trainable.model)
    data = make_training_data(
        config,
        demonstrations,
        elicitations,
        trainable,
        processes=args.world_size,
        scores=lambda examples: action_logprobs(
            trainable.model, trainable.chat, examples.episodes, packed=trainable.packed, device=trainable.model.device
        ),
    )
    counts = _counts(data.examples)
    record = {**record, "base": trainable.description, "examples": counts, "steps": len(data.steps)}
    write_begun(out, record)
    if args.process_index == 0:
        with loop.disk_full_as_error(out):
            write_masks(out, data)
    dataset = PackedDataset(data.steps, trees_of_examples(data.examples.episodes, data.masks), args.world_size)
    measured = loop.train(trainable, dataset, args, record, out, config.checkpoints, progress, config.ema_decay)
    return TrainingResult(out, len(data.steps), measured, counts["examples"], counts["too_long"])


def _read(path: str) -> list[Demonstration]:
    from cotbench.baselines.tiny.demonstrations import TINY_DATA, tiny_demonstrations

    return tiny_demonstrations() if path == TINY_DATA else read_demonstrations(Path(path))


def _counts(examples: Examples) -> dict[str, int]:
    return {
        "examples": len(examples.flat),
        "too_long": len(examples.too_long),
        "shortened": examples.shortened,
        "without_trace": examples.without_trace,
        "beyond_budget": examples.beyond_budget,
    }


def make_training_data(
    config: SFTConfig,
    demonstrations: Sequence[Demonstration],
    elicitations: dict[str, Elicitation],
    trainable: Any,
    *,
    processes: int,
    scores: Callable[[Examples], Any],
) -> TrainingData:
    """Return examples, masks and steps.

    Args:
        config: the options.
        demonstrations: what is learned from.
        elicitations: environment -> the elicitation that evaluation will use.
        trainable: the model, a `TrainableModel`.
        processes: among how many a step is divided.
        scores: computes the base model's scores of the examples; called only where the masks need them.

    Raises:
        UsageError: there is nothing to learn from.
    """
    longest = min(trainable.context, config.max_length or trainable.context)
    examples = make_examples(demonstrations, trainable.chat, elicitations, context=trainable.context, longest=longest)
    if not examples.episodes:
        raise UsageError(
            f"no example is left of {len(demonstrations)} demonstrations: {len(examples.too_long)} decisions are longer than "
            f"{longest} tokens (--max-length), {examples.without_trace} have no trace"
        )
    masks = Masks.of(config, examples.flat, scores(examples) if config.needs_scores else None)
    sizes = [
        [
            len(one.answer) if config.unit == "episode" and index < len(episode) - 1 else len(one.ids)
            for index, one in enumerate(episode)
        ]
        for episode in examples.episodes
    ]
    steps = make_steps(
        sizes,
        unit=config.unit,
        batch=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        tokens=config.max_tokens_per_forward,
        processes=processes,
    )
    return TrainingData(demonstrations, examples, masks, steps)


def write_masks(out: Path, data: TrainingData) -> None:
    """Write `masks.json`: which examples are masked, epoch by epoch.

    Args:
        out: the folder of the training.
        data: its masks and steps.
    """
    epochs = 1 + max(step.epoch for step in data.steps)
    write_atomically(out / MASKS, [json.dumps(data.masks.record(epochs)) + "\n"])


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    """Fill in the training data of tiny, and refuse options without a model or data."""
    from cotbench.baselines.tiny.demonstrations import TINY_DATA

    if options.get("model") == "tiny" and "data" not in options:
        options["data"] = (TINY_DATA,)
    if "model" not in options:
        raise UsageError("--model is missing: what is to be trained, such as tiny, smollm2, qwen, or a folder")
    if "data" not in options:
        raise UsageError("--data is missing: make traces with cotbench traces --out DIR, then --data DIR")
    return options


def _cost(config: SFTConfig, sizes: TokenSizes, episodes: int) -> float:
    """Return about how many tokens go through the model: an episode as one tree, or its decisions one by one."""
    turns = sizes.expert_steps
    if config.unit == "episode":
        return config.epochs * episodes * (sizes.first_prompt + turns * (sizes.step + sizes.answer))
    return config.epochs * episodes * turns * (sizes.first_prompt + sizes.step * turns / 2 + sizes.answer)


def _masking(config: SFTConfig) -> Masking:
    usual = config.mask_schedule == "constant" and config.action_weight == 0
    return Masking(config.mask_fraction, config.mask_select, usual)


def _paper_row(config: SFTConfig) -> str | None:
    """Return the row of the paper's tables: SFT without masks, SFT+ with its own."""
    masking = _masking(config)
    if masking.fraction == 0:
        return "SFT"
    return "SFT+" if masking == Masking(PAPER_FRACTION) else None


PRESETS = {
    "paper": Preset("5 epochs, learning rate 1e-5, 16 decisions a step"),
    "tiny": Preset(
        "1 epoch, learning rate 2e-3, whole episodes as trees, at least 16 decisions a step, averaged weights",
        {
            "model": "tiny",
            "epochs": 1.0,
            "learning_rate": 2e-3,
            "batch_size": 16,
            "unit": "episode",
            "betas": (0.9, 0.95),
            "weight_decay": 0.1,
            "ema_decay": 0.998,
        },
        models=("tiny",),
    ),
}

SFT = Recipe(
    name=NAME,
    description="supervised fine-tuning on traces and actions",
    config=SFTConfig,
    run=train,
    cost=_cost,
    presets=PRESETS,
    complete=_complete,
    masking=_masking,
    mask_options=frozenset(MaskConfig.model_fields) - {"seed"},
    paper_row=_paper_row,
)

SFT_PLUS = replace(
    SFT,
    name="sft+",
    description=f"the same with reduced action supervision: mask fraction {PAPER_FRACTION:g} unless another is given",
    values={"mask_fraction": PAPER_FRACTION},
    compares_with=NAME,
)
