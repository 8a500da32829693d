"""Doing the stages of a study. Invariant: a stage is done when its mark is written, after its command has succeeded; what is
killed on the way goes on where it was, for every command can.

Stages are command lines, carried out by worker processes that stay: libraries are loaded once a worker, not once a stage.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from cotbench.errors import CotbenchError, RunFolderError, UsageError
from cotbench.lines import write_atomically
from cotbench.manifest import MANIFEST
from cotbench.study.plan import Plan
from cotbench.study.stage import Stage, arguments

STUDY = "study.json"
DONE = "done"
LOGS = "logs"
WORKER = ("-m", "cotbench.cli.worker")
"""What a worker process runs."""

_BEGUN = {"run": MANIFEST, "reference": MANIFEST, "traces": MANIFEST, "probe": MANIFEST, "train": "training.json"}
"""What a stage's folder holds once it can be gone on with."""

_PATIENCE = 0.2
_TAIL = 4000


class Watcher(Protocol):
    """Who wants to know how far a study is."""

    def began(self, stage: Stage) -> None:
        """A stage was given to a worker."""

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        """A stage ended; `error` says why it failed."""

    def moment(self) -> None:
        """Some time went by."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that failed: what was said last, and where all of it is."""

    stage: Stage
    said: str
    log: Path


def folder_of(study: Path, stage: Stage) -> Path:
    """The folder of a stage."""
    return study / stage.folder


def is_done(study: Path, stage: Stage) -> bool:
    """Whether a stage was carried out."""
    return _mark(study, stage).is_file()


def seconds_of(study: Path, stage: Stage) -> float | None:
    """How long a stage took, over all sittings of the one that ended it; None where it is not done."""
    try:
        return float(json.loads(_mark(study, stage).read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mark(study: Path, stage: Stage) -> Path:
    return study / DONE / f"{stage.key[:16]}.json"


def checkpoint(training: Path, share: float) -> Path:
    """The checkpoint of a training after a share of it.

    Raises:
        RunFolderError: it is missing from the series.
    """
    found: dict[Path, float] = {}
    for card in sorted(training.glob("checkpoint-*/recipe.json")):
        try:
            read = json.loads(card.read_text("utf-8"))
            found[card.parent] = abs(float(read["progress"]) - share) * int(read["steps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{card} is damaged: remove {training}, and the study trains anew") from error
    near = min(found, key=lambda path: found[path], default=None)
    if near is None or found[near] > 1:
        raise RunFolderError(
            f"{training} has no checkpoint after {share:g} of the training: a checkpoint is missing from the series; "
            f"remove {training}, and the study trains anew"
        )
    return near


def command_of(study: Path, plan: Plan, stage: Stage) -> list[str]:
    """The arguments of `cotbench` that carry a stage out, or go on with it where it was begun."""
    folder = folder_of(study, stage)
    filled = arguments(stage, lambda name: folder_of(study, plan.named(name)), checkpoint)
    if not (folder / _BEGUN[stage.kind]).is_file():
        return [*filled, "--out", str(folder)]
    if stage.kind == "probe":
        return [*filled, "--out", str(folder), "--resume"]
    return [stage.command[0], "--resume", str(folder)]


def begin(study: Path, plan: Plan) -> None:
    """Write down what the study is; a folder that holds something else is refused.

    Raises:
        RunFolderError: it is not empty and no study.
    """
    from cotbench.runner import fresh_folder

    if not (study / STUDY).is_file():
        fresh_folder(study, "choose another --out", "folder of the study")
    write_atomically(study / STUDY, [plan.config.model_dump_json(indent=2) + "\n"])
    for name in (DONE, LOGS):
        (study / name).mkdir(exist_ok=True)


@contextmanager
def only_one(study: Path) -> Iterator[None]:
    """Nobody else works on the study meanwhile.

    Raises:
        RunFolderError: somebody does.
    """
    import fcntl

    handle = os.open(study / ".study.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(
                f"{study} is in use by another cotbench study: wait for it, or choose another --out"
            ) from error
        yield
    finally:
        os.close(handle)


def execute(study: Path, plan: Plan, *, jobs: int, watcher: Watcher) -> list[Failure]:
    """Carry out what is not done yet, `jobs` stages at a time.

    A stage that fails costs those that use it and no other.

    Raises:
        KeyboardInterrupt: after the workers were told too; what they did is kept.
    """
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: give at least 1")
    todo = [stage for stage in plan.stages if not is_done(study, stage)]
    missing = {stage.name for stage in todo}
    failures: list[Failure] = []
    lost: set[str] = set()
    with _pool(min(jobs, max(1, len(todo))), study, plan.config.threads) as pool:
        running: dict[int, tuple[Stage, float]] = {}
        while todo or running:
            for stage in list(todo):
                if lost.intersection(stage.uses):
                    lost.add(stage.name)
                    todo.remove(stage)
            ready = [stage for stage in todo if not missing.intersection(stage.uses)]
            for number in list(pool.idle):
                if not ready:
                    break
                stage = min(
                    ready, key=lambda one: (not one.trained, -one.tokens if one.trained else one.agent != pool.last[number])
                )
                ready.remove(stage)
                todo.remove(stage)
                watcher.began(stage)
                try:
                    pool.give(number, command_of(study, plan, stage), _log(study, stage))
                    pool.last[number] = stage.agent
                    running[number] = (stage, time.monotonic())
                except CotbenchError as error:
                    failures.append(Failure(stage, str(error), _log(study, stage)))
                    lost.add(stage.name)
                    watcher.ended(stage, 0.0, str(error))
            if not running:
                if todo and not ready:
                    break
                continue
            for worker, code in pool.answers():
                stage, started = running.pop(worker)
                took = time.monotonic() - started
                if code == 0:
                    write_atomically(_mark(study, stage), [json.dumps(_record(study, stage, took)) + "\n"])
                    missing.discard(stage.name)
                    watcher.ended(stage, took, None)
                else:
                    said = _last_words(_log(study, stage), code)
                    failures.append(Failure(stage, said, _log(study, stage)))
                    lost.add(stage.name)
                    watcher.ended(stage, took, said)
            watcher.moment()
    return failures


def _record(study: Path, stage: Stage, took: float) -> dict[str, Any]:
    return {"name": stage.name, "folder": stage.folder, "key": stage.key, "command": stage.command, "seconds": round(took, 1)}


def _log(study: Path, stage: Stage) -> Path:
    return study / LOGS / f"{stage.folder.replace('/', '_')}.log"


def _last_words(log: Path, code: int) -> str:
    """What a command said last that is an error."""
    try:
        lines = log.read_bytes()[-_TAIL:].decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return next((line for line in reversed(lines) if line.strip()), f"exit code {code}")


@dataclass(slots=True)
class _Pool:
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
def _pool(count: int, study: Path, threads: int | None) -> Iterator[_Pool]:
    environment: Mapping[str, str] = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    if threads is not None:
        environment = {**environment, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment)
        )

    pool = _Pool(start, idle=list(range(count)))
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
