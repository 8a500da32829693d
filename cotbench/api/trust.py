"""What a folder or a file names is used like what the caller wrote. Invariant: without `trust=True` no other machine is
contacted and no other key is read on the word of a file alone; the rule is that of `--trust`.
"""

from __future__ import annotations

from collections.abc import Mapping

from cotbench.agents.trust import concerns
from cotbench.errors import UsageError


def require_trust(read: object, source: object, *, given: Mapping[str, object] | None = None, trust: bool) -> None:
    """Raise an error where a file names what has to be confirmed.

    Args:
        read: the config that was read.
        source: the folder or file, for the message.
        given: what the caller wrote beside it; that needs no confirmation.
        trust: whether all is confirmed.

    Raises:
        UsageError: something has to be confirmed, and is not.
    """
    known = concerns(given or {})
    found = [concern for concern in concerns(read) if concern not in known]
    if found and not trust:
        raise UsageError(f"{source} names {' and '.join(found)}: add trust=True if you know who made it")
