"""Options of a training's optimiser, whatever the recipe. Invariant: one set of names and defaults for all recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LRSchedule = Literal["constant", "linear", "cosine"]

TrainingDtype = Literal["auto", "float32", "bfloat16"]
"""What is computed in. `auto`: on a GPU that has it bfloat16, from weights in float32; `bfloat16`: the weights too."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Options of the updates of the weights.

    Attributes:
        learning_rate: peak step size of AdamW.
        lr_schedule: what the learning rate does after the warm-up.
        warmup: share of the steps in which the learning rate rises from 0.
        weight_decay: of AdamW, on matrices.
        betas: of AdamW.
        max_grad_norm: gradients are clipped to this norm; 0: never.
        ema_decay: decay of the exponential moving average of the weights, which is what is saved; 0: the weights are.
        dtype: what is computed in.
        gradient_checkpointing: activations are computed twice to save memory.
        seed: of whatever the trainer draws.
        logging_steps: the loss is logged every so many steps.
        report_to: trackers that transformers knows.
    """

    learning_rate: float
    lr_schedule: LRSchedule = "constant"
    warmup: float = 0.03
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0
    dtype: TrainingDtype = "auto"
    gradient_checkpointing: bool = False
    seed: int = 0
    logging_steps: int = 10
    report_to: tuple[str, ...] = ()
