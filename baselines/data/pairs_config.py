"""Config of `cotbench pairs`. Invariant: all that the pairs depend on is a field."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cotbench.flags import ELICITATION, MODEL, TASKS, Flag
from cotbench.prompting.elicitation import Elicitation


class PairsConfig(BaseModel):
    """Preference pairs: whose answers are chosen and rejected, and how the latter are sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: Annotated[str, Flag(panel=MODEL)] = Field(
        description="whose own answers are rejected: hf:CHECKPOINT of recipe sft, from which recipe dpo begins"
    )
    data: Annotated[tuple[str, ...], Flag(panel=MODEL)] = Field(
        min_length=1,
        description="whose answers are chosen: a traces folder, a .jsonl or a .parquet file; may be repeated",
    )
    samples: Annotated[int, Flag(panel=TASKS)] = Field(
        4, ge=1, description="answers sampled at each state; the first one whose action is worse than the teacher's is rejected"
    )
    states: Annotated[int | None, Flag(panel=TASKS, default="all")] = Field(
        None, ge=1, description="number of states, drawn by the seed"
    )
    sampling_temperature: Annotated[float, Flag(panel=TASKS)] = Field(
        1.0, gt=0, description="sampling temperature, in place of the elicitation's"
    )
    seed: Annotated[int, Flag(panel=TASKS)] = Field(0, ge=0, description="seed of the draw of states and of the sampling")
    elicitation: Annotated[dict[str, Any], Flag(panel=ELICITATION, table=Elicitation)] = Field(
        default_factory=dict, description="elicitation settings that differ from the defaults"
    )
