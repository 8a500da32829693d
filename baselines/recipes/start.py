"""What a training begins with. Invariant: a checkpoint was trained for the elicitation that is trained now: what is preferred
or rewarded under another one is not what it has learned to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cotbench.baselines.training.recipe_card import CARD
from cotbench.errors import UsageError
from cotbench.json_text import parse_json


def check_start(model: str, elicitations: Mapping[str, str]) -> None:
    """Refuse a checkpoint that was trained for another elicitation; a model without a recipe's card is not known to be.

    Args:
        model: hub name, alias, or local folder.
        elicitations: environment -> fingerprint of the elicitation of this training.

    Raises:
        UsageError: names the environment.
    """
    card = Path(model).expanduser() / CARD
    if not card.is_file():
        return
    try:
        before = dict(parse_json(card.read_bytes())["elicitations"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{card} is damaged: train the checkpoint again, or remove the card") from error
    for env, fingerprint in elicitations.items():
        if before.get(env, fingerprint) != fingerprint:
            raise UsageError(
                f"{model} was trained for another elicitation of {env} ({before[env]}, not {fingerprint}): "
                "give the same elicitation options, or another checkpoint"
            )


def load_start(config: Any) -> Any:
    """Return the model that a training begins with, prepared for training (`TrainableModel`).

    Args:
        config: the options of a recipe: `model`, `device`, `dtype`, `lora_...`.

    Raises:
        AgentError: the model cannot be loaded.
    """
    from cotbench.baselines.training.lora import LoraOptions
    from cotbench.baselines.training.model import load_trainable

    lora = None
    if config.lora_rank is not None:
        dropout = getattr(config, "lora_dropout", 0.0)  # Recipe grpo has none: what is played is what is trained.
        lora = LoraOptions(config.lora_rank, config.lora_alpha, dropout, config.lora_targets)
    return load_trainable(config.model, device=config.device, lora=lora, dtype=config.dtype)
