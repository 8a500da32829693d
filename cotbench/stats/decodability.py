"""Decodability: how often an action can be told from its trace alone. Invariant: every share stands beside the floor that sees
nothing, and its interval is over tasks.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from cotbench.stats.estimates import Estimate
from cotbench.stats.formatting import format_estimate


class Decodability(BaseModel):
    """Shares of decisions on held-out tasks whose action a simple decoder tells from the trace alone: of each task, averaged.

    Attributes:
        decoder: the decoder and how it was held out, in words.
        decisions: number of decisions with a trace, of `tasks` tasks.
        action: share of the decisions whose whole action was told, in its canonical spelling.
        action_floor: the same for the most frequent action, without the trace.
        arguments: share of the actions' arguments (objects, values) that were told.
        arguments_floor: the same for the most frequent arguments, without the trace.
        arguments_in_trace: share of the arguments that stand in the trace word for word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: str
    decisions: int
    tasks: int
    action: Estimate
    action_floor: Estimate
    arguments: Estimate
    arguments_floor: Estimate
    arguments_in_trace: Estimate

    def lines(self) -> list[str]:
        """Return the numbers in lines of at most 80 columns."""
        rows = (("action", self.action, self.action_floor), ("arguments", self.arguments, self.arguments_floor))
        return [
            f"decodability: told from the trace alone, {self.decisions} decisions of {self.tasks} tasks",
            *(f"  {name:<12}{format_estimate(share):<21}floor {format_estimate(floor)}" for name, share, floor in rows),
            f"  arguments that the trace names  {format_estimate(self.arguments_in_trace)}",
        ]
