"""The store: whole or not at all, once, in SQLite and PostgreSQL alike; and what a kill leaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install -e '.[leaderboard]'")

import sqlalchemy as sql

from cotbench.errors import DuplicateEntryError, StoreError, SubmissionError, UnknownNameError, UsageError
from cotbench.leaderboard.store import schema
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.verification.difference import Difference
from cotbench.runs.summary import summarize
from tests.leaderboard.stored import bundle

ROOT = Path(__file__).resolve().parents[3]
TASKS = [f"alfworld/gen/{kind}/{number}" for kind in ("clean", "heat") for number in range(3)]


def _small(name: str, seed: int = 0, **more: Any) -> Any:
    from cotbench.envs.registry import env_entry

    return bundle(name, seed=seed, tasks=env_entry("alfworld-gen").source().tasks("paper", "id")[:4], **more)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pgserver = pytest.importorskip("pgserver", reason="no PostgreSQL in this environment: pip install pgserver")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install -e '.[postgres]'")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "board.sqlite")
    url: str = request.getfixturevalue("postgres")
    engine = sql.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sql.text("DROP SCHEMA public CASCADE"))
        connection.execute(sql.text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with Store.open(where) as opened:
        yield opened


def test_what_was_added_is_there_whole(store: Store) -> None:
    one = _small("First", team="Team")
    entry, new = store.add(one, ("4 of 120 tasks",), b"\x00zip")
    assert new
    assert entry == store.entry(entry.id)
    assert (entry.id, entry.number, entry.state) == (one.digest[:12], 1, "pending")
    assert (entry.details, entry.unranked, entry.difference) == (one.details, ("4 of 120 tasks",), None)
    assert entry.summary == summarize(one.episodes, one.manifest)
    assert store.bundle(entry.id) == b"\x00zip"
    found = store.candidates("alfworld-gen", "paper", "id", "cot")
    assert [each.id for each in found] == [entry.id]
    tasks = sorted(one.manifest.task_list)
    won = {each.task: each.success for each in one.episodes if each.mode == "cot"}
    assert found[0].result.outcomes == "".join("1" if won[task] else "0" for task in tasks)
    assert found[0].result.success == entry.summary.modes["cot"].success
    assert found[0].result.computed.mean == 112


def test_the_same_submission_is_there_once(store: Store) -> None:
    first, _ = store.add(_small("First"), (), b"a")
    again, new = store.add(_small("First"), (), b"a")
    assert (again, new) == (first, False)
    assert store.count() == 1


def test_the_same_episodes_under_another_name_are_refused(store: Store) -> None:
    entry, _ = store.add(_small("First"), (), b"a")
    with pytest.raises(DuplicateEntryError, match=f"submitted already, as entry {entry.id} by First"):
        store.add(_small("Second"), (), b"a")
    assert store.count() == 1


def test_an_id_that_is_taken_is_told(store: Store) -> None:
    from dataclasses import replace

    one = _small("First")
    store.add(one, (), b"a")
    with pytest.raises(SubmissionError, match="belongs to another entry"):
        store.add(replace(one, digest=one.digest[:12] + "f" * 52), (), b"b")


def test_settling_says_what_and_with_what(store: Store) -> None:
    entry, _ = store.add(_small("First"), (), b"a")
    before = store.changes()
    assert store.settle(entry.id, None, with_versions={"cotbench": "1"}).state == "replayed"
    assert store.changes() > before
    difference = Difference.at("score", 1.0, 0.0, episode="alfworld/gen/heat/0#cot", step=2)
    settled = store.settle(entry.id, difference, with_versions={})
    assert (settled.state, settled.difference) == ("rejected", difference)
    assert settled.settled is not None
    assert store.entries("rejected") == [settled]
    assert store.entries("pending") == []


def test_the_newest_come_first_and_pages_do_not_overlap(store: Store) -> None:
    ids = [store.add(_small(f"Entry {seed}", seed), (), b"a")[0].id for seed in range(5)]
    assert [entry.id for entry in store.entries()] == ids[::-1]
    assert [entry.id for entry in store.entries(limit=2, offset=1)] == ids[::-1][1:3]
    assert [entry.number for entry in store.entries()] == [5, 4, 3, 2, 1]


def test_removing_takes_all_of_it(store: Store) -> None:
    entry, _ = store.add(_small("First"), (), b"a")
    store.remove(entry.id)
    assert store.count() == 0
    assert store.candidates("alfworld-gen", "paper", "id", "cot") == []
    for asked in (store.entry, store.bundle, store.remove):
        with pytest.raises(UnknownNameError, match="unknown entry"):
            asked(entry.id)
    # It may come again, and gets a number of its own.
    assert store.add(_small("First"), (), b"a")[0].number == 2


@pytest.mark.parametrize("id", ["' OR 1=1 --", "x" * 10_000, "\0", "%", "é", "0; DROP TABLE entries"])
def test_no_id_is_anything_but_an_id(store: Store, id: str) -> None:
    entry, _ = store.add(_small("First"), (), b"a")
    with pytest.raises(UnknownNameError):
        store.entry(id)
    with pytest.raises(UnknownNameError):
        store.remove(id)
    with pytest.raises(UnknownNameError):
        store.revoke(id)
    assert store.candidates(id, id, id, "cot") == []
    assert not store.knows(id)
    assert store.entry(entry.id) == entry


def test_boards_are_those_with_an_entry(store: Store) -> None:
    assert store.boards() == []
    store.add(_small("First", mode="cot"), (), b"a")
    assert store.boards() == [Board("alfworld-gen", "paper", "id", "cot")]
    store.add(_small("Second", 1), (), b"a")
    assert store.boards() == [Board("alfworld-gen", "paper", "id", mode) for mode in ("cot", "prompt")]


def test_tokens_are_shown_once_and_taken_back(store: Store, where: str) -> None:
    assert not store.has_tokens()
    token = store.new_token("Ada")
    assert store.has_tokens()
    assert store.knows(token)
    assert not store.knows(token + "x")
    assert not store.knows("")
    assert [row.name for row in store.tokens()] == ["Ada"]
    with pytest.raises(UsageError, match="a token for 'Ada' already"):
        store.new_token("Ada")
    with store.database.reading() as connection:
        kept = connection.execute(sql.select(schema.tokens)).all()
    assert token not in repr(kept)
    with pytest.raises(UnknownNameError, match="did you mean 'Ada'"):
        store.revoke("Adda")
    store.revoke("Ada")
    assert not store.knows(token)


def test_many_writers_at_once_lose_nothing(store: Store, where: str) -> None:
    """Eight threads with stores of their own, each adding the same entry and five of its own."""
    made = {
        (thread, seed): _small(f"Entry {thread} {seed}", 100 * thread + seed + 1) for thread in range(8) for seed in range(5)
    }
    shared = _small("Shared", 0)
    news: list[bool] = []
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            with Store.open(where) as own:
                news.append(own.add(shared, (), b"shared")[1])
                for seed in range(5):
                    own.add(made[thread, seed], (), b"own")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures
    assert sum(news) == 1
    assert store.count() == 41
    assert store.changes() == 41
    assert len({entry.number for entry in store.entries()}) == 41


def test_opening_a_new_leaderboard_from_many_sides_at_once(where: str) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            Store.open(where).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures


def test_a_newer_leaderboard_is_left_alone(where: str) -> None:
    with Store.open(where) as opened, opened.database.writing() as connection:
        connection.execute(schema.version.update().values(version=99))
    with pytest.raises(StoreError, match=r"newer cotbench \(tables 99, this one knows 2\)"):
        Store.open(where)


_KILLED = """
import sys
sys.path.append(sys.argv[2])  # At the end: the checkout must not hide what is installed.
from cotbench.leaderboard.store.store import Store
from tests.leaderboard.store.test_store import _small
with Store.open(sys.argv[1]) as store:
    for seed in range(10_000):
        entry, _ = store.add(_small(f"Entry {seed}", seed), (), b"z" * 200_000)
        print(entry.id, flush=True)
