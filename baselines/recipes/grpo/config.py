"""Options of recipe `grpo`. Invariant: all that the trained weights depend on is a field; what is sampled for training is
sampled at temperature 1 without nucleus, whatever the elicitation of evaluation says.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from cotbench.baselines.recipes.grpo.advantages import AdvantageUnit
from cotbench.baselines.recipes.grpo.loss import LossMean
from cotbench.baselines.recipes.grpo.rewards import Outcome
from cotbench.baselines.training.masks import MaskConfig
from cotbench.baselines.training.options import LRSchedule, TrainingDtype, TrainingOptions
from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import ELICITATION, EXECUTION, MODEL, OPTIMISATION, TASKS, Flag
from cotbench.prompting.elicitation import Elicitation

Progress = Annotated[float, Field(gt=0, le=1)]
"""A fraction of the training."""

ROLLOUTS = "Rollouts and rewards"
"""Panel of `--help`."""

Sampler = Literal["hf", "vllm"]
"""What answers in the rollouts: the engine of evaluation on the model itself, or a vLLM server that is handed its weights."""

_CHOICES: dict[str, Any] = {"rollouts": Sampler, "reward": Outcome, "advantage": AdvantageUnit, "loss_mean": LossMean}


class GRPOConfig(MaskConfig):
    """Options of recipe `grpo`. The defaults are those of verl-agent's ALFWorld recipe, where it gives a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Annotated[str, Flag(panel=MODEL)] = Field(
        description="model to start from, which should win something already: a folder of an SFT training, hub name or alias"
    )
    env: Annotated[str, Flag(panel=TASKS)] = Field("alfworld-gen", description="name of the environment (cotbench list envs)")
    scheme: Annotated[str, Flag(panel=TASKS)] = Field("paper", description="split scheme; tasks of its split train are played")
    train_tasks: Annotated[int | None, Flag(panel=TASKS, default="all")] = Field(
        None, ge=1, description="number of tasks of split train, drawn by the seed"
    )
    max_episode_steps: Annotated[int | None, Flag(panel=TASKS, default="the environment's")] = Field(
        None, ge=1, description="step budget of an episode, of split dev too"
    )
    updates: Annotated[int, Flag(panel=OPTIMISATION)] = Field(150, ge=1, description="number of batches of rollouts")
    groups: Annotated[int, Flag(panel=ROLLOUTS)] = Field(16, ge=1, description="tasks per batch: each is a group of rollouts")
    group_size: Annotated[int, Flag(panel=ROLLOUTS)] = Field(8, description="rollouts of each task; at least 2")
    num_iterations: Annotated[int, Flag(panel=OPTIMISATION)] = Field(
        1, ge=1, description="updates of the weights on each batch of rollouts"
    )
    reward: Annotated[Outcome, Flag(panel=ROLLOUTS)] = Field(
        "success", description="what an episode is rewarded for. success: 1 where the task is solved; score: the environment's"
    )
    malformed_penalty: Annotated[float, Flag(panel=ROLLOUTS)] = Field(
        0.1,
        ge=0,
        description="taken off an episode's reward for each answer whose trace or action the model did not close; in all at "
        "most 0.5",
    )
    advantage: Annotated[AdvantageUnit, Flag(panel=ROLLOUTS)] = Field(
        "episode",
        description="what a group's mean and deviation are taken over. episode: its episodes, one advantage for all turns of "
        "each; step: all turns of the group, each with its own penalty",
    )
    clip: Annotated[float, Flag(names=("--epsilon",), panel=OPTIMISATION)] = Field(
        0.2, gt=0, lt=1, description="a token's probability ratio is clipped to 1 plus or minus this"
    )
    kl_coef: Annotated[float, Flag(names=("--beta",), panel=OPTIMISATION)] = Field(
        0.01, ge=0, description="coefficient of the KL divergence from the start model (estimator k3), in the loss"
    )
    kl_on_masked: Annotated[bool, Flag(panel=OPTIMISATION)] = Field(
        True, description="keep the KL divergence on the tokens that are masked in the policy loss"
    )
    loss_mean: Annotated[LossMean, Flag(panel=OPTIMISATION)] = Field(
        "token",
        description="what the loss is averaged over. token: all tokens of a batch; sequence: each episode's, then episodes",
    )
    learning_rate: Annotated[float, Flag(names=("--lr",), panel=OPTIMISATION)] = Field(
        1e-6, gt=0, description="learning rate (AdamW)"
    )
    lr_schedule: Annotated[LRSchedule, Flag(panel=OPTIMISATION)] = Field(
        "constant", description="learning rate schedule after warmup"
    )
    warmup: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, lt=1, description="warmup: fraction of the steps over which the learning rate rises from 0"
    )
    weight_decay: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, description="weight decay (AdamW), on matrices only"
    )
    betas: Annotated[tuple[float, float], Flag(panel=OPTIMISATION, joined=True)] = Field(
        (0.9, 0.999), description="betas (AdamW)"
    )
    max_grad_norm: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        1.0, ge=0, description="maximum gradient norm (clipping); 0: no clipping"
    )
    checkpoints: Annotated[tuple[Progress, ...], Flag(panel=OPTIMISATION, joined=True)] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0),
        description="fractions of the training at which a checkpoint is saved and split dev is played",
    )
    dev_episodes: Annotated[int, Flag(panel=TASKS)] = Field(
        64,
        ge=0,
        description="tasks of split dev that are played in both modes at each checkpoint, and before the training, each for "
        "at most --max-episode-steps; all tasks where the split has fewer; 0: none",
    )
    early_stop: Annotated[int | None, Flag(panel=OPTIMISATION, default="no early stopping")] = Field(
        None,
        ge=1,
        description="stop after this many checkpoints without a better success of CoT mode on split dev than before, the start "
        "model's included, and keep the best checkpoint",
    )
    patience: Annotated[int, Flag(panel=OPTIMISATION)] = Field(
        10, ge=1, description="give up after this many batches in a row in which no group's rewards differ"
    )
    max_tokens_per_forward: Annotated[int, Flag(panel=OPTIMISATION)] = Field(8192, ge=64, description="tokens per forward pass")
    lora_rank: Annotated[int | None, Flag(panel=OPTIMISATION)] = Field(
        None, ge=1, description="train a LoRA adapter of this rank instead of all weights"
    )
    lora_alpha: Annotated[float, Flag(panel=OPTIMISATION)] = Field(32.0, gt=0, description="LoRA alpha, the adapter's scale")
    lora_targets: Annotated[tuple[str, ...], Flag(panel=OPTIMISATION, joined=True, default="all linear layers")] = Field(
        (), description="layers that get a LoRA adapter"
    )
    gradient_checkpointing: Annotated[bool, Flag(panel=OPTIMISATION)] = Field(
        False, description="recompute activations to save memory (gradient checkpointing)"
    )
    seed: Annotated[int, Flag(panel=OPTIMISATION)] = Field(
        0, ge=0, description="seed of the tasks' order, the sampling, the masks and new weights"
    )
    rollouts: Annotated[Sampler, Flag(panel=EXECUTION)] = Field(
        "hf",
        description="what plays. hf: the model itself, in each process; vllm: a vLLM server on this machine, which is started, "
        "and handed the weights before each batch",
    )
    vllm_gpus: Annotated[str | None, Flag(panel=EXECUTION, default="those of this process")] = Field(
        None, pattern=r"^\d+(,\d+)*$", description="GPUs of the vLLM server, such as 7 or 6,7 (CUDA_VISIBLE_DEVICES)"
    )
    vllm_args: Annotated[str, Flag(panel=EXECUTION)] = Field(
        "", description="further arguments of vllm serve, such as '--gpu-memory-utilization=0.4'"
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
    workers: Annotated[int, Flag(names=("-w",), panel=EXECUTION)] = Field(
        1, ge=0, description="number of processes that run the environments"
    )
    logging_steps: Annotated[int, Flag(panel=EXECUTION)] = Field(1, ge=1, description="steps between logged numbers")
    report_to: Annotated[tuple[str, ...], Flag(panel=EXECUTION)] = Field(
        (), description="experiment tracker (of transformers): wandb, tensorboard, mlflow, ..., all or none; may be repeated"
    )
    elicitation: Annotated[dict[str, Any], Flag(panel=ELICITATION, table=Elicitation)] = Field(
        default_factory=dict, description="elicitation settings that differ from the defaults"
    )

    @field_validator(*_CHOICES, mode="before")
    @classmethod
    def _known_choice(cls, value: Any, info: Any) -> Any:
        names = get_args(_CHOICES[info.field_name])
        if isinstance(value, str) and value not in names:
            raise UnknownNameError(info.field_name, value, names)
        return value

    @field_validator("group_size")
    @classmethod
    def _a_group(cls, value: int) -> int:
        if value < 2:
            raise UsageError(
                f"group_size={value}: an advantage compares the rollouts of a task with each other, give at least 2"
            )
        return value

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.mask_select not in ("random", "per-task"):
            raise UsageError(
                f"mask_select={self.mask_select} ranks the actions of training data, and here the model writes its own: use "
                "random or per-task"
            )
        if self.rollouts != "vllm" and (self.vllm_args or self.vllm_gpus):
            raise UsageError("vllm_args and vllm_gpus are the vLLM server's: add --rollouts vllm")
        if self.early_stop is not None and not self.dev_episodes:
            raise UsageError("early_stop needs episodes of split dev: give --dev-episodes, or omit --early-stop")
        return self

    @property
    def training(self) -> TrainingOptions:
        """Options of the optimiser; no running average of the weights, for the weights that play are those that learn."""
        names = [one.name for one in fields(TrainingOptions) if one.name != "ema_decay"]
        return TrainingOptions(**{name: getattr(self, name) for name in names})

    @property
    def steps(self) -> int:
        """Number of updates of the weights."""
        return self.updates * self.num_iterations
