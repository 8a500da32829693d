"""A board as CSV. Invariant: every number whole, with its interval and n; no text in it is a formula to a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.leaderboard.boards.standing import Standing
from cotbench.report.cells import csv_text
from cotbench.report.page import Cell, Table

_COLUMNS = (
    "rank",
    "name",
    "team",
    "link",
    "agent",
    "entries",
    "state",
    "unranked",
    "tasks",
    "elicitation",
    "submitted",
    "success",
    "behind first",
    "score",
    "CoT - prompt",
    "consistency",
    "tokens",
    "tokens computed",
)


def board_csv(rows: Sequence[Standing]) -> str:
    """The rows as CSV (RFC 4180); the paper's rows, which are not verified, are not in it."""
    return csv_text(Table("board", "", "", _COLUMNS, tuple(map(_row, rows))))


def _row(row: Standing) -> tuple[Cell, ...]:
    return (
        row.rank,
        row.details.name,
        row.details.team,
        row.details.link,
        row.agent,
        " ".join(row.entries),
        row.state,
        "; ".join(row.unranked),
        row.tasks,
        row.fingerprint,
        row.submitted.isoformat(),
        row.success,
        row.behind,
        row.score,
        row.gap,
        row.consistency,
        row.tokens,
        row.computed,
    )
