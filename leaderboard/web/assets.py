"""Style sheets and scripts. Invariant: a file's name holds the hash of its content, so it may be kept for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from cotbench.report.colours import palette_css


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages name.

    Attributes:
        filename: with the hash of the content.
    """

    filename: str
    media_type: str
    content: bytes


@cache
def assets() -> Mapping[str, Asset]:
    """Return all of them, by the names that pages use: `leaderboard.css`, `board.js`, `browser.js`."""
    report, web = "cotbench.report", "cotbench.leaderboard.web"
    style = palette_css() + _text(report, "page.css") + _text(report, "browser.css") + _text(web, "static/leaderboard.css")
    texts = {
        "leaderboard.css": ("text/css; charset=utf-8", style),
        "board.js": ("text/javascript; charset=utf-8", _text(web, "static/board.js")),
        "browser.js": ("text/javascript; charset=utf-8", _text(report, "browser.js")),
    }
    return {name: _asset(name, kind, text.encode()) for name, (kind, text) in texts.items()}


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text("utf-8")


def _asset(name: str, media_type: str, content: bytes) -> Asset:
    stem, _, ending = name.rpartition(".")
    return Asset(f"{stem}.{hashlib.sha256(content).hexdigest()[:16]}.{ending}", media_type, content)
