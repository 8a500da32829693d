"""Tokens that allow to submit. Invariant: a token is returned once and stored only as a hash; comparing takes the same time
whether it is known or not.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from cotbench.errors import UnknownNameError, UsageError
from cotbench.leaderboard.store.database import Database
from cotbench.leaderboard.store.schema import storable_text
from cotbench.leaderboard.store.schema import tokens as table
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.submission.look_alikes import fold_name

_PREFIX = "cotbench-"
_BYTES = 32


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token: the name it was made for, and when."""

    name: str
    created: datetime


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens in a database."""

    database: Database

    def new(self, name: str) -> str:
        """Make a token of 256 random bits and store its hash.

        Args:
            name: whom it is for.

        Returns:
            The token; it cannot be had again.

        Raises:
            SubmissionError: the name may not be shown everywhere.
            UsageError: the name is taken, or looks like one that is.
        """
        Details.checked(name)
        token = _PREFIX + secrets.token_urlsafe(_BYTES)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with self.database.writing() as connection:
                for known in connection.execute(sql.select(table.c.name)).scalars():
                    if known != name and fold_name(known) == fold_name(name):
                        raise UsageError(
                            f"the name {name!r} looks like {known!r} ({known!a}), which has a token: choose another name"
                        )
                connection.execute(table.insert().values(name=name, sha256=_hashed(token), created=created))
        except IntegrityError as error:
            raise UsageError(f"there is a token for {name!r} already: revoke it first, or give another name") from error
        return token

    def rows(self) -> list[TokenRow]:
        """Return the tokens that were made and not revoked, by name."""
        with self.database.reading() as connection:
            rows = connection.execute(sql.select(table.c.name, table.c.created).order_by(table.c.name)).all()
        return [TokenRow(name, datetime.fromisoformat(created)) for name, created in rows]

    def revoke(self, name: str) -> None:
        """Delete a token.

        Raises:
            UnknownNameError: none was made for that name.
        """
        with self.database.writing() as connection:
            deleted = connection.execute(table.delete().where(table.c.name == storable_text(name)))
            if deleted.rowcount == 0:
                raise UnknownNameError("token", name, connection.execute(sql.select(table.c.name)).scalars())

    def accepts(self, token: str) -> bool:
        """Return whether a token was made and not revoked; compares it with all of them."""
        with self.database.reading() as connection:
            hashes = list(connection.execute(sql.select(table.c.sha256)).scalars())
        digest, found = _hashed(token), False
        for one in hashes:
            found |= hmac.compare_digest(digest, one)
        return found

    def exist(self) -> bool:
        """Return whether there is any token."""
        with self.database.reading() as connection:
            return connection.execute(sql.select(table.c.name).limit(1)).first() is not None


def _hashed(token: str) -> str:
    """Return a token's hash. A token is random and long, so a plain hash cannot be undone by trying."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
