"""An entry, as everybody sees it. Invariant: its numbers were computed here from its episodes, never taken from a submitter;
`verified` means that replaying its actions gave every observation, score and verdict that it claims.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.verification.difference import Difference
from cotbench.runs.summary import Summary

State = Literal["pending", "verified", "rejected"]
STATES: tuple[State, ...] = ("pending", "verified", "rejected")


class Entry(BaseModel):
    """A submitted run.

    Attributes:
        id: twelve hexadecimal digits, the beginning of the digest of what was played.
        number: its place in the order of submission, from 1.
        submitted: when, UTC; `settled` when it was verified or rejected.
        difference: the first one, of a rejected entry.
        unranked: why it has no rank though it may be verified: "4 of 120 tasks", ...; empty for a whole run.
        mode: `prompt`, `cot` or `both`.
        summary: the numbers, computed from the episodes.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    number: int
    details: Details
    submitted: datetime
    settled: datetime | None = None
    state: State = "pending"
    difference: Difference | None = None
    unranked: tuple[str, ...] = ()
    mode: str
    summary: Summary
