"""An executor without processes. Invariant: every job is carried out where it is submitted, in the test's own process, which
has loaded the libraries already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from cotbench.cli import run_cli
from cotbench.study.executor import LOG_HEADER, Finished, Job, Slot


class Inline:
    """Carries each job out where it is submitted, in this process."""

    def __init__(self) -> None:
        self.done: list[Finished] = []
        self.jobs: list[str] = []

    def free_slots(self) -> Sequence[Slot]:
        return [Slot(0)] if not self.done else []

    def submit(self, job: Job, slot: Slot) -> None:
        self.jobs.append(job.name)
        with job.log.open("w") as log, redirect_stdout(log), redirect_stderr(log):
            print(LOG_HEADER, *job.arguments)
            self.done.append(Finished(job, run_cli(list(job.arguments))))

    def wait(self, seconds: float) -> list[Finished]:
        done, self.done = self.done, []
        return done

    def cancel(self) -> None: ...

    def close(self) -> None: ...


@contextmanager
def inline_executor(config: Any, jobs: int) -> Iterator[Inline]:
    """Stands for the command's own choice of an executor."""
    yield Inline()
