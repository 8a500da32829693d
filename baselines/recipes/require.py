"""Check of the libraries for training. Invariant: a missing one is an error of one line, before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec

from cotbench.errors import MissingExtraError
from cotbench.openmp import wait_passively


def require_training() -> None:
    """Raise an error at once when the libraries are not installed; else choose how torch's threads wait, before it is imported.

    Raises:
        MissingExtraError: names the extra.
    """
    if any(find_spec(package) is None for package in ("torch", "transformers", "accelerate")):
        raise MissingExtraError("cotbench train", "train")
    wait_passively()
