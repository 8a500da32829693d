"""Who carries out a study's command lines. Invariant: a job that was submitted is finished once, with an exit code, whether it
ended well, failed or was killed; what carries it out (processes of this machine, a cluster) is the executor's own business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LOG_HEADER = "$ cotbench "
"""With this and its arguments begins what a command writes into its log."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command line to carry out.

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
    """A place where one job at a time is carried out.

    Attributes:
        number: names it.
        gpu: the GPU that its jobs see; None: whatever there is.
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
        message: the last line that its process wrote outside of the job's log, where it ended without an answer.
    """

    job: Job
    exit_code: int
    message: str = ""


class Executor(Protocol):
    """Carries out jobs in its slots."""

    def free_slots(self) -> Sequence[Slot]:
        """Return the slots without a job."""

    def submit(self, job: Job, slot: Slot) -> None:
        """Begin a job in a free slot; returns at once.

        Raises:
            CotbenchError: it cannot be begun.
        """

    def wait(self, seconds: float) -> list[Finished]:
        """Return the jobs that have ended since the last call, after at most so many seconds."""

    def cancel(self) -> None:
        """Interrupt every job; what each has done so far stays."""

    def close(self) -> None:
        """Free what is held; jobs that go on are ended."""
