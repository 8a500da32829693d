"""A connection to the leaderboard's database. Invariant: writing is one transaction, whole and on the disk when it returns, or
not at all; what a database says of its own failures comes out as `StoreError` in one line, without a password.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from cotbench.errors import StoreError
from cotbench.leaderboard.store import migrations

_WAIT = 60
"""Seconds to wait for another writer."""
_PAUSE = 0.02
"""Seconds between two attempts at what SQLite does not wait for."""
_WRITING = "cotbench_writing"
_LOCK_FAILURES = ("database is locked", "locking protocol", "disk I/O error")
_NO_LOCK = "; another process writes to it, or its file system has no locks: put --db on a local disk, or use PostgreSQL"


def default_path() -> Path:
    """Return where the leaderboard lies unless it is given: a file in the user's data folder.

    Raises:
        StoreError: the user has no home folder.
    """
    try:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    except RuntimeError as error:
        raise StoreError(f"there is no folder for the leaderboard ({error}): give --db FILE") from error
    return data / "cotbench" / "leaderboard.sqlite"


class Database:
    """A database with the leaderboard's tables; safe to use from many threads and processes.

    Args:
        where: a file (SQLite), or a URL: `sqlite:///FILE`, `postgresql://USER@HOST/NAME`.

    Raises:
        StoreError: it cannot be opened, is no database, or was written by a newer cotbench.
    """

    def __init__(self, where: str | Path) -> None:
        url = _url(where)
        self.name = url.render_as_string(hide_password=True)
        self._lite = url.get_backend_name() == "sqlite"
        with self._translated():
            self._engine = sql.create_engine(url, pool_size=8, max_overflow=8, pool_pre_ping=True)
        if self._lite:
            event.listen(self._engine, "connect", _prepare)
            event.listen(self._engine, "begin", _begin)
        try:
            with self.writing() as connection:
                if not self._lite:
                    # Two that open a new database at once would both make its tables.
                    connection.execute(sql.text("SELECT pg_advisory_xact_lock(0x636f7462)"))
                migrations.bring_up_to_date(connection, self.name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """Give a connection that sees one state of the database."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """Give a transaction; what is done in it is stored when this returns, or nothing of it where it raises."""
        with self._translated(), self._engine.connect() as bare:
            connection = bare.execution_options(**{_WRITING: True})
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (NoSuchModuleError, ArgumentError, ImportError) as error:
            raise StoreError(f"cannot use {self.name} as a leaderboard ({_first_line(error)})") from error
        except DatabaseError as error:
            reason = _first_line(error.orig or error)
            hint = _NO_LOCK if self._lite and reason in _LOCK_FAILURES else ""
            raise StoreError(f"the leaderboard's database {self.name} says: {reason}{hint}") from error
        except SQLAlchemyError as error:
            raise StoreError(f"the leaderboard's database {self.name}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _url(where: str | Path) -> sql.URL:
    text = str(where)
    if "://" not in text:
        path = Path(text).expanduser()
        if path.is_dir():
            raise StoreError(f"{path} is a folder: give --db a file, or a URL such as postgresql://USER@HOST/NAME")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {path.parent} ({error.strerror}): choose another --db") from error
        return sql.URL.create("sqlite", database=str(path))
    try:
        url = sql.make_url(text)
    except ArgumentError as error:
        raise StoreError("--db is not the URL of a database: it should look like postgresql://USER@HOST/NAME") from error
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise StoreError(f"a leaderboard is kept in SQLite or PostgreSQL, not in {url.drivername}")
    return url


def _prepare(connection: Any, record: Any) -> None:
    """Set up a new connection to SQLite: transactions are begun here, readers and a writer do not wait for each other."""
    connection.isolation_level = None
    for setting in (f"busy_timeout = {_WAIT * 1000}", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")
    until = time.monotonic() + _WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # The first ones that open a new file get in each other's way, and SQLite does not wait for this by itself.
            if "database is locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


def _begin(connection: sql.Connection) -> None:
    # A writer takes its turn at once: one that has read before could not.
    writing = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
