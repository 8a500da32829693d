"""`--trust`: what a folder names is used like what was typed. Invariant: without it, or a yes at a terminal, a command that
goes on with a folder contacts no other machine and reads no other key than without the folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from cotbench.cli.terminal import echo_error
from cotbench.errors import UsageError
from cotbench.flags import OUTPUT

Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Use the addresses and key variables that the folder or file names, without asking",
        rich_help_panel=OUTPUT,
    ),
]


def confirm(read: object, source: object, *, typed: Mapping[str, object] | None = None, trust: bool) -> None:
    """Let the user confirm what a folder names, before it is used.

    Args:
        read: the config or the spec that was read.
        source: the folder or file that it was read from, for the message.
        typed: what the user has typed beside it; that needs no confirmation.
        trust: whether all is confirmed already.

    Raises:
        UsageError: something has to be confirmed, and is not.
    """
    from cotbench.agents.trust import concerns

    known = concerns(typed or {})
    found = [concern for concern in concerns(read) if concern not in known]
    if trust or not found:
        return
    what = f"{ascii(str(source))[1:-1]} names {' and '.join(found)}"
    if not says_yes(f"{what}. Say yes only if you know who made it.\nUse it?"):
        raise UsageError(f"{what}, which you did not type: add --trust if you know who made it")


def says_yes(question: str) -> bool:
    """Return whether the user says yes; without a terminal nobody does."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    echo_error(f"{question} [y/N] ", nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
