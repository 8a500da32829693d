"""The check for the packages that a report needs beyond the base install."""

from __future__ import annotations

from importlib.util import find_spec

from cotbench.errors import MissingExtraError


def require_report(what: str) -> None:
    """Raise an error before any work where the packages for a report are missing.

    Args:
        what: what needs them; for the message.

    Raises:
        MissingExtraError: names the extra.
    """
    if any(find_spec(module) is None for module in ("jinja2", "matplotlib")):
        raise MissingExtraError(what, "report")
