"""Files that are written whole or not at all. Invariant: a reader sees the old content or the new, never a part of it; a file
has the permissions that the user's umask leaves; where it cannot be written, the error names it and says how to go on.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cotbench.errors import WriteError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says where there is no room for what is written."""


@contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """Open a new file, which takes the place of an old one when the block has ended without an exception.

    Args:
        path: the old file, which need not exist.

    Yields:
        The new file, beside the old one.

    Raises:
        WriteError: there is no room for it; the old file is as it was.
        OSError: it cannot be written for another reason.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise write_error(path, error) from error
        raise


def write_atomically(path: Path, pieces: Iterable[str] | Iterable[bytes]) -> None:
    """Write a file so that a reader sees the old content or the new, never a part of it.

    Args:
        path: the file.
        pieces: its content, in pieces; text is written as UTF-8.

    Raises:
        WriteError: it cannot be written; the old file is as it was.
    """
    with replacement(path) as file:
        file.writelines(piece.encode() if isinstance(piece, str) else piece for piece in pieces)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes have left of new versions of a file. The caller alone may write to it.

    Args:
        path: the file.
    """
    for beside in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 8}"):
        beside.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> WriteError:
    """Return the error for a file that cannot be written.

    Args:
        path: the file.
        error: why.
    """
    return WriteError(f"cannot write {path} ({error.strerror or error})")