"""


def test_a_kill_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "board.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _KILLED, str(path), str(ROOT)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(12)]
    assert all(said)
    os.killpg(child.pid, signal.SIGKILL)
    said += child.stdout.read().split()
    child.wait()
    with Store.open(path) as store:
        ids = {entry.id for entry in store.entries()}
        assert set(filter(None, said)) <= ids
        for id in ids:
            assert len(store.bundle(id)) == 200_000
        assert store.changes() == len(ids)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("mysql://a:secret@host/x", "SQLite or PostgreSQL, not in mysql"),
        ("postgresql://", "database"),
        ("postgresql://user:secret@127.0.0.1:1/none?connect_timeout=2", "user:\\*\\*\\*@127.0.0.1:1/none"),
        ("://", "not the URL of a database"),
    ],
)
def test_what_is_no_leaderboard_is_told_in_a_line(where: str, message: str) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install -e '.[postgres]'")
    with pytest.raises(StoreError, match=message) as raised:
        Store.open(where)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_leaderboard(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no database, and long enough to be read as one. " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(tmp_path / "text")
    with pytest.raises(StoreError, match="is a folder"):
        Store.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        Store.open(tmp_path / "file" / "inside" / "board.sqlite")


def test_a_database_that_stays_locked_says_what_that_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says "locked" of a file system without locks too (it takes ENOLCK for a passing one)."""
    from cotbench.leaderboard.store import database

    monkeypatch.setattr(database, "_WAIT", 0)
    path = tmp_path / "board.sqlite"
    Store.open(str(path)).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    said = "database is locked; another process writes to it, or its file system has no locks: put --db on a local disk, or use"
    with pytest.raises(StoreError, match=said):
        Store.open(str(path))
    other.close()
