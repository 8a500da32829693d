"""What drawing a report needs beside the base install."""

from __future__ import annotations

from importlib.util import find_spec

from cotbench.errors import MissingExtraError


def require_report(what: str) -> None:
    """Fail in one line, before any work, when a report could not be drawn.

    Raises:
        MissingExtraError: names the extra.
    """
    if any(find_spec(module) is None for module in ("jinja2", "matplotlib")):
        raise MissingExtraError(what, "report")
