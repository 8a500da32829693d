"""Recipe `sft`: supervised fine-tuning on traces and actions, with or without reduced action supervision (paper: SFT, SFT+).
Invariant: the loss is taken over the answers alone, on exactly the tokens of evaluation's queries; which action tokens are left
out depends on the options and the seed alone, and is stored beside the weights. What is left out compared with common trainers:
packing does not let a token see another example, and no prompt is cut.

Control arms (`traces` other than "own") train on the same states with traces whose effect is known by construction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations
from cotbench.baselines.data.examples import Examples, elicitations_of, make_examples
from cotbench.baselines.data.scored_tasks import check_trainable
from cotbench.baselines.data.trace_controls import control_traces
from cotbench.baselines.recipes.require import require_training
from cotbench.baselines.recipes.sft_config import SFTConfig
from cotbench.baselines.recipes.start import load_start
from cotbench.baselines.training.batching import ExampleUnit, TrainingStep, computed_tokens, make_steps
from cotbench.baselines.training.loss import Losses
from cotbench.baselines.training.masks import MaskConfig, Masks, MaskSchedule
from cotbench.baselines.training.recipe_card import TrainingResult, data_card, training_folder, write_begun
from cotbench.baselines.training.trackers import require_trackers
from cotbench.envs.registry import TokenSizes
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.recipes import Masking, Preset, Recipe
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.manifest import provenance

MASKS = "masks.json"
NAME = "sft"
PAPER_FRACTION = 0.3
"""The paper's mask fraction: recipe `sft+` is `sft` with this one."""

_ACTION_SHARE = 0.25
"""Share of an answer's tokens that are its action's, about; for estimates of cost."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Data of a training, fixed before the first step.

    Attributes:
        demonstrations: what is learned from, with the traces that are trained on.
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
    demonstrations = [one for path in config.data for one in read_data(path)]
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

    loop.set_up_torch(config.threads, config.seed)
    trainable = load_start(config)
    args = loop.trainer_arguments(config.training, out, trainable.model)

    scores = partial(base_scores, config, trainable, elicitations)
    data = make_training_data(config, demonstrations, elicitations, trainable, processes=args.world_size, scores=scores)
    counts = _counts(data.examples, config)
    record = {**record, "base": trainable.description, "examples": counts, "steps": len(data.steps)}
    write_begun(out, record)
    if args.process_index == 0:
        with loop.disk_full_as_error(out):
            write_masks(out, data.masks, data.steps)
    trees = trees_of_examples(data.examples.episodes, data.masks)
    dataset = PackedDataset(data.steps, trees, args.world_size, config.loss_normalisation)
    measured = loop.train(trainable, dataset, args, record, out, config.checkpoints, progress, config.ema_decay)
    return TrainingResult(out, len(data.steps), measured, counts["examples"], counts["too_long"])


def base_scores(
    config: SFTConfig,
    trainable: Any,
    elicitations: dict[str, Elicitation],
    played: Sequence[Demonstration],
    examples: Examples,
) -> Any:
    """Return the base model's score of each example, as the selection of the masks needs it.

    Args:
        config: the options.
        trainable: the model, a `TrainableModel`.
        elicitations: environment -> the elicitation that evaluation will use.
        played: the demonstrations, with the traces that are trained on.
        examples: that were made of them.
    """
    from cotbench.baselines.training.logprobs import action_logprobs
    from cotbench.baselines.training.prompt_actions import prompt_matches
    from cotbench.baselines.training.start_pass import start_pass

    if config.mask_select == "confident":
        return prompt_matches(trainable, played, examples, elicitations)

    def measure(losses: Losses) -> Any:
        return action_logprobs(
            trainable.model, trainable.chat, examples.episodes, compute=losses, device=trainable.model.device
        )

    return start_pass(trainable, measure)


def read_data(path: str) -> list[Demonstration]:
    """Return the demonstrations that an option `data` names.

    Args:
        path: of a folder or a file; or `TINY_DATA`.

    Raises:
        UsageError: there is nothing to learn from.
    """
    from cotbench.baselines.tiny.demonstrations import TINY_DATA, tiny_demonstrations

    return tiny_demonstrations() if path == TINY_DATA else read_demonstrations(Path(path))


def _counts(examples: Examples, config: SFTConfig) -> dict[str, int]:
    return {
        "examples": len(examples.flat),
        "too_long": len(examples.too_long),
        "shortened": examples.shortened,
        "without_trace": examples.without_trace,
        "beyond_budget": examples.beyond_budget,
        **({"prompt_mode": sum(not one.part("trace") for one in examples.flat)} if config.prompt_share else {}),
    }


def make_training_data(
    config: SFTConfig,
    demonstrations: Sequence[Demonstration],
    elicitations: dict[str, Elicitation],
    trainable: Any,
    *,
    processes: int,
    scores: Callable[[Sequence[Demonstration], Examples], Any],
) -> TrainingData:
    """Return examples, masks and steps.

    Args:
        config: the options.
        demonstrations: what is learned from.
        elicitations: environment -> the elicitation that evaluation will use.
        trainable: the model, a `TrainableModel`.
        processes: among how many a step is divided.
        scores: computes the base model's scores of the examples that were made of these demonstrations; called only where the
            masks need them.

    Raises:
        UsageError: there is nothing to learn from.
    """
    longest = min(trainable.context, config.max_length or trainable.context)
    make = partial(make_examples, chat=trainable.chat, elicitation=elicitations, context=trainable.context, longest=longest)
    controlled = control_traces(demonstrations, config.traces, trainable.chat, config.seed)
    examples = make(controlled, bare=config.traces == "none", prompt_share=config.prompt_share, seed=config.seed)
    if not examples.episodes:
        raise UsageError(
            f"no example is left of {len(demonstrations)} demonstrations: {len(examples.too_long)} decisions are longer than "
            f"{longest} tokens (--max-length), {examples.without_trace} have no trace"
        )
    masks = Masks.of(config, examples.flat, scores(controlled, examples) if config.needs_scores else None)
    schedule = partial(
        make_steps,
        unit=config.unit,
        batch=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        tokens=config.max_tokens_per_forward,
        processes=processes,
    )
    sizes = _sizes(examples, config.unit)
    if config.match_compute and config.traces != "own":
        own = _sizes(make(demonstrations, prompt_share=config.prompt_share, seed=config.seed), config.unit)
        steps = schedule(sizes, compute=computed_tokens(schedule(own, max_steps=config.max_steps), own))
    else:
        steps = schedule(sizes, max_steps=config.max_steps)
    return TrainingData(controlled, examples, masks, steps)


def _sizes(examples: Examples, unit: ExampleUnit) -> list[list[int]]:
    """Return the tokens that each decision of each episode adds to what is computed."""
    return [
        [
            len(one.answer) if unit == "episode" and index < len(episode) - 1 else len(one.ids)
            for index, one in enumerate(episode)
        ]
        for episode in examples.episodes
    ]


def write_masks(out: Path, masks: Masks, steps: Sequence[TrainingStep]) -> None:
    """Write `masks.json`: which examples are masked, epoch by epoch.

    Args:
        out: the folder of the training.
        masks: its masks.
        steps: its schedule.
    """
    epochs = 1 + max(step.epoch for step in steps)
    write_atomically(out / MASKS, [json.dumps(masks.record(epochs)) + "\n"])


def complete_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with the training data of tiny filled in.

    Args:
        options: by name.

    Raises:
        UsageError: a model or data is missing.
    """
    from cotbench.baselines.tiny.demonstrations import TINY_DATA

    if options.get("model") == "tiny" and "data" not in options:
        options["data"] = (TINY_DATA,)
    if "model" not in options:
        raise UsageError("--model is missing: name the model to train, such as tiny, smollm2, qwen, or a folder")
    if "data" not in options:
        raise UsageError("--data is missing: make traces with cotbench traces --out DIR, then --data DIR")
    return options


