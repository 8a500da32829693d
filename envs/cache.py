"""The cache of fetched and converted data. Invariant: what lies there under its final name is whole, and was prepared by one
process; where the cache cannot be written to, the error names the folder and `COTBENCH_CACHE`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cotbench.errors import MissingDataError
from cotbench.file_lock import file_lock

_WAIT = 1800.0
"""Seconds to wait for another process that prepares the same."""

_CANNOT_WRITE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
)


def cache_folder() -> Path:
    """Return the folder of fetched and converted data: `$COTBENCH_CACHE`, else `cotbench` under the user's cache folder.

    Raises:
        MissingDataError: the user has no home folder.
    """
    try:
        if override := os.environ.get("COTBENCH_CACHE"):
            return Path(override).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cotbench"
    except RuntimeError as error:
        raise MissingDataError(f"there is no cache folder ({error}): set COTBENCH_CACHE to a folder") from error


def write_failure(error: BaseException | None) -> OSError | None:
    """Return the error in a chain of exceptions that says that a place cannot be written to; None where there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            return error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def cache_writes(folder: Path) -> Iterator[None]:
    """Turn the failures to write into a folder of the cache into errors of one line, for a `with` block.

    Args:
        folder: is made where it is missing.

    Raises:
        MissingDataError: it cannot be made or written to, or has no room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise _cache_error(folder, error) from error


def _cache_error(folder: Path, error: OSError) -> MissingDataError:
    return MissingDataError(
        f"cannot write to the cache folder {folder} ({error.strerror}): free some space there, or set COTBENCH_CACHE to a "
        "folder that can be written to"
    )


@contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """Be the only process that prepares a folder of the cache, for a `with` block; another one is waited for.

    Args:
        folder: what is prepared; its parent is made where it is missing.

    Raises:
        MissingDataError: another process does not come to an end, or the cache cannot be written to.
    """
    with cache_writes(folder.parent), ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder.with_name(folder.name + ".lock"), wait=_WAIT))
        except BlockingIOError as error:
            holder = f" ({error.strerror})" if error.strerror else ""
            raise MissingDataError(
                f"another process{holder} has been preparing {folder} for {_WAIT / 60:.0f} minutes: wait until it has ended, "
                "or set COTBENCH_CACHE to another folder"
            ) from error
        except OSError as error:
            raise _cache_error(folder.parent, error) from error
        yield
