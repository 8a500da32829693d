"""Options of recipe `frodo`. Invariant: both trainings, the writer's and the answerer's, follow from one set of options: those
of `sft`, and what is FRODO's own.
"""

from __future__ import annotations

from typing import Annotated, Any, Self, get_args

from pydantic import Field, field_validator, model_validator

from cotbench.baselines.data.counterfactuals import CounterfactualSource
from cotbench.baselines.recipes.sft_config import SFTConfig
from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import MODEL, OPTIMISATION, Flag


class FrodoConfig(SFTConfig):
    """Options of recipe `frodo`: those of `sft`, for both models, and its own."""

    epochs: Annotated[float, Flag(panel=OPTIMISATION)] = Field(3, gt=0, description="training epochs, of each model")
    counterfactuals: Annotated[CounterfactualSource, Flag(panel=MODEL)] = Field(
        "auto",
        description="counterfactual traces. goal: what the scripted teacher thinks at the state with the goal of another task; "
        "donor: trace and action of another decision; auto: goal where the data's teacher can do that, else donor",
    )
    beta: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.1, gt=0, description="beta of the writer's preference loss (DPO)"
    )
    writer_learning_rate: Annotated[float, Flag(names=("--writer-lr",), panel=OPTIMISATION)] = Field(
        1e-6, gt=0, description="learning rate of the writer; --learning-rate is the answerer's"
    )
    max_grad_norm: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        10.0, ge=0, description="maximum gradient norm of the answerer, whose loss is a sum over tokens; 0: no clipping"
    )
    writer_max_grad_norm: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        1.0, ge=0, description="maximum gradient norm of the writer; 0: no clipping"
    )
    writer_likelihood_weight: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, description="weight of -log p(right trace) beside the writer's preference loss"
    )
    margin: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        1.0,
        ge=0,
        description="margin m of the answerer's hinge (nats): by how much the action is to be likelier after the right trace",
    )
    counterfactual_weight: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        1.0, ge=0, description="weight of the answerer's loss of the counterfactual action after its trace"
    )
    hinge_weight: Annotated[float, Flag(panel=OPTIMISATION)] = Field(1.0, ge=0, description="weight of the answerer's hinge")

    @field_validator("counterfactuals", mode="before")
    @classmethod
    def _known_source(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in get_args(CounterfactualSource):
            raise UnknownNameError("counterfactuals", value, get_args(CounterfactualSource))
        return value

    @model_validator(mode="after")
    def _applicable(self) -> Self:
        if self.traces != "own" or self.match_compute or self.prompt_share:
            raise UsageError(
                "recipe frodo is trained on own traces and counterfactual ones: omit --traces, --match-compute, --prompt-share"
            )
        if self.trace_weight != 1:
            raise UsageError(f"trace_weight={self.trace_weight:g}: in recipe frodo no loss is over trace and action: omit it")
        if self.mask_fraction and self.action_weight:
            raise UsageError(f"action_weight={self.action_weight:g}: recipe frodo masks whole actions: omit it")
        return self
