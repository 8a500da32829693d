"""An executor that runs jobs in processes of this machine. Invariant: that of `executor`.

A process stays from one job to the next: libraries are loaded once a process, and a model that the next job uses too stays in
memory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue

from cotbench.child_process import ErrorOutput, python_command
from cotbench.errors import CotbenchError
from cotbench.study.executor import Finished, Job, Slot

WORKER = "cotbench.cli.worker"
"""The module that a process runs."""

_NO_ANSWER = 1
"""The exit code of a job whose process ended with 0 before it had reported the job's exit code."""

_PATIENCE = 15.0
"""Seconds that all processes together get to end by themselves: less than what ends a study usually waits before it kills."""


class LocalExecutor:
    """An executor with worker processes on this machine.

    Args:
        slots: how many jobs run at the same time; the process of a slot is started with its first job.
        gpus: GPUs of this machine; slot k sees only GPU k modulo this number.
        threads: for the numerical libraries of each process; None: their own choice.
    """

    def __init__(self, slots: int, *, gpus: int = 0, threads: int | None = None) -> None:
        self._slots = {number: Slot(number, number % gpus if gpus else None) for number in range(slots)}
        self._threads = threads
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._running: dict[int, Job] = {}
        self._heard: SimpleQueue[tuple[int, subprocess.Popen[bytes], int, str]] = SimpleQueue()

    def free_slots(self) -> Sequence[Slot]:
        """Return the slots without a job."""
        return [slot for number, slot in self._slots.items() if number not in self._running]

    def submit(self, job: Job, slot: Slot) -> None:
        """Begin a job in a free slot.

        Raises:
            CotbenchError: no process can be started.
        """
        process = self._processes.get(slot.number)
        if process is None or process.poll() is not None:
            process = self._start(slot)
        self._running[slot.number] = job
        self._slots[slot.number] = replace(slot, holds=job.holds)
        line = json.dumps({"arguments": list(job.arguments), "log": str(job.log)}) + "\n"
        with suppress(BrokenPipeError):  # The process has died; its listener reports that.
            if process.stdin is not None:
                process.stdin.write(line.encode())
                process.stdin.flush()

    def wait(self, seconds: float) -> list[Finished]:
        """Return the jobs that have ended since the last call.

        Args:
            seconds: the longest wait for the first of them.
        """
        finished: list[Finished] = []
        with suppress(Empty):
            number, process, code, message = self._heard.get(timeout=seconds)
            while True:
                if self._processes.get(number) is process and number in self._running:
                    finished.append(Finished(self._running.pop(number), code, message))
                number, process, code, message = self._heard.get_nowait()
        return finished

    def cancel(self) -> None:
        """Interrupt every process, by a signal that does nothing more to one that the terminal's Ctrl-C has reached too."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the processes: kill those that have not ended by themselves in time."""
        deadline = time.monotonic() + _PATIENCE
        for process in self._processes.values():
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._processes.values():
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, slot: Slot) -> subprocess.Popen[bytes]:
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
        if self._threads is not None:
            environment |= {name: str(self._threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot.gpu)
        try:
            process = subprocess.Popen(
                python_command(WORKER, str(os.getpid())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise CotbenchError(f"cannot start a process of the study ({error.strerror}): use fewer --jobs") from error
        self._processes[slot.number] = process
        threading.Thread(target=self._listen, args=(slot.number, process), daemon=True).start()
        return process

    def _listen(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Forward the exit code of each job, and at last how the process ended, with the last line that it wrote."""
        if process.stderr is None or process.stdout is None:
            raise TypeError("a process without pipes")
        errors = ErrorOutput(process.stderr, forwarded=False)
        for line in process.stdout:
            self._heard.put((number, process, int(line), ""))
        code = process.wait()
        self._heard.put((number, process, code or _NO_ANSWER, errors.last_line()))