def _cost(config: SFTConfig, sizes: TokenSizes, episodes: int) -> float:
    """Return about how many tokens go through the model: an episode as one tree, or its decisions one by one."""
    turns = sizes.expert_steps
    bare = 1.0 if config.traces == "none" and not config.match_compute else config.prompt_share
    answer = sizes.answer * (1 - bare + bare * _ACTION_SHARE)
    if config.unit == "episode":
        each = (sizes.first_prompt + turns * (sizes.step + answer)) / turns
    else:
        each = sizes.first_prompt + sizes.step * turns / 2 + answer
    decisions = config.epochs * episodes * turns if config.max_steps is None else config.max_steps * config.batch_size
    return decisions * each


def masking_of(config: MaskConfig, usual_schedules: Sequence[MaskSchedule] = ("constant",)) -> Masking:
    """Return the masks that a config asks for; actions that weigh as much as everything else, or more, are not masked.

    Args:
        config: of a recipe.
        usual_schedules: those that mask as the paper does in this recipe.
    """
    usual = config.mask_schedule in usual_schedules and config.action_weight == 0 and not config.mask_closing
    if config.mask_fraction == 0:
        return Masking(0.0, config.mask_select)
    return Masking(config.mask_fraction if config.action_weight < 1 else 0.0, config.mask_select, usual)


def _paper_row(config: SFTConfig) -> str | None:
    """Return the row of the paper's tables: SFT without masks, SFT+ with its own."""
    if config.traces != "own" or config.prompt_share or config.trace_weight != 1:
        return None
    return masking_of(config).paper_row("SFT", PAPER_FRACTION)


PRESETS = {
    "paper": Preset("5 epochs, learning rate 1e-5, 16 decisions per step"),
    "tiny": Preset(
        "1 epoch, learning rate 2e-3, whole episodes as trees, at least 16 decisions per step, averaged weights",
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
    complete=complete_options,
    masking=masking_of,
    mask_options=frozenset(MaskConfig.model_fields) - {"seed", "trace_weight"},
    trace_control=lambda config: str(config.traces),
    paper_row=_paper_row,
)

SFT_PLUS = replace(
    SFT,
    name="sft+",
    description=f"the same with reduced action supervision (default mask fraction {PAPER_FRACTION:g})",
    values={"mask_fraction": PAPER_FRACTION},
    compares_with=NAME,
)
