"""Executors: any that keeps the protocol carries a study out, to the same numbers; the local one gives each slot its GPU."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from cotbench.api import study
from cotbench.api.study import usual_jobs
from cotbench.study import local_executor
from cotbench.study.config import parse_study
from cotbench.study.executor import Executor, Finished, Job
from cotbench.study.folder import begin
from cotbench.study.local_executor import LocalExecutor
from cotbench.study.plan import make_study_plan
from cotbench.study.report import page_of_study
from cotbench.study.scheduler import last_error, run_study
from cotbench.study.stage import Stage
from tests.conftest import needs_hf
from tests.cotbench.study.inline import Inline

STUDY = """
name = "untrained"
models = ["tiny"]
checkpoints = [0.0]
threads = 1
runs = []
[envs]
alfworld-gen = ["id"]
[elicitation]
trace_tokens = 8
[[arms]]
name = "sft"
[[probes]]
probe = "alignment"
states = 2
"""


class Observer:
    """Counts."""

    def __init__(self) -> None:
        self.errors: list[str | None] = []

    def began(self, stage: Stage) -> None: ...

    def ended(self, stage: Stage, seconds: float, error: str | None) -> None:
        self.errors.append(error)

    def moment(self) -> None: ...


def _numbers(folder: Path, executor: Executor) -> bytes:
    plan = make_study_plan(parse_study(STUDY, "untrained"))
    begin(folder, plan)
    observer = Observer()
    assert run_study(folder, plan, executor, observer) == []
    assert observer.errors == [None] * len(plan.stages)
    page_of_study(folder)
    return (folder / "numbers.json").read_bytes()


@needs_hf
@pytest.mark.slow
@pytest.mark.ci
def test_two_executors_give_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    inline, local = Inline(), LocalExecutor(1, threads=1)
    try:
        assert _numbers(tmp_path / "a", inline) == _numbers(tmp_path / "b", local)
    finally:
        local.close()
    assert inline.jobs == ["reference/id", "alignment/base-id"]


WORKER = """
import json, os, signal, sys, time
for line in sys.stdin:
    job = json.loads(line)
    if job["arguments"] == ["die"]:
        sys.exit("no room for the model")
    if job["arguments"] == ["compile"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(job["log"], "w").close()
        time.sleep(60)
    open(job["log"], "w").write(os.environ.get("CUDA_VISIBLE_DEVICES", "any") + " " + os.environ["OMP_NUM_THREADS"])
    print(int(job["arguments"][0]), flush=True)
"""


def _finished(executor: LocalExecutor, count: int) -> dict[str, Finished]:
    found: dict[str, Finished] = {}
    until = time.monotonic() + 60
    while len(found) < count and time.monotonic() < until:
        found |= {one.job.name: one for one in executor.wait(0.1)}
    return found


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    monkeypatch.setattr(local_executor, "python_command", lambda *_: [sys.executable, str(path)])
    return path


@pytest.mark.parametrize(("gpus", "seen"), [(0, ["any", "any", "any"]), (2, ["0", "1", "0"])])
def test_each_slot_sees_its_gpu(gpus: int, seen: list[str], script: Path, tmp_path: Path) -> None:
    executor = LocalExecutor(3, gpus=gpus, threads=2)
    try:
        for number, slot in enumerate(list(executor.free_slots())):
            executor.submit(Job(f"job{number}", (str(number),), tmp_path / f"{number}.log", f"agent{number}"), slot)
        assert executor.free_slots() == []
        finished = _finished(executor, 3)
        assert {name: one.exit_code for name, one in finished.items()} == {"job0": 0, "job1": 1, "job2": 2}
        assert [(tmp_path / f"{number}.log").read_text() for number in range(3)] == [f"{gpu} 2" for gpu in seen]
        assert [slot.holds for slot in executor.free_slots()] == ["agent0", "agent1", "agent2"]
    finally:
        executor.close()


def test_a_process_that_dies_says_why_and_its_slot_is_used_again(script: Path, tmp_path: Path) -> None:
    executor = LocalExecutor(1, threads=1)
    try:
        (slot,) = executor.free_slots()
        executor.submit(Job("dies", ("die",), tmp_path / "dies.log"), slot)
        died = _finished(executor, 1)["dies"]
        assert (died.exit_code, died.message) == (1, "no room for the model")
        assert last_error(tmp_path / "dies.log", died.exit_code, died.message) == "no room for the model"
        (slot,) = executor.free_slots()
        executor.submit(Job("next", ("0",), tmp_path / "next.log"), slot)
        assert _finished(executor, 1)["next"].exit_code == 0
    finally:
        executor.close()


def test_processes_that_do_not_end_cost_the_same_time_together(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that compiles hears no signal; who ends a study waits once, not once a process, and nothing stays."""
    monkeypatch.setattr(local_executor, "_PATIENCE", 2.0)
    executor, logs = LocalExecutor(4, threads=1), [tmp_path / f"{number}.log" for number in range(4)]
    for log, slot in zip(logs, list(executor.free_slots()), strict=True):
        executor.submit(Job(log.name, ("compile",), log), slot)
    until = time.monotonic() + 60
    while not all(log.exists() for log in logs) and time.monotonic() < until:
        time.sleep(0.05)
    processes, begun = list(executor._processes.values()), time.monotonic()
    executor.cancel()
    executor.close()
    assert 2.0 <= time.monotonic() - begun < 5.0, "four times two seconds, one after the other, are eight"
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * 4


@pytest.mark.parametrize(
    ("threads", "gpus", "jobs"),
    [(1, 0, 16), (4, 0, 4), (None, 0, 1), (None, 2, 2), (1, 1, 4), (1, 2, 8), (8, 1, 2)],
)
def test_a_gpu_gets_a_few_small_stages(threads: int | None, gpus: int, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen cores do not mean sixteen models on one GPU."""
    monkeypatch.setattr(study, "cores", lambda: 16)
    monkeypatch.setattr(study, "_gpus", lambda: gpus)
    config = parse_study(STUDY, "untrained").model_copy(update={"threads": threads})
    assert usual_jobs(config) == jobs


def test_why_a_stage_failed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_error(log, 3) == "exit code 3"
    log.write_text(
        "$ cotbench run\nerror: of an earlier sitting\n$ cotbench run\nTraceback ...\nModuleNotFoundError: no module\n\n"
    )
    assert last_error(log, 1) == "ModuleNotFoundError: no module"
    log.write_text("$ cotbench run\nerror: no such split\nbye\n")
    assert last_error(log, 2) == "no such split"
    assert last_error(log, -9) == "its process was ended by SIGKILL"
    assert last_error(log, -250) == "its process was ended by signal 250"
