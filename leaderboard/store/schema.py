"""The leaderboard's tables. Invariant: a database says which version of the tables it has; an older one is brought up to date
in one transaction, a newer one is left alone.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sql

from cotbench.errors import StoreError

META = sql.MetaData()

version = sql.Table("leaderboard_version", META, sql.Column("version", sql.Integer, primary_key=True))

changes = sql.Table(
    "leaderboard_changes",
    META,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("count", sql.BigInteger, nullable=False),
)

entries = sql.Table(
    "entries",
    META,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("id", sql.String(12), nullable=False, unique=True),
    sql.Column("digest", sql.String(64), nullable=False, unique=True),
    sql.Column("name", sql.String(100), nullable=False),
    sql.Column("team", sql.String(100), nullable=False),
    sql.Column("link", sql.String(500), nullable=False),
    sql.Column("submitted", sql.String(32), nullable=False),
    sql.Column("settled", sql.String(32)),
    sql.Column("state", sql.String(8), nullable=False, index=True),
    sql.Column("difference", sql.Text),
    sql.Column("settled_with", sql.Text),
    sql.Column("unranked", sql.Text, nullable=False),
    sql.Column("env", sql.String(64), nullable=False),
    sql.Column("scheme", sql.String(64), nullable=False),
    sql.Column("split", sql.String(64), nullable=False),
    sql.Column("mode", sql.String(8), nullable=False),
    sql.Column("agent", sql.Text, nullable=False),
    sql.Column("tasks", sql.Integer, nullable=False),
    sql.Column("fingerprint", sql.String(16), nullable=False),
    sql.Column("summary", sql.Text, nullable=False),
    sql.Index("entries_of_a_split", "env", "scheme", "split"),
    sqlite_autoincrement=True,  # A number is never used twice.
)

results = sql.Table(
    "results",
    META,
    sql.Column("number", sql.Integer, sql.ForeignKey("entries.number", ondelete="CASCADE"), primary_key=True),
    sql.Column("mode", sql.String(8), primary_key=True),
    sql.Column("result", sql.Text, nullable=False),
)

bundles = sql.Table(
    "bundles",
    META,
    sql.Column("number", sql.Integer, sql.ForeignKey("entries.number", ondelete="CASCADE"), primary_key=True),
    sql.Column("data", sql.LargeBinary, nullable=False),
)

tokens = sql.Table(
    "tokens",
    META,
    sql.Column("name", sql.String(100), primary_key=True),
    sql.Column("sha256", sql.String(64), nullable=False, unique=True),
    sql.Column("created", sql.String(32), nullable=False),
)


def storable_text(text: str) -> str:
    """Return a text from outside as every database takes it: without NUL and lone surrogates, which nothing stored has."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _first(connection: sql.Connection) -> None:
    META.create_all(connection)
    connection.execute(changes.insert().values(id=1, count=0))


STEPS: tuple[Callable[[sql.Connection], None], ...] = (_first,)
"""STEPS[n] brings tables of version n to version n + 1."""


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
    if found > len(STEPS):
        raise StoreError(
            f"{where} was written by a newer cotbench (tables {found}, this one knows {len(STEPS)}): upgrade cotbench"
        )
    for step in STEPS[found:]:
        step(connection)
    if found < len(STEPS):
        connection.execute(version.delete())
        connection.execute(version.insert().values(version=len(STEPS)))
