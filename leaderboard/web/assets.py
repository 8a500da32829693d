"""Style sheets and scripts. Invariant: a file's name holds the hash of its content, so it may be kept for ever."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from cotbench.report.colours import palette_css
from cotbench.web.asset import Asset, make_asset
from cotbench.web.asset import package_text as _text


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
    return {name: make_asset(name, kind, text) for name, (kind, text) in texts.items()}
