"""Leaderboards of older versions: read by this one, with everything that was in them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install -e '.[leaderboard]'")

import sqlalchemy as sql

from cotbench.leaderboard.boards.view import board_view
from cotbench.leaderboard.store import migrations, schema
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import results_of
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.submission.bundle import repack
from cotbench.runs.summary import summarize
from tests.leaderboard.store.test_store import postgres, where  # noqa: F401  (fixtures)
from tests.leaderboard.stored import bundle

OLD = sql.MetaData()
TEXT = {"id": 12, "digest": 64, "name": 100, "team": 100, "link": 500, "submitted": 32}
FIRST = (
    sql.Table("leaderboard_version", OLD, sql.Column("version", sql.Integer, primary_key=True)),
    sql.Table(
        "leaderboard_changes",
        OLD,
        sql.Column("id", sql.Integer, primary_key=True),
        sql.Column("count", sql.BigInteger, nullable=False),
    ),
    sql.Table(
        "entries",
        OLD,
        sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
        *(
            sql.Column(name, sql.String(length), nullable=False, unique=name in ("id", "digest"))
            for name, length in TEXT.items()
        ),
        sql.Column("settled", sql.String(32)),
        sql.Column("state", sql.String(8), nullable=False, index=True),
        sql.Column("difference", sql.Text),
        sql.Column("settled_with", sql.Text),
        sql.Column("unranked", sql.Text, nullable=False),
        *(sql.Column(name, sql.String(64), nullable=False) for name in ("env", "scheme", "split")),
        sql.Column("mode", sql.String(8), nullable=False),
        sql.Column("agent", sql.Text, nullable=False),
        sql.Column("tasks", sql.Integer, nullable=False),
        sql.Column("fingerprint", sql.String(16), nullable=False),
        sql.Column("summary", sql.Text, nullable=False),
        sql.Index("entries_of_a_split", "env", "scheme", "split"),
        sqlite_autoincrement=True,
    ),
    sql.Table(
        "results",
        OLD,
        sql.Column("number", sql.Integer, sql.ForeignKey("entries.number", ondelete="CASCADE"), primary_key=True),
        sql.Column("mode", sql.String(8), primary_key=True),
        sql.Column("result", sql.Text, nullable=False),
    ),
    sql.Table(
        "bundles",
        OLD,
        sql.Column("number", sql.Integer, sql.ForeignKey("entries.number", ondelete="CASCADE"), primary_key=True),
        sql.Column("data", sql.LargeBinary, nullable=False),
    ),
    sql.Table(
        "tokens",
        OLD,
        sql.Column("name", sql.String(100), primary_key=True),
        sql.Column("sha256", sql.String(64), nullable=False, unique=True),
        sql.Column("created", sql.String(32), nullable=False),
    ),
)
"""The tables as the first version made them."""


def _row(one: Any, state: str) -> dict[str, Any]:
    return {
        "id": one.digest[:12],
        "digest": one.digest,
        **one.details.model_dump(),
        "submitted": "2026-01-01T00:00:00+00:00",
        "settled": "2026-01-02T00:00:00+00:00" if state != "pending" else None,
        "state": state,
        "unranked": "[]",
        **{name: getattr(one.manifest.config, name) for name in ("env", "scheme", "split", "mode", "agent")},
        "tasks": len(one.manifest.task_list),
        "fingerprint": "",
        "summary": summarize(one.episodes, one.manifest).model_dump_json(),
    }


def test_a_leaderboard_of_the_first_version_becomes_one_of_this(where: str) -> None:  # noqa: F811
    first, second, copy = bundle("First", seed=1), bundle("Second", seed=2), bundle("Copy", seed=3, team="Other")
    copy = type(copy)(copy.details, copy.manifest, first.episodes, copy.digest)
    url = where.replace("postgresql://", "postgresql+psycopg://") if "://" in where else f"sqlite:///{where}"
    engine = sql.create_engine(url)
    _, changes, entries, results, bundles, _ = FIRST
    with engine.begin() as connection:
        OLD.create_all(connection)
        connection.execute(FIRST[0].insert().values(version=1))
        connection.execute(changes.insert().values(id=1, count=7))
        for one, state in ((first, "verified"), (second, "pending"), (copy, "verified")):
            number = connection.execute(entries.insert().values(_row(one, state))).inserted_primary_key[0]  # type: ignore[index]
            reached = results_of(one.manifest.task_list, one.episodes, summarize(one.episodes, one.manifest))
            for mode, result in reached.items():
                connection.execute(results.insert().values(number=number, mode=mode, result=result.model_dump_json()))
            connection.execute(bundles.insert().values(number=number, data=repack(one) if one is not second else b"no bundle"))
    engine.dispose()
    for _ in range(2):
        with Store.open(where) as store:
            assert [entry.state for entry in store.entries()] == ["replayed", "pending", "replayed"]
            assert store.changes() == 7
            ranks = {
                row.details.name: row.rank for row in board_view(store, Board("alfworld-gen", "paper", "id", "cot"), None).rows
            }
            assert ranks == {"First": 1, "Second": None, "Copy": None}
            entry = store.entry(copy.digest[:12])
            assert entry.unranked == (f"a duplicate of entry {first.digest[:12]} in 120 of 120 tasks",)
            with store.database.reading() as connection:
                assert connection.execute(sql.select(schema.version.c.version)).scalar_one() == migrations.NEWEST
    with Store.open(where) as store:
        assert store.give_up(second.digest[:12], "it took too long").state == "unchecked"
        other = bundle("Third", seed=4)
        assert store.add(other, (), repack(other))[1]


def test_a_migrated_leaderboard_has_the_tables_of_a_new_one(tmp_path: Any) -> None:
    old, new = (f"sqlite:///{tmp_path / name}.sqlite" for name in ("old", "new"))
    engine = sql.create_engine(old)
    with engine.begin() as connection:
        OLD.create_all(connection)
        connection.execute(FIRST[0].insert().values(version=1))
    engine.dispose()
    columns = []
    for url in (old, new):
        Store.open(url).close()
        engine = sql.create_engine(url)
        seen = sql.inspect(engine)
        columns.append({table: {column["name"] for column in seen.get_columns(table)} for table in seen.get_table_names()})
        engine.dispose()
    assert columns[0] == columns[1]
