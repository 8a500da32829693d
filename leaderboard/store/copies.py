"""Entries that take the same actions. Invariant: what a new entry has in common with earlier ones is counted once, when it is
stored, and never depends on names, token counts or the manifest; whether that costs a rank is decided when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from cotbench.leaderboard.store.schema import copies, entries, results
from cotbench.leaderboard.submission.sequences import NEAR, SAME, Sequences
from cotbench.prompting.elicitation import Mode

_MOST: Final = 20
"""Earlier entries that are recorded of one mode of an entry, those with most in common first."""


class Overlap(BaseModel):
    """Tasks that an entry played action by action as an earlier entry.

    Attributes:
        mode: of the entry; `earlier_mode` of the earlier one.
        earlier: the id of the earlier entry.
        same: on so many tasks the actions are the same, of `tasks` that the entry played to their end.
        stands: whether the earlier entry was replayed and is whole. A part of a run, or one with errors, takes nothing from
            the whole run that is sent later.
    """

    model_config = ConfigDict(frozen=True)

    mode: Mode
    earlier: str
    earlier_mode: Mode
    same: int
    tasks: int
    stands: bool

    @property
    def duplicate(self) -> bool:
        """Return whether the entry has no rank beside the earlier one."""
        return self.stands and self.mode == self.earlier_mode and self.same >= SAME * self.tasks

    def __str__(self) -> str:
        what = "a duplicate of" if self.duplicate else "the same actions as"
        other = f" ({self.earlier_mode} mode)" if self.earlier_mode != self.mode else ""
        return f"{what} entry {self.earlier}{other} in {self.same:,} of {self.tasks:,} tasks"


@dataclass(frozen=True, slots=True)
class _Found:
    earlier: int
    mode: str
    same: int


def add_copies(connection: sql.Connection, number: int, sequences: Sequences) -> None:
    """Compare an entry with all earlier ones of its environment and record those it has much in common with.

    Args:
        connection: in a writing transaction.
        number: the entry's.
        sequences: of its episodes.
    """
    own = sql.select(entries.c.env).where(entries.c.number == number).scalar_subquery()
    earlier = (
        sql.select(entries.c.number, results.c.mode, results.c.sequences)
        .join_from(entries, results, results.c.number == entries.c.number)
        .where(entries.c.env == own, entries.c.number < number)
    )
    others = [(one, mode, frozenset(digests.split())) for one, mode, digests in connection.execute(earlier)]
    rows = []
    for mode, digests in sequences.items():
        found = [_Found(one, other, len(digests & theirs)) for one, other, theirs in others]
        near = sorted(
            (one for one in found if one.same >= NEAR * len(digests) and one.same),
            key=lambda one: (-one.same, one.earlier, one.mode != mode),
        )
        for one in near[:_MOST]:
            about = {"number": number, "mode": mode, "earlier": one.earlier, "earlier_mode": one.mode}
            rows.append({**about, "same": one.same, "tasks": len(digests)})
    if rows:
        connection.execute(copies.insert(), rows)


def overlaps_of(connection: sql.Connection, numbers: Iterable[int] | sql.Select[tuple[int]]) -> dict[int, Sequence[Overlap]]:
    """Return what entries have in common with earlier ones that were not rejected, most first.

    Args:
        connection: to read from.
        numbers: the entries, or what selects them.
    """
    chosen = (
        sql.select(copies, entries.c.id, entries.c.state, entries.c.unranked)
        .join_from(copies, entries, entries.c.number == copies.c.earlier)
        .where(copies.c.number.in_(numbers), entries.c.state != "rejected")
        .order_by(copies.c.number, copies.c.same.desc(), copies.c.earlier)
    )
    found: dict[int, list[Overlap]] = {}
    for row in connection.execute(chosen).mappings():
        overlap = Overlap(
            mode=row["mode"],
            earlier=row["id"],
            earlier_mode=row["earlier_mode"],
            same=row["same"],
            tasks=row["tasks"],
            stands=row["state"] == "replayed" and row["unranked"] == "[]",
        )
        found.setdefault(row["number"], []).append(overlap)
    return dict(found)
