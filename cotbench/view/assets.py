"""The style sheet and the scripts of the pages: the report's, and our own. Invariant: that of `web.asset`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from cotbench.report.colours import palette_css
from cotbench.web.asset import Asset, make_asset, package_text


@cache
def assets() -> Mapping[str, Asset]:
    """Return all of them, by the names that pages use: `view.css`, `live.js`, `browser.js`."""
    report, view = "cotbench.report", "cotbench.view"
    style = palette_css() + "".join(package_text(report, name) for name in ("page.css", "browser.css"))
    texts = {
        "view.css": ("text/css; charset=utf-8", style + package_text(view, "static/view.css")),
        "live.js": ("text/javascript; charset=utf-8", package_text(view, "static/live.js")),
        "browser.js": ("text/javascript; charset=utf-8", package_text(report, "browser.js")),
    }
    return {name: make_asset(name, kind, text) for name, (kind, text) in texts.items()}
