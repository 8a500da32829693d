"""The teacher whose reasoning is written out of an expert's. Invariant: its answers are a function of the dialogue, the
expert's next action and the seed; they name nothing that the dialogue has not shown.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, cast

from cotbench.agents.decisions import error_decision
from cotbench.baselines.teachers.options import Names, Teach, TeacherOptions
from cotbench.envs.registry import env_entry
from cotbench.errors import CotbenchError, UsageError
from cotbench.prompting.query import Decision, Query
from cotbench.registry import load


class Scripted:
    """The expert's actions, after varied, first-person reasoning.

    In ALFWorld the expert is the one that sees what a player sees; in ScienceWorld it follows the gold path, in BFCL the ground
    truth, call by call: for a call may use the results of the one before it.

    Args:
        slips: probability that a step is a deliberate mistake, without a trace: so that the next steps show how one recovers.
            ALFWorld alone: elsewhere the expert is silent once its path is left.
        variety: among how many wordings of a household thought one is drawn; there are up to three.
        order: in which order equally likely places are searched: "listed" (as the room's list names them) or "shuffled".
        names: how much of the choice a trace spells: "goal" (what is sought or held), "state" (that and what was found; it ends
            before the choice) or "full" (the choice too, so that the action can be copied from the trace).
    """

    name = "scripted"
    needs = frozenset({"expert_action"})

    def __init__(
        self, *, slips: float = 0.0, variety: int = 3, order: Literal["listed", "shuffled"] = "listed", names: Names = "state"
    ) -> None:
        if not 0 <= slips < 1:
            raise UsageError(f"slips={slips}: give a probability below 1")
        if variety < 1:
            raise UsageError(f"variety={variety}: at least one wording is needed")
        self._options = TeacherOptions(slips, variety, order == "shuffled", names)

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return one decision a query; where the expert knows no action, an error."""
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        try:
            entry = env_entry(query.env)
            if entry.teacher is None:
                raise UsageError(f"there is no scripted teacher for environment {query.env!r}: use --teacher expert")
            if self._options.names not in entry.trace_levels:
                raise UsageError(
                    f"the scripted teacher writes no traces of level {self._options.names!r} for {query.env!r}, only "
                    f"{', '.join(entry.trace_levels)}: use --teacher scripted?names={entry.trace_levels[-1]}"
                )
            teach = cast(Teach, load(entry.teacher))
            return teach(query, self._options, random.Random(query.seed))
        except CotbenchError as error:
            return error_decision(error)

    def describe(self) -> dict[str, str]:
        """Return the level of the traces."""
        return {"trace_level": self._options.names}

    def close(self) -> None:
        """Free nothing."""
