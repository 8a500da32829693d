"""Recipe `sft`: supervised fine-tuning on traces and actions, with or without reduced action supervision (paper: SFT, SFT+).

Invariant: the loss is taken over the answers alone, on exactly the tokens that evaluation asks with; which action tokens are
left out depends on the options and the seed alone, and is stored beside the weights. What is left out compared with common
trainers: packing does not let a token see another example, and no prompt is cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations
from cotbench.baselines.data.examples import Examples, make_examples
from cotbench.baselines.data.scored_tasks import check_trainable
from cotbench.baselines.recipes.sft_config import SFTConfig
from cotbench.baselines.training.batching import TrainingStep, make_steps
from cotbench.baselines.training.masks import Masks
from cotbench.baselines.training.recipe_card import TrainingResult, data_card, prepare_folder
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.jsonl_store import write_atomically
from cotbench.runs.manifest import provenance

MASKS = "masks.json"
NAME = "sft"


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "tiny": {
        "model": "tiny",
        "epochs": 1.5,
        "learning_rate": 2e-3,
        "batch_size": 16,
        "unit": "episode",
        "betas": (0.9, 0.95),
        "weight_decay": 0.1,
        "ema_decay": 0.998,
    },
}
"""Values that stand in for the defaults, by name."""

PLUS = 0.3
"""The paper's mask fraction: recipe `sft+` is `sft` with this one."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a training goes through, settled before the first step.

    Attributes:
        demonstrations: what is learned from.
        examples: one a decision.
        masks: which of them are masked when.
        steps: in which order.
    """

    demonstrations: Sequence[Demonstration]
    examples: Examples
    masks: Masks
    steps: Sequence[TrainingStep]


def train(config: SFTConfig, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None) -> TrainingResult:
    """Train a model; the same as `cotbench train --recipe sft`.

    Args:
        config: what to do.
        out: the folder of the trained model, its checkpoints (`checkpoint-N`) and cards.
        resume: go on from the newest whole checkpoint in `out`.
        progress: makes a callback of transformers that shows how far it is.

    Raises:
        UsageError: data that cannot be trained on, or another training lies in `out`.
        AgentError: the model cannot be loaded.
    """
    from cotbench.baselines.training.loop import run_training

    demonstrations = [one for path in config.data for one in _read(path)]
    check_trainable(demonstrations)
    asked = {env: _asked(env, config.elicitation) for env in sorted({one.env for one in demonstrations})}
    record = {
        "recipe": NAME,
        "config": config.model_dump(mode="json"),
        "data": data_card(config.data, demonstrations),
        "elicitations": {env: elicitation.fingerprint for env, elicitation in asked.items()},
        **provenance(),
    }
    prepare_folder(out, record, resume=resume)
    return run_training(config, demonstrations, asked, record, out, progress=progress)


def _asked(env: str, options: dict[str, Any]) -> Elicitation:
    try:
        return Elicitation.for_env(env, **options) if env else Elicitation(**options)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"elicitation.{first['loc'][-1]} {first['input']}: {first['msg']}") from error


def _read(path: str) -> list[Demonstration]:
    from cotbench.baselines.tiny.demonstrations import TINY_DATA, tiny_demonstrations

    return tiny_demonstrations() if path == TINY_DATA else read_demonstrations(Path(path))


def summary_line(trained: TrainingResult) -> str:
    """What a training came to, in a line."""
    long = f" ({trained.too_long} more are too long)" if trained.too_long else ""
    masked = f", {trained.seen['masked_share']:.1%} of the action tokens masked" if trained.seen.get("masked_share") else ""
    return f"trained {trained.steps} steps on {trained.examples} examples{long}, {trained.seen['tokens']:.0f} tokens{masked}"


def make_training_data(
    config: SFTConfig,
    demonstrations: Sequence[Demonstration],
    asked: dict[str, Elicitation],
    learner: Any,
    *,
    processes: int,
    scores: Callable[[Examples], Any],
) -> TrainingData:
    """Examples, masks and steps.

    Raises:
        UsageError: there is nothing to learn from.
    """
    longest = min(learner.context, config.max_length or learner.context)
    examples = make_examples(demonstrations, learner.chat, asked, end=learner.end, context=learner.context, longest=longest)
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


def write_masks(out: Path, lesson: TrainingData) -> None:
    """Store which examples are masked, epoch by epoch."""
    epochs = 1 + max(step.epoch for step in lesson.steps)
    write_atomically(out / MASKS, [json.dumps(lesson.masks.record(epochs)) + "\n"])
