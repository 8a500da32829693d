"""Processes that carry out command lines, one at a time each. Invariant: what was given to a worker is answered with an exit
code, whether it ended well, failed or was killed.

They stay from one command to the next: libraries are loaded once a worker, and a model that the next command asks too is kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from cotbench.errors import CotbenchError

WORKER = ("-P", "-m", "cotbench.cli.worker")
"""What a worker process runs."""
LOG_HEADER = "$ cotbench "
"""With this and its arguments begins what a command says in its log."""

_PATIENCE = 0.2


@dataclass(slots=True)
class Pool:
    """Worker processes, each with one command at a time.

    Attributes:
        last: the agent of each worker's last command, which it still holds.
    """

    start: Callable[[], subprocess.Popen[str]]
    heard: SimpleQueue[tuple[int, int]] = field(default_factory=SimpleQueue)
    workers: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    idle: list[int] = field(default_factory=list)
    last: dict[int, str | None] = field(default_factory=lambda: defaultdict(lambda: None))

    def give(self, number: int, command: Sequence[str], log: Path) -> None:
        """Let an idle worker carry a command out."""
        self.idle.remove(number)
        worker = self.workers.get(number)
        if worker is None or worker.poll() is not None:
            worker = self.workers[number] = self.start()
            threading.Thread(target=self._listen, args=(number, worker), daemon=True).start()
        if worker.stdin is None:
            raise CotbenchError("a worker of the study has no input")
        with suppress(BrokenPipeError):  # It died: then its end is heard of.
            worker.stdin.write(json.dumps({"arguments": list(command), "log": str(log)}) + "\n")
            worker.stdin.flush()

    def _listen(self, number: int, worker: subprocess.Popen[str]) -> None:
        for line in worker.stdout or ():
            self.heard.put((number, int(line)))
        self.heard.put((number, worker.wait() or -signal.SIGKILL))

    def answers(self) -> list[tuple[int, int]]:
        """The workers that have finished, with exit codes, after waiting for a moment."""
        found = {}
        with suppress(Empty):
            number, code = self.heard.get(timeout=_PATIENCE)
            while True:
                if number not in self.idle and number not in found:
                    found[number] = code
                number, code = self.heard.get_nowait()
        self.idle += found
        return list(found.items())


@contextmanager
def pool_of(count: int, threads: int | None) -> Iterator[Pool]:
    """A pool for the time of a study; its workers end with it.

    Args:
        count: of workers; none is started before it is given something.
        threads: for the numerical libraries of each.
    """
    environment: Mapping[str, str] = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    if threads is not None:
        environment = {**environment, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
        )

    pool = Pool(start, idle=list(range(count)))
    try:
        yield pool
    except BaseException:
        for worker in pool.workers.values():
            worker.send_signal(signal.SIGINT)
        raise
    finally:
        for worker in pool.workers.values():
            if worker.stdin is not None:
                with suppress(BrokenPipeError):
                    worker.stdin.close()
        for worker in pool.workers.values():
            try:
                worker.wait(timeout=20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
