"""The teacher whose reasoning is written out of an expert's. Invariant: what it says is a function of the dialogue, the
expert's next action and the seed; it names nothing that the dialogue has not shown.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from cotbench.agents.decisions import error_decision, tagged_decision
from cotbench.baselines.teachers import alfworld, bfcl, scienceworld
from cotbench.envs.bfcl import calls
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.query import Decision, Query, derive_seed

_MOST_CALLS = 15
"""Of a turn with more calls all are made at once: upstream allows 20 responses a turn."""

_THINK = {"scienceworld": scienceworld.think, "bfcl": bfcl.think}


class Scripted:
    """Takes the expert's action after varied, first-person reasoning that leads to it.

    In ALFWorld the expert is the one that sees what a player sees; in ScienceWorld it follows the gold path, in BFCL the ground
    truth, call by call: for a call may use what the one before it told.

    Args:
        slips: probability that a step is a deliberate mistake, without a trace: so that the next steps show how one recovers.
            ALFWorld alone: elsewhere the expert is silent once its path is left.
        variety: among how many wordings of a household thought one is drawn; there are up to three.
        order: in which order equally likely places are searched: "listed" (as the room's list names them) or "shuffled".
    """

    name = "scripted"
    needs = frozenset({"expert_action"})

    def __init__(self, *, slips: float = 0.0, variety: int = 3, order: str = "listed") -> None:
        if not 0 <= slips < 1:
            raise UsageError(f"slips={slips}: give a probability below 1")
        if order not in ("listed", "shuffled"):
            raise UsageError(f"order={order}: listed or shuffled")
        if variety < 1:
            raise UsageError(f"variety={variety}: at least one wording is needed")
        self._slips = slips
        self._variety = variety
        self._shuffled = order == "shuffled"

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """One decision a query; where the expert is silent, an error."""
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        rng = random.Random(query.seed)
        try:
            env = query.task.partition("/")[0]
            if env == "alfworld":
                return self._keep_house(query, rng)
            if query.expert_action is None:
                raise AgentError(f"the expert knows no action at step {query.step} of {query.task}")
            if env not in _THINK:
                raise AgentError(f"no reasoning is written for tasks such as {query.task}")
            action = _one_call(query.expert_action) if env == "bfcl" else query.expert_action
            return tagged_decision(query, action, _THINK[env](query.dialogue, action, rng))
        except AgentError as error:
            return error_decision(error)

    def _keep_house(self, query: Query, rng: random.Random) -> Decision:
        # The same order in all steps of an episode, so not from the step's seed.
        order = derive_seed(query.task) if self._shuffled else None
        mind = alfworld.expert_of(query.dialogue, order).mind()
        if rng.random() < self._slips:
            return Decision(alfworld.slip(query.dialogue, mind, rng), None if query.mode == "prompt" else "")
        return tagged_decision(query, mind.action, alfworld.think(mind, query.dialogue, rng, self._variety))

    def close(self) -> None:
        """Nothing to free."""


def _one_call(action: str) -> str:
    """The first call of a response."""
    texts = calls.read(action).texts()
    return calls.canonical(f"[{texts[0]}]") if 1 < len(texts) <= _MOST_CALLS else action
