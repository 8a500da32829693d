"""The interface to whatever runs a study's command lines. Invariant: every submitted job is reported as finished exactly once,
with an exit code, whether it succeeded, failed or was killed; processes of this machine and a cluster are hidden behind the
same methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LOG_HEADER = "$ cotbench "
"""Beginning of the line, followed by the arguments, that precedes a command's output in its log."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command line to run.

    Attributes:
        name: unique among the jobs of an executor.
        arguments: of `cotbench`.
        log: the file that its output is appended to, after a line with `LOG_HEADER`.
        holds: what a slot keeps in memory after it, such as the spec of an agent: the next job that needs the same starts
            sooner there.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    holds: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that runs one job at a time.

    Attributes:
        number: identifies the slot.
        gpu: the GPU that its jobs see; None: no restriction.
        holds: what its last job left in memory.
    """

    number: int
    gpu: int | None = None
    holds: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that has ended.

    Attributes:
        exit_code: of its command; a negative one is the signal that ended its process.
        message: the last line that its process wrote outside of the job's log, where it ended without reporting an exit code.
    """

    job: Job
    exit_code: int
    message: str = ""


class Executor(Protocol):
    """An interface that runs jobs in slots."""

    def free_slots(self) -> Sequence[Slot]:
        """Return the slots without a job."""

    def submit(self, job: Job, slot: Slot) -> None:
        """Begin a job in a free slot; return at once.

        Raises:
            CotbenchError: it cannot be begun.
        """

    def wait(self, seconds: float) -> list[Finished]:
        """Return the jobs that have ended since the last call.

        Args:
            seconds: the longest wait for the first of them.
        """

    def cancel(self) -> None:
        """Interrupt every job; finished work of each stays."""

    def close(self) -> None:
        """Free the resources; end the jobs that are still running."""
