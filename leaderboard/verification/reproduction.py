"""The outcome of playing an entry's agent again. Invariant: it names what was compared, how much of it agreed, and on which
machine; whether an entry is called reproduced follows from these numbers alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from cotbench.stats.estimates import Estimate

AGREEING: Final = 0.95
"""Share of the compared decisions that must agree. Greedy answers on another machine differ where two tokens are nearly as
likely, in one decision of many; another model, or the same one with other weights, takes another action within a few steps of
most episodes.
"""
TASKS: Final = 10
"""Tasks that must have been played again, or all of an entry that has fewer."""


class Reproduction(BaseModel):
    """A rerun, compared with what was submitted.

    A decision is compared while the executed actions before it in its episode agreed, for after the first that differs the
    agents are asked about other states.

    Attributes:
        when: UTC.
        seed: of the draw of the tasks.
        tasks: how many were played again, of `of`.
        episodes: compared ones; `episodes_agreeing` is the share of those that agree to their end, with its interval.
        decisions: compared ones, prompt actions beside CoT actions among them; `decisions_agreeing` took the same action.
        answers_agreeing: of those decisions, the ones with the same trace and the same number of tokens too.
        first: where the first episode that differs parts, and how; empty where none does.
        weights: the digest of the weights that were loaded, which is the submitted one; empty for an agent without weights.
        machine: torch, device, dtype, ... of the rerun.
    """

    model_config = ConfigDict(frozen=True)

    when: datetime
    seed: int
    tasks: int
    of: int
    episodes: int
    episodes_agreeing: Estimate
    decisions: int
    decisions_agreeing: int
    answers_agreeing: int
    first: str = ""
    weights: str = ""
    machine: dict[str, str] = {}

    @property
    def reproduced(self) -> bool:
        """Return whether the entry may be called reproduced."""
        enough = self.tasks >= min(TASKS, self.of) and self.decisions > 0
        return enough and self.decisions_agreeing >= AGREEING * self.decisions
