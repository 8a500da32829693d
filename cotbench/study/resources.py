"""Settings of how a study is executed. Invariant: none of them changes a number, so none of them is in a study's file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cotbench.flags import EXECUTION, Flag


class StudyResources(BaseModel):
    """The resources that a study is computed with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    jobs: Annotated[int | None, Flag(names=("-j",), panel=EXECUTION, default="one per core, or one to four per GPU")] = Field(
        None, ge=1, description="number of stages run in parallel"
    )
    flops: Annotated[float | None, Flag(panel=EXECUTION, default="3e10; 2e14 for large models")] = Field(
        None, ge=1, description="floating-point operations per second of one job, for the cost estimate"
    )
    until: Annotated[Literal["traces", "train"] | None, Flag(panel=EXECUTION, default="all stages and the report")] = Field(
        None,
        description="stop after these stages: traces (and reference runs; neither needs a GPU) or train; run again to continue",
    )
