"""The processes below one: who they are, and when they are gone. From /proc, so for Linux."""

from __future__ import annotations

import os
import time
from pathlib import Path


def _stat(pid: int) -> list[str] | None:
    """State and parent of a process; None where there is none, or what is left of it waits for its parent only."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def alive(pid: int) -> bool:
    """Whether a process runs, or is stopped."""
    return _stat(pid) is not None


def descendants(root: int | None = None, word: str = "") -> list[int]:
    """The living processes below one (this one where left out) that have a word in their command line, nearest first."""
    parents = {int(path.name): fields for path in Path("/proc").glob("[0-9]*") if (fields := _stat(int(path.name))) is not None}
    level, found = [os.getpid() if root is None else root], list[int]()
    while level:
        level = [pid for pid, fields in parents.items() if int(fields[1]) in level]
        found += level
    return [pid for pid in found if word in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def seconds_until_gone(pids: list[int], limit: float = 30.0) -> float:
    """How long it takes until none of the processes is left; the limit where one stays."""
    begun = time.monotonic()
    while any(map(alive, pids)) and time.monotonic() - begun < limit:
        time.sleep(0.01)
    return min(limit, time.monotonic() - begun)
