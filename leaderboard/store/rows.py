"""Rows of the database as entries and candidates. Invariant: why an entry has no rank, and how far it was checked, is worked
out here from what is stored, each time it is read: an earlier entry may have been rejected or removed since.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sql

from cotbench.errors import SubmissionError
from cotbench.leaderboard.store.copies import Overlap, overlaps_of
from cotbench.leaderboard.store.entry import Candidate, Entry, Result, level_of, rank_reasons
from cotbench.leaderboard.store.schema import entries
from cotbench.leaderboard.submission.baselines import is_baseline
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.submission.look_alikes import fold_name
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.expert_share import ExpertShare
from cotbench.leaderboard.verification.reproduction import Reproduction
from cotbench.prompting.elicitation import Mode
from cotbench.runs.summary import Summary


def require_own_spelling(connection: sql.Connection, team: str) -> None:
    """Raise an error for a team that looks like another one that has entries.

    Raises:
        SubmissionError: names both.
    """
    folded = fold_name(team)
    for known in connection.execute(sql.select(entries.c.team).distinct()).scalars():
        if known != team and fold_name(known) == folded:
            raise SubmissionError(
                f"the entry's team {team!r} ({team!a}) looks like {known!r} ({known!a}), which has entries here: "
                "spell it the same way, or choose a name that can be told from it"
            )


def entries_of(connection: sql.Connection, rows: Sequence[sql.RowMapping]) -> list[Entry]:
    """Return the entries of rows of their table, in the order of the rows."""
    overlaps = overlaps_of(connection, [row["number"] for row in rows])
    return [_entry(row, overlaps.get(row["number"], ())) for row in rows]


def _entry(row: sql.RowMapping, overlaps: Sequence[Overlap]) -> Entry:
    expert, reproduction = _expert(row), _reproduction(row)
    summary = Summary.model_validate_json(row["summary"])
    scored = sum(one.success.n for one in summary.modes.values())
    reasons = rank_reasons(row["agent"], overlaps, expert)
    shares = [str(one) for one in expert if 2 * one.same >= one.steps]
    notes = (*json.loads(row["notes"]), *shares, *map(str, overlaps))
    return Entry(
        id=row["id"],
        number=row["number"],
        details=_details(row),
        submitted=datetime.fromisoformat(row["submitted"]),
        settled=datetime.fromisoformat(row["settled"]) if row["settled"] else None,
        state=row["state"],
        level=level_of(row["state"], reproduction, scored),
        baseline=is_baseline(row["agent"]),
        difference=Difference.model_validate_json(row["difference"]) if row["difference"] else None,
        unchecked=row["unchecked"] or "",
        unranked=(*json.loads(row["unranked"]), *reasons),
        notes=tuple(one for one in notes if one not in reasons),
        mode=row["mode"],
        overlaps=tuple(overlaps),
        expert=expert,
        reproduction=reproduction,
        summary=summary,
    )


def _expert(row: sql.RowMapping) -> tuple[ExpertShare, ...]:
    return tuple(map(ExpertShare.model_validate, json.loads(row["expert"] or "[]")))


def _reproduction(row: sql.RowMapping) -> Reproduction | None:
    return Reproduction.model_validate_json(row["reproduction"]) if row["reproduction"] else None


def _details(row: sql.RowMapping) -> Details:
    # They were checked when they were written; rules may have changed since.
    return Details.model_construct(name=row["name"], team=row["team"], link=row["link"])


def candidate_of(row: sql.RowMapping, mode: Mode, overlaps: Sequence[Overlap]) -> Candidate:
    """Return one mode of an entry, from a row of the table of entries joined with that of results.

    Args:
        row: has the columns that a board needs.
        mode: of the result.
        overlaps: what the entry has in common with earlier ones.
    """
    result = Result.model_validate_json(row["result"])
    return Candidate(
        id=row["id"],
        number=row["number"],
        details=_details(row),
        submitted=datetime.fromisoformat(row["submitted"]),
        state=row["state"],
        level=level_of(row["state"], _reproduction(row), result.success.n),
        unranked=(*json.loads(row["unranked"]), *rank_reasons(row["agent"], overlaps, _expert(row), mode)),
        agent=row["agent"],
        tasks=row["tasks"],
        fingerprint=row["fingerprint"],
        result=result,
    )
