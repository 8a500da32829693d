"""The resources of a run: parallel episodes, processes, data folder, memory, trackers. Invariant: none of them changes a
result, so none is in a manifest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cotbench.flags import EXECUTION, Flag


class Resources(BaseModel):
    """The resources that a run is played with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_envs: Annotated[int | None, Flag(panel=EXECUTION, default="as many as keep the agent busy")] = Field(
        None, ge=1, description="number of episodes played in parallel"
    )
    workers: Annotated[int | None, Flag(names=("-w",), panel=EXECUTION, default="1 with a model, otherwise 0")] = Field(
        None, ge=0, description="number of processes that run the environments"
    )
    data: Annotated[Path | None, Flag(panel=EXECUTION, default="$ALFWORLD_DATA")] = Field(
        None, description="folder with the environment's data"
    )
    cache_gb: Annotated[float | None, Flag(panel=EXECUTION, default="a quarter of the free memory, 80 % of a GPU's")] = Field(
        None, description="size of the model's KV cache in gigabytes"
    )
    report_to: Annotated[tuple[str, ...], Flag(panel=EXECUTION)] = Field(
        (), description="experiment tracker (of accelerate): tensorboard, wandb, mlflow, ..., all or none; may be repeated"
    )

    def agent_options(self) -> dict[str, str]:
        """Return the resources that are options of the agent."""
        return {} if self.cache_gb is None else {"cache_gb": repr(self.cache_gb)}

    def layout(self, episodes: int, batch: int | None) -> tuple[int, int]:
        """Return the number of environments, and of the processes they live in.

        Args:
            episodes: how many there are to play.
            batch: how many queries the agent answers side by side; None: it answers between two steps of the environments, and
                computes nothing while they act.
        """
        usual = max(batch or 1, self.workers or 1)
        count = max(1, min(self.num_envs or usual, episodes))
        return count, min(count, self.workers if self.workers is not None else int(batch is not None))


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
