"""Options of recipe `sft`. Invariant: all that the trained weights depend on is a field; the defaults are the paper's where it
gives a value.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Self, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from cotbench.baselines.data.trace_controls import TraceControl
from cotbench.baselines.training.batching import ExampleUnit
from cotbench.baselines.training.masks import MaskConfig
from cotbench.baselines.training.options import LRSchedule, TrainingDtype, TrainingOptions
from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import ELICITATION, EXECUTION, MODEL, OPTIMISATION, Flag
from cotbench.prompting.elicitation import Elicitation

Progress = Annotated[float, Field(gt=0, le=1)]
"""A fraction of the training."""


class SFTConfig(MaskConfig):
    """Options of recipe `sft`. The defaults are the paper's where it gives a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Annotated[str, Flag(panel=MODEL)] = Field(
        description="model to train: hub name, alias, local folder, smollm2 or tiny"
    )
    data: Annotated[tuple[str, ...], Flag(panel=MODEL, default="for --model tiny: generated")] = Field(
        min_length=1, description="training data: a traces folder, a .jsonl or a .parquet file; may be repeated"
    )
    traces: Annotated[TraceControl, Flag(panel=MODEL)] = Field(
        "own",
        description="traces to train on. own; none: actions only; shuffled: the trace of another task and action; "
        "filler: as many dots as the own trace has tokens. All but own are control arms with known outcomes",
    )
    # Left out of dumps at 0: a training without it is the training that it was before the option existed.
    prompt_share: Annotated[float, Flag(panel=MODEL)] = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the decisions that are trained in prompt mode: the action alone, as prompt mode asks for it",
        exclude_if=lambda value: value == 0,
    )
    epochs: Annotated[float, Flag(panel=OPTIMISATION)] = Field(5, gt=0, description="training epochs")
    max_steps: Annotated[int | None, Flag(panel=OPTIMISATION, default="follows from --epochs")] = Field(
        None, ge=1, description="number of training steps, instead of --epochs"
    )
    match_compute: Annotated[bool, Flag(panel=OPTIMISATION)] = Field(
        False, description="with --traces other than own: train for as many tokens as own traces would take"
    )
    learning_rate: Annotated[float, Flag(names=("--lr",), panel=OPTIMISATION)] = Field(
        1e-5, gt=0, description="learning rate (AdamW)"
    )
    batch_size: Annotated[int, Flag(names=("-b",), panel=OPTIMISATION)] = Field(16, ge=1, description="decisions per step")
    unit: Annotated[ExampleUnit, Flag(panel=OPTIMISATION)] = Field(
        "decision", description="what a training sequence holds: one decision, or a whole episode"
    )
    lr_schedule: Annotated[LRSchedule, Flag(panel=OPTIMISATION)] = Field(
        "constant", description="learning rate schedule after warmup"
    )  # Constant keeps decay apart from progress, so that checkpoints can be compared.
    warmup: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.03, ge=0, lt=1, description="warmup: fraction of the steps over which the learning rate rises from 0"
    )
    weight_decay: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, description="weight decay (AdamW), on matrices only"
    )
    betas: Annotated[tuple[float, float], Flag(panel=OPTIMISATION, joined=True)] = Field(
        (0.9, 0.999), description="betas (AdamW)"
    )
    ema_decay: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, lt=1, description="decay of the exponential moving average of the weights, which is what is saved; 0: none"
    )
    max_grad_norm: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        1.0, ge=0, description="maximum gradient norm (clipping); 0: no clipping"
    )
    checkpoints: Annotated[tuple[Progress, ...], Flag(panel=OPTIMISATION, joined=True)] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0), description="fractions of the training at which a checkpoint is saved"
    )
    max_length: Annotated[int | None, Flag(panel=OPTIMISATION, default="the model's context")] = Field(
        None, ge=64, description="maximum length of an example in tokens"
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
        False, description="recompute activations to save memory (gradient checkpointing)"
    )
    seed: Annotated[int, Flag(panel=OPTIMISATION)] = Field(
        0, ge=0, description="seed of the order of the data, the masks and new weights"
    )
    device: Annotated[str, Flag(panel=EXECUTION)] = Field("auto", description="auto, cpu or cuda")
    dtype: Annotated[TrainingDtype, Flag(panel=EXECUTION)] = Field(
        "auto",
        description="what is computed in. auto: on a GPU that has it bfloat16 from weights in float32 (mixed precision), else "
        "float32; float32; bfloat16: the weights and the optimizer too, which rounds small learning rates away",
    )
    threads: Annotated[int | None, Flag(panel=EXECUTION, default="torch's choice")] = Field(
        None, ge=1, description="number of torch threads"
    )
    logging_steps: Annotated[int, Flag(panel=EXECUTION)] = Field(10, ge=1, description="steps between logged losses")
    report_to: Annotated[tuple[str, ...], Flag(panel=EXECUTION)] = Field(
        (), description="experiment tracker (of transformers): wandb, tensorboard, mlflow, ..., all or none; may be repeated"
    )
    elicitation: Annotated[dict[str, Any], Flag(panel=ELICITATION, table=Elicitation)] = Field(
        default_factory=dict, description="elicitation settings that differ from the defaults"
    )

    @field_validator("traces", mode="before")
    @classmethod
    def _known_traces(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in get_args(TraceControl):
            raise UnknownNameError("traces", value, get_args(TraceControl))
        return value

    @model_validator(mode="after")
    def _some_with_traces(self) -> Self:
        if self.prompt_share and self.traces == "none":
            raise UsageError(
                f"prompt_share={self.prompt_share:g} with traces=none: every decision is trained in prompt mode already; "
                "omit --prompt-share"
            )
        return self

    @property
    def training(self) -> TrainingOptions:
        """Options of the optimiser."""
        return TrainingOptions(**{one.name: getattr(self, one.name) for one in fields(TrainingOptions)})
