"""What a child process runs (`python -P -m cotbench.child_main`). Invariant: it serves one function, and does not outlive
whoever started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cotbench.child_process import STARTED
from cotbench.errors import CotbenchError
from cotbench.parent_death import end_with_parent
from cotbench.plugins import load_plugins

_POLL_SECONDS = 1.0


def main() -> None:
    """Import the parent's plugins, then call its function with the pipes given by their file descriptors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what Ctrl-C means.
    parent, *descriptors = map(int, sys.argv[1:])
    control: Connection[Any, Any]
    control, *pipes = (Connection(descriptor) for descriptor in descriptors)
    end_with_parent(parent, signal.SIGKILL)
    try:
        search_path, plugins = control.recv()
        # Last, so that nothing there takes an installed module's place.
        sys.path += [folder for folder in search_path if folder not in sys.path]
        load_plugins(plugins)
        function, arguments = control.recv()
        control.send_bytes(STARTED)
    except (EOFError, BrokenPipeError):
        return  # The parent is gone.
    except CotbenchError as error:
        sys.exit(" ".join(str(error).split()))
    threading.Thread(target=_wait_for_parents_end, args=(parent, control), daemon=True).start()
    function(pipes, *arguments)


def _wait_for_parents_end(parent: int, control: Connection[Any, Any]) -> None:
    """End this process with its parent, where the system does not: the parent's end of a pipe closes, or is held by a fork."""
    with suppress(EOFError, OSError):
        while not control.poll(_POLL_SECONDS):
            if os.getppid() != parent:
                break
        else:
            control.recv_bytes()
    os._exit(1)


if __name__ == "__main__":
    main()
