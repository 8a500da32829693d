"""The options of recipe `base`. Invariant: importing this loads no library of training and no environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cotbench.flags import EXECUTION, MODEL, OPTIMISATION, Flag


class BaseConfig(BaseModel):
    """What the base of `tiny` is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    games: Annotated[int, Flag(panel=MODEL)] = Field(6000, ge=10, description="number of games whose transcripts are read")
    epochs: Annotated[float, Flag(panel=OPTIMISATION)] = Field(1, gt=0, description="training epochs")
    learning_rate: Annotated[float, Flag(names=("--lr",), panel=OPTIMISATION)] = Field(
        2e-3, gt=0, description="learning rate of AdamW; it falls to 0"
    )
    batch_size: Annotated[int, Flag(names=("-b",), panel=OPTIMISATION)] = Field(2, ge=1, description="games per step")
    hidden: Annotated[int, Flag(panel=MODEL)] = Field(192, ge=32, multiple_of=32, description="hidden size of the model")
    layers: Annotated[int, Flag(panel=MODEL)] = Field(4, ge=1, description="number of layers of the model")
    seed: Annotated[int, Flag(panel=OPTIMISATION)] = Field(
        0, ge=0, description="seed of the games' players, the weights and the order"
    )
    device: Annotated[str, Flag(panel=EXECUTION)] = Field("cpu", description="cpu or cuda")
    threads: Annotated[int | None, Flag(panel=EXECUTION, default="torch's choice")] = Field(
        None, ge=1, description="number of torch threads"
    )
    report_to: Annotated[tuple[str, ...], Flag(panel=EXECUTION)] = Field(
        (), description="tracker that transformers knows: wandb, tensorboard, mlflow, ...; may be repeated"
    )
