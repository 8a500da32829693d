"""LoRA: a low-rank adapter instead of all weights. Invariant: the adapter is found again from any folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotbench.agents.hf.pretrained import first_line, hushed
from cotbench.errors import AgentError, MissingExtraError


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """Options of a low-rank adapter, which is trained instead of all weights.

    Attributes:
        rank: of the adapter's matrices.
        alpha: scale of the adapter.
        dropout: probability, before the adapter.
        targets: names of the layers that get one; empty for all linear layers.
    """

    rank: int
    alpha: float
    dropout: float
    targets: Sequence[str]


def add_adapter(model: Any, lora: LoraOptions) -> Any:
    """Return a model whose own weights are frozen and whose adapter is trained.

    Args:
        model: of transformers.
        lora: the adapter's options.

    Raises:
        MissingExtraError: peft is not installed.
        AgentError: the model has no such layers.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("--lora-rank", "adapter") from error
    if Path(model.name_or_path).is_dir():
        model.name_or_path = str(Path(model.name_or_path).resolve())  # The adapter is found again from any folder.
    targets = "all-linear" if not lora.targets else list(lora.targets)
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        with hushed():
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise AgentError(f"no adapter can be added to this model ({first_line(error)}): see --lora-targets") from error
