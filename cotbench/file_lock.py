"""A lock on a file, which one process holds at a time. Invariant: only a lock that somebody holds is reported as held; where a
file system or a system has no locks, the error is another one, or a substitute is used.

`flock` is used where the file system has it. Where it has not (Lustre without `-o flock`, NFS without a lock manager), a file
beside the lock is created exclusively, which names its process. The system removes such a file with no process, so that it is
left behind by one that was killed; it is never taken over, and the error names it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from cotbench.errors import UsageError

OWNER = ".owner"
"""Suffix of the file beside the lock file that exists while the lock is held on a file system without `flock`."""

_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_POLL = 0.2
"""Seconds between two tries."""


@contextmanager
def file_lock(path: Path, *, shared: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file for a `with` block.

    Args:
        path: the lock file; it is created where it is missing, unless the lock is shared.
        shared: exclude those only who hold it alone; a system without locks has none of them.
        wait: seconds to wait for another holder.

    Raises:
        BlockingIOError: somebody else holds it. Its `strerror` is empty; on a file system without locks it says who does, and
            what to do if that process was killed.
        OSError: the file cannot be locked; `strerror` says why.
        UsageError: this system has no locks.
    """
    if find_spec("fcntl") is None:
        if not shared:
            raise UsageError(f"cannot lock {path}: this system has no file locks; use Linux or macOS, on Windows WSL")
        yield
        return
    until = time.monotonic() + wait
    while True:
        try:
            handle, owner = _acquire(path, shared)
            break
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(_POLL)
    try:
        yield
    finally:
        if owner is not None:
            owner.unlink(missing_ok=True)
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Return whether somebody holds the lock of a file alone.

    Looking holds it together with others for a moment, so that who wants it alone just then has to try again (`wait`).

    Args:
        path: the lock file.
    """
    if find_spec("fcntl") is None:
        return False
    try:
        handle, _ = _acquire(path, shared=True)
    except BlockingIOError:
        return True
    except OSError:  # There is none, or it is not ours to open.
        return False
    os.close(handle)
    return False


def _acquire(path: Path, shared: bool) -> tuple[int, Path | None]:
    """Return an open file, which holds the lock, and the owner file where that holds it instead.

    Raises:
        OSError: as `file_lock`.
    """
    owner = path.with_name(path.name + OWNER)
    while True:
        handle = os.open(path, os.O_CLOEXEC | (os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT), 0o666)
        try:
            if not _flock(handle, shared):
                return handle, _own(owner, shared)
            if owner.exists():  # Of a process for which the same file system has no locks.
                raise _held(owner)
            if _is_named(handle, path):
                return handle, None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # The last holder has removed the file: a lock on a removed file excludes nobody.


def _flock(handle: int, shared: bool) -> bool:
    """Lock an open file; return False where its file system has no such locks.

    Raises:
        OSError: as `file_lock`.
    """
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(errno.EWOULDBLOCK, "") from error
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _own(owner: Path, shared: bool) -> Path | None:
    """Create the owner file; a shared lock only looks for it.

    Raises:
        BlockingIOError: it exists.
        OSError: it cannot be written.
    """
    if shared:
        if owner.exists():
            raise _held(owner)
        return None
    try:
        handle = os.open(owner, os.O_CLOEXEC | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError as error:
        raise _held(owner) from error
    holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
    try:
        os.write(handle, holder.encode())
    except BaseException:
        owner.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return owner


def _held(owner: Path) -> BlockingIOError:
    try:
        holder = " ".join(owner.read_text("utf-8").split())
    except (OSError, UnicodeDecodeError):
        holder = ""
    return BlockingIOError(errno.EWOULDBLOCK, f"{holder or 'a process'}; if that has ended, remove {owner}")


def _is_named(handle: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), named)
