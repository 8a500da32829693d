"""Tokens that allow to submit. Invariant: a token is shown once and kept only as a hash; comparing takes the same time whether
it is known or not.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

_PREFIX = "cotbench-"
_BYTES = 32


def new_token() -> str:
    """A token that nobody can guess: 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def hashed(token: str) -> str:
    """What is kept of a token. It is random and long, so a plain hash cannot be undone by trying."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def known(token: str, hashes: Iterable[str]) -> bool:
    """Whether a token is among those that were given out; looks at all of them."""
    given = hashed(token)
    found = False
    for one in hashes:
        found |= hmac.compare_digest(given, one)
    return found
