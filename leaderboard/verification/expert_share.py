"""How much of a run is the expert's. Invariant: counted from the environment's own expert while the actions are replayed, never
from what was submitted.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

from cotbench.prompting.elicitation import Mode

EXPERT: Final = 0.99
"""From this share of the steps on, an entry plays the expert's actions. An agent that has learnt from the expert shares many
with it, so nearly all of them must be its own before an entry loses its rank by them.
"""


class ExpertShare(BaseModel):
    """Steps at which the executed action was the expert's.

    Attributes:
        mode: of the episodes.
        expert: which one, where the environment has several; empty where it has one.
        same: at so many steps, of `steps`.
    """

    model_config = ConfigDict(frozen=True)

    mode: Mode
    expert: str = ""
    same: int
    steps: int

    @property
    def plays_expert(self) -> bool:
        """Return whether nearly all steps are the expert's."""
        return self.steps > 0 and self.same >= EXPERT * self.steps

    def __str__(self) -> str:
        which = f" {self.expert!r}" if self.expert else ""
        return f"plays the actions of the expert{which} at {self.same:,} of {self.steps:,} steps"
