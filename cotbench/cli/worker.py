"""A process of a study that runs command lines. Invariant: one command at a time, its output goes to its log, and its exit code
is the answer; the process ends when its standard input ends, or its parent process is gone, whose number is its argument.

A line of standard input is an object with `arguments` and `log`; a line of standard output is an exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from cotbench.cli.agent_cache import keep_agents
from cotbench.cli.interruption import INTERRUPTED, Interruption
from cotbench.cli.terminal import echo, echo_error, open_streams
from cotbench.failure import traceback_text
from cotbench.parent_death import end_with_parent
from cotbench.study.executor import LOG_HEADER


def main() -> None:
    """Run commands from standard input until it ends."""
    open_streams()
    parent = int(sys.argv[1])
    end_with_parent(parent, signal.SIGKILL)
    commands, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    keep_agents()
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    with Interruption().handled(), os.fdopen(commands, encoding="utf-8") as lines:
        for line in lines:
            command = json.loads(line)
            code = _run_logged(command["arguments"], command["log"], null)
            os.write(answers, f"{code}\n".encode())
            if code == INTERRUPTED:
                break


def _run_logged(arguments: list[str], log: str, null: int) -> int:
    from cotbench.cli import run_cli

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    try:
        echo(f"{LOG_HEADER}{' '.join(arguments)}")
        return run_cli(arguments, debug=True)
    except BaseException as error:
        echo_error(traceback_text(error))
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(null, 1)
        os.dup2(null, 2)
        _forget()


def _forget() -> None:
    """Free the memory that the last command held."""
    import gc

    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _watch_parent(parent: int) -> None:
    """End this process when its parent is gone, where the system does not: a resumed study would else compute the same stages
    twice at once.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
