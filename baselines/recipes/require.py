"""Check of the libraries for training. Invariant: a missing one is an error of one line, before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec

from cotbench.errors import MissingExtraError


def require_training() -> None:
    """Raise an error at once when the libraries are not installed.

    Raises:
        MissingExtraError: names the extra.
    """
    if any(find_spec(package) is None for package in ("torch", "transformers", "accelerate")):
        raise MissingExtraError("cotbench train", "train")
