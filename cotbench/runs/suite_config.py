"""The settings of `cotbench run` on one environment or on several. Invariant: the settings of each environment are a
`RunConfig`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cotbench.flags import TASKS, Flag
from cotbench.runs.manifest import RunConfig


class SuiteConfig(RunConfig):
    """A run on one environment, or runs on several, each a `RunConfig` with its `env`."""

    env: Annotated[str, Flag(panel=TASKS)] = Field(
        "alfworld-gen", description="environment (cotbench list envs), several separated by commas, or all"
    )
