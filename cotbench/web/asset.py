"""Style sheets and scripts. Invariant: a file's name holds the hash of its content, so it may be kept for ever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

FOREVER = "public, max-age=31536000, immutable"
"""The Cache-Control header of such a file."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages name.

    Attributes:
        filename: with the hash of the content.
    """

    filename: str
    media_type: str
    content: bytes


def make_asset(name: str, media_type: str, text: str) -> Asset:
    """Return a file.

    Args:
        name: without the hash.
        media_type: as a header gives it.
        text: its content.
    """
    content = text.encode()
    stem, _, ending = name.rpartition(".")
    return Asset(f"{stem}.{hashlib.sha256(content).hexdigest()[:16]}.{ending}", media_type, content)


def package_text(package: str, name: str) -> str:
    """Return a file of a package as text."""
    return resources.files(package).joinpath(name).read_text("utf-8")
