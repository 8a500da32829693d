"""The folders in which results lie. Invariant: a folder holds one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cotbench.errors import RunFolderError


def make_folder(folder: Path, hint: str, what: str = "folder") -> None:
    """Make a folder, or take an empty one; `hint` says what to do with one that holds something, `what` what it is.

    Raises:
        RunFolderError: it is not empty, it is a file, or it cannot be made.
    """
    if folder.is_file():
        raise RunFolderError(f"{folder} is a file: choose another --out")
    # What begins with a dot is ours: a lock, or what a killed write left behind.
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise RunFolderError(f"{folder} is not empty; {hint}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make the {what} {folder} ({error.strerror}): choose another --out") from error


def check_identity(folder: Path, before: dict[str, Any], now: dict[str, Any], what: str = "run") -> None:
    """Refuse to mix two runs, or whatever a folder holds one of, in one folder.

    Raises:
        RunFolderError: names the first thing that differs.
    """
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise RunFolderError(
                f"{folder} holds another {what}: its {name} is {_shown(before.get(name))}, not {_shown(now.get(name))}; "
                "leave the option away, or choose another --out"
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def file_name(text: str) -> str:
    """A spec, or whatever names a thing, as a name of a file."""
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text).strip("-.")
