"""Options of the scripted teacher. Invariant: one set of options for all environments; an environment reads those that mean
something in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, Protocol

from cotbench.errors import AgentError
from cotbench.prompting.query import Decision, Query

Names = Literal["goal", "state", "full"]
"""How much of a choice a trace spells: what is sought or held; that and what was found; that and the choice itself."""


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """Options of agent `scripted`.

    Attributes:
        slips: probability that a step is a deliberate mistake.
        variety: among how many wordings of a thought one is drawn.
        shuffled: whether equally likely places are searched in a shuffled order.
        names: how much of the choice a trace spells.
    """

    slips: float = 0.0
    variety: int = 3
    shuffled: bool = False
    names: Names = "state"


class Teach(Protocol):
    """Interface of the function that `EnvEntry.teacher` names: the scripted teacher of an environment."""

    def __call__(self, query: Query, options: TeacherOptions, rng: random.Random) -> Decision:
        """Return a decision at a state.

        Args:
            query: the state, with the expert's action where the expert knows one.
            options: of agent `scripted`.
            rng: seeded for this query; the only source of variety.

        Raises:
            AgentError: the expert knows no action.
        """


def expert_action(query: Query) -> str:
    """Return the expert's action at a state.

    Raises:
        AgentError: the expert knows none.
    """
    if query.expert_action is None:
        raise AgentError(f"the expert has no action at step {query.step} of {query.task}")
    return query.expert_action
