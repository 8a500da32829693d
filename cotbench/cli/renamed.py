"""Options that had another name. Invariant: an old spelling never does anything but name the new one."""

from __future__ import annotations

from typing import Any

RENAMED = {
    "--average": "--ema-decay",
    "--batch-size": "--num-envs",
    "-b": "--num-envs",
    "--elicitation": "--elicitation-style",
    "--one-order": "--no-both-orders",
    "--pass-tokens": "--max-tokens-per-forward",
}
"""Old spelling -> the option of today. Not used for a command that still has an option of the old spelling."""


def unknown_option(error: Any) -> str | None:
    """Return the message for an option that a command does not have; None where the error is another.

    Args:
        error: of the parser.
    """
    name = getattr(error, "option_name", None)
    if name is None or not hasattr(error, "possibilities"):
        return None
    command = getattr(getattr(error, "ctx", None), "command", None)
    known = {text for option in getattr(command, "params", ()) for text in option.opts}
    near = [RENAMED[name]] if RENAMED.get(name) in known else list(error.possibilities or [])
    return f"no such option {name}" + (f": did you mean {' or '.join(near)}?" if near else "")
