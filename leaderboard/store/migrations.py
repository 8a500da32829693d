"""Older tables brought up to date. Invariant: a database says which version of the tables it has; an older one becomes the
newest in one transaction, a newer one is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import sqlalchemy as sql

from cotbench.errors import StoreError, SubmissionError
from cotbench.leaderboard.store.copies import add_copies
from cotbench.leaderboard.store.schema import META, bundles, changes, copies, entries, results, version
from cotbench.leaderboard.submission.bundle import unpack
from cotbench.leaderboard.submission.sequences import mode_notes, sequences_of


def _replayed(connection: sql.Connection) -> None:
    """Call replayed what was called verified; add what is known of copies, experts and reruns, from the bundles."""
    if connection.dialect.name == "postgresql":
        connection.execute(sql.text("ALTER TABLE entries ALTER COLUMN state TYPE VARCHAR(16)"))
    for table, columns in (
        ("entries", ("unchecked TEXT", "notes TEXT NOT NULL DEFAULT '[]'", "expert TEXT", "reproduction TEXT")),
        ("results", ("sequences TEXT NOT NULL DEFAULT ''",)),
    ):
        for column in columns:
            connection.execute(sql.text(f"ALTER TABLE {table} ADD COLUMN {column}"))
    copies.create(connection)
    connection.execute(sql.text("UPDATE entries SET state = 'replayed' WHERE state = 'verified'"))
    for number in list(connection.execute(sql.select(entries.c.number).order_by(entries.c.number)).scalars()):
        data = connection.execute(sql.select(bundles.c.data).where(bundles.c.number == number)).scalar_one()
        try:
            episodes = unpack(bytes(data)).episodes
        except SubmissionError:
            continue  # Rules have changed since: it stays as it is, and is compared with no other.
        sequences = sequences_of(episodes)
        notes = json.dumps(mode_notes(sequences, episodes))
        connection.execute(entries.update().where(entries.c.number == number).values(notes=notes))
        add_copies(connection, number, sequences)
        for mode, digests in sequences.items():
            row = (results.c.number == number, results.c.mode == mode)
            connection.execute(results.update().where(*row).values(sequences=" ".join(sorted(digests))))


STEPS: Final[tuple[Callable[[sql.Connection], None], ...]] = (_replayed,)
"""STEPS[n] brings tables of version n + 1 to version n + 2."""
NEWEST: Final = len(STEPS) + 1


def bring_up_to_date(connection: sql.Connection, where: str) -> None:
    """Create the tables, or migrate them to this version; inside the transaction of the connection.

    Args:
        connection: in a transaction.
        where: names the database in an error.

    Raises:
        StoreError: they are of a newer version.
    """
    version.create(connection, checkfirst=True)
    found = connection.execute(sql.select(version.c.version)).scalar() or 0
    if found > NEWEST:
        raise StoreError(f"{where} was written by a newer cotbench (tables {found}, this one knows {NEWEST}): upgrade cotbench")
    if not found:
        META.create_all(connection)
        connection.execute(changes.insert().values(id=1, count=0))
    for step in STEPS[found - 1 :] if found else ():
        step(connection)
    if found < NEWEST:
        connection.execute(version.delete())
        connection.execute(version.insert().values(version=NEWEST))
