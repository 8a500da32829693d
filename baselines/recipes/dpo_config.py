"""Options of recipe `dpo`. Invariant: all that the trained weights depend on is a field; what is an option of `sft` too has its
name there.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cotbench.baselines.recipes.sft_config import SFTConfig
from cotbench.errors import UsageError
from cotbench.flags import MODEL, OPTIMISATION, Flag


class DPOConfig(SFTConfig):
    """Options of recipe `dpo`. The paper gives none; the defaults are those of the DPO paper where it gives a value."""

    model: Annotated[str, Flag(panel=MODEL)] = Field(
        description="model to train, which is also the reference: the checkpoint of recipe sft that the pairs were sampled from"
    )
    data: Annotated[tuple[str, ...], Flag(panel=MODEL)] = Field(
        min_length=1, description="preference pairs: a folder of cotbench pairs, or a .jsonl file; may be repeated"
    )
    traces: Annotated[Literal["own"], Flag(hidden=True)] = Field("own", description="always own")
    prompt_share: Annotated[Literal[0], Flag(hidden=True)] = Field(0, description="always 0: pairs are of reasoned answers")
    match_compute: Annotated[Literal[False], Flag(hidden=True)] = Field(False, description="always False")
    epochs: Annotated[float, Flag(panel=OPTIMISATION)] = Field(1, gt=0, description="training epochs")
    learning_rate: Annotated[float, Flag(names=("--lr",), panel=OPTIMISATION)] = Field(
        1e-6, gt=0, description="learning rate (AdamW)"
    )
    batch_size: Annotated[int, Flag(names=("-b",), panel=OPTIMISATION)] = Field(16, ge=1, description="pairs per step")
    beta: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.1, gt=0, description="beta: how strongly a departure from the reference counts"
    )
    label_smoothing: Annotated[float, Flag(panel=OPTIMISATION)] = Field(
        0.0, ge=0, lt=0.5, description="probability that a pair is labelled the wrong way round (conservative DPO)"
    )

    @model_validator(mode="after")
    def _scored(self) -> Self:
        if self.mask_select == "confident":
            raise UsageError(
                "mask_select=confident asks the model at the states of demonstrations, which pairs do not hold: "
                "use mask_select=likely"
            )
        return self
