"""The leaderboard's tables. Invariant: these are the tables of the newest version; `migrations` brings older ones to it."""

from __future__ import annotations

import sqlalchemy as sql

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
    sql.Column("state", sql.String(16), nullable=False, index=True),
    sql.Column("difference", sql.Text),
    sql.Column("unchecked", sql.Text),
    sql.Column("settled_with", sql.Text),
    sql.Column("unranked", sql.Text, nullable=False),
    sql.Column("notes", sql.Text, nullable=False, server_default="[]"),
    sql.Column("expert", sql.Text),
    sql.Column("reproduction", sql.Text),
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
    sql.Column("sequences", sql.Text, nullable=False, server_default=""),
)

copies = sql.Table(
    "copies",
    META,
    sql.Column("number", sql.Integer, sql.ForeignKey("entries.number", ondelete="CASCADE"), primary_key=True),
    sql.Column("mode", sql.String(8), primary_key=True),
    sql.Column("earlier", sql.Integer, sql.ForeignKey("entries.number", ondelete="CASCADE"), primary_key=True),
    sql.Column("earlier_mode", sql.String(8), primary_key=True),
    sql.Column("same", sql.Integer, nullable=False),
    sql.Column("tasks", sql.Integer, nullable=False),
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
