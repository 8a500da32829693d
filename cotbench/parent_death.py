"""How a process ends with its parent. Invariant: on Linux the system ends it, whatever it is doing, also where it is stopped.

Elsewhere a process has to look itself: at a pipe of its parent, or at its parent's number.

`python -P -m cotbench.parent_death PID SIGNAL PROGRAM [ARGUMENT]...` runs another program so: it becomes that program, which
keeps the process number and the pipes.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: int) -> None:
    """Have the system send this process a signal when its parent ends, where it can (Linux); what it becomes by `exec` too.

    The parent is the *thread* that has started this process: that thread must stay.

    Args:
        parent: the parent's process number, as the parent gave it: this process may be its orphan already.
        number: the signal.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # It has ended before the request.
        os._exit(1)


def main() -> None:
    """Become the program of the arguments, which gets the signal when the parent ends."""
    parent, number, *command = sys.argv[1:]
    end_with_parent(int(parent), int(number))
    try:
        os.execvp(command[0], command)  # noqa: S606  (no shell: the arguments are taken as they are)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
