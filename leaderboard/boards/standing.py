"""A row of a board. Invariant: it holds all that the row shows; drawing computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cotbench.leaderboard.store.entry import State
from cotbench.leaderboard.submission.details import Details
from cotbench.stats.estimates import Estimate


@dataclass(frozen=True, slots=True)
class Standing:
    """A row of a board. Intervals are over tasks.

    Attributes:
        rank: of a verified entry that is whole; None for the others.
        entries: ids; one of each environment on an overall board.
        unranked: why it has no rank though it may be verified.
        fingerprint: of the elicitation; empty where the environments have different ones.
        submitted: UTC; of the newest entry on an overall board.
        behind: success minus that of the board's first, paired on the same tasks; None for the first and for what has no rank.
        gap: CoT minus prompt; consistency: prompt action = CoT action; of entries with both modes.
        tokens: generated an episode; `computed` generated and prefilled. On an overall board means over its environments.
    """

    rank: int | None
    details: Details
    entries: tuple[str, ...]
    agent: str
    state: State
    unranked: tuple[str, ...]
    tasks: int
    fingerprint: str
    submitted: datetime
    success: Estimate
    score: Estimate
    behind: Estimate | None
    gap: Estimate | None
    consistency: Estimate | None
    tokens: Estimate
    computed: Estimate
