"""Folders of results: one code for runs, probes, judges, trainings and studies.

Invariant: a folder holds one result, which its manifest names before anything else is written; one process at a time writes to
it; a process that finds the folder locked changes nothing in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cotbench.errors import RunFolderError, WriteError
from cotbench.file_lock import OWNER, file_lock
from cotbench.runs.atomic_file import FULL, write_atomically, write_error
from cotbench.runs.jsonl_store import JsonlStore

LOCK = ".lock"
"""A file in every folder that is or was written to; the writing process holds a lock on it."""

_WAIT = "wait for it, or choose another --out"
_LOOKED_AT = 0.2
"""Seconds after which a lock is tried again that somebody else may only have looked at (`file_lock.is_locked`)."""
J = TypeVar("J", bound=JsonlStore[Any, Any])


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of result folder.

    Attributes:
        noun: names it in messages: "run", "measurement", "training".
        writer: the command that writes it: "cotbench run".
        manifest: name of the file that identifies the result.
    """

    noun: str
    writer: str
    manifest: str


@dataclass(frozen=True, slots=True)
class WritableFolder:
    """A folder that this process alone writes to; made by `open_folder`."""

    path: Path
    kind: FolderKind

    @property
    def begun(self) -> bool:
        """Return whether the manifest is written."""
        return (self.path / self.kind.manifest).is_file()

    def begin(self, manifest: str) -> None:
        """Write the manifest, unless there is one already: a folder never changes what it is of."""
        if not self.begun:
            write_atomically(self.path / self.kind.manifest, [manifest + "\n"])

    def check_identity(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Refuse to continue where the folder holds another result than the current one.

        Args:
            before: identity in the folder's manifest.
            now: identity of the current command.

        Raises:
            RunFolderError: names the first field that differs.
        """
        check_identity(self.path, before, now, self.kind.noun)

    def journal(self, store: type[J]) -> J:
        """Return the folder's file of records, opened for writing.

        Args:
            store: the class of the file.

        Raises:
            RunFolderError: the file is damaged.
        """
        return store(self.path)

    def finalize(self, name: str, summary: str) -> None:
        """Write the file with the numbers. It is written last, so its presence means that the work was finished.

        Args:
            name: name of the file in the folder.
            summary: its content.
        """
        write_atomically(self.path / name, [summary + "\n"])


@contextmanager
def open_folder(folder: Path, kind: FolderKind, check: Callable[[Path], None] | None = None) -> Iterator[WritableFolder]:
    """Make a folder, or take the existing one, and lock it; on failure, what this has made and is empty is removed again.

    Args:
        folder: the folder.
        kind: the kind of result in it.
        check: raises where the folder must not be used. It is called before the lock, so that nothing is written into an
            unrelated folder, and again under the lock, because another process may have begun there meanwhile.

    Yields:
        The folder, ready for writing.

    Raises:
        RunFolderError: another process writes to it, or it can be neither made nor locked.
        WriteError: a file in it cannot be written; says how to go on.
    """
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    if check is not None:
        check(folder)
    _make(folder)
    try:
        with lock_folder(folder, kind.writer):
            if check is not None:
                check(folder)
            opened = WritableFolder(folder, kind)
            with _how_to_go_on(opened):
                yield opened
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new_folders:
                path.rmdir()  # Fails where it is not empty, as it should.
        raise


@contextmanager
def _how_to_go_on(folder: WritableFolder) -> Iterator[None]:
    """Add to the error of a full disk by which command the work in a folder goes on."""
    try:
        yield
    except (WriteError, OSError) as error:
        if isinstance(error, WriteError):
            what = error.what
        elif error.errno in FULL:
            what = write_error(Path(error.filename or folder.path), error).what
        else:
            raise
        if not folder.begun:
            raise WriteError(what) from error
        raise WriteError(what, f"resume with: {folder.kind.writer} --resume {folder.path}") from error


@contextmanager
def lock_folder(folder: Path, writer: str, then: str = _WAIT, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder.

    Args:
        folder: a folder that exists.
        writer: the command that may hold the lock already; for the message.
        then: what to do in that case; for the message.
        shared: keep writers away while reading. Reading works without a lock where there is none to be had.

    Raises:
        RunFolderError: another process holds it, or the folder cannot be locked.
        UsageError: this system has no locks.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / LOCK, shared=shared, wait=_LOOKED_AT))
        except BlockingIOError as error:
            holder = f" ({error.strerror})" if error.strerror else ""
            raise RunFolderError(f"{folder} is in use by another {writer}{holder}: {then}") from error
        except OSError as error:
            if not shared:
                raise RunFolderError(
                    f"cannot lock {folder} ({error.strerror}): choose another --out, on a local disk"
                ) from error
        try:
            yield
        finally:
            # A lock file alone would keep an otherwise empty folder from being removed.
            if not shared and _names(folder) - {LOCK + OWNER} == {LOCK}:
                (folder / LOCK).unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def make_folder(folder: Path, hint: str, what: str = "folder") -> None:
    """Make a folder, or take an empty one.

    Args:
        folder: the folder.
        hint: what to do with one that holds something.
        what: what it is; for the message.

    Raises:
        RunFolderError: it is not empty, it is a file, or it cannot be made.
    """
    if folder.is_file():
        raise RunFolderError(f"{folder} is a file: choose another --out")
    # Names with a leading dot are our own: a lock, or the rest of a killed write.
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise RunFolderError(f"{folder} is not empty; {hint}")
    _make(folder, what)


def _make(folder: Path, what: str = "folder") -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make the {what} {folder} ({error.strerror}): choose another --out") from error


def check_identity(folder: Path, before: dict[str, Any], now: dict[str, Any], what: str = "run") -> None:
    """Refuse to mix two runs, or two results of another kind, in one folder.

    Args:
        folder: the folder, for the message.
        before: identity in the folder's manifest.
        now: identity of the current command.
        what: the kind of result, for the message.

    Raises:
        RunFolderError: names the first field that differs.
    """
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise RunFolderError(
                f"{folder} holds another {what}: its {name} is {_cut(before.get(name))}, not {_cut(now.get(name))}; "
                "omit the option, or choose another --out"
            )


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def file_name(text: str) -> str:
    """Return a text, such as an agent's spec, as a valid file name."""
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text).strip("-.")
