"""What is killed or stopped for real: no wait is without an end, no result another than the undisturbed one, and nothing is
left behind.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cotbench import child_process
from cotbench.child_process import ChildProcess, Patience
from cotbench.errors import EngineError
from cotbench.failure import INFRASTRUCTURE
from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.verification import budget, replay_processes
from cotbench.leaderboard.verification.verify import verify_bundle
from cotbench.runs import env_workers
from cotbench.runs.episode import Episode
from cotbench.runs.manifest import RunConfig
from cotbench.runs.results import Run
from cotbench.runs.rollout import RolloutSpec
from cotbench.runs.runner import run
from tests.conftest import needs_bfcl, needs_hf, needs_openai, needs_scienceworld
from tests.processes import alive, descendants, seconds_until_gone

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")

GAMES = ("alfworld/gen/pick/17", "alfworld/gen/pick/18")
WORKER, JAVA, EXECUTOR = "cotbench.child_main", "py4j.GatewayServer", "cotbench.envs.bfcl"


class Fault:
    """An observer that sends a signal to the processes with a word in their command line, once, after some actions."""

    def __init__(self, word: str, number: int, step: int = 3, times: int = 1) -> None:
        self.word, self.number, self.step, self.left = word, number, step, times
        self.hit: list[int] = []

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        if self.left and step == self.step:
            self.left -= 1
            victims = descendants(word=self.word)
            for pid in victims:
                os.kill(pid, self.number)
            self.hit += victims

    def finished(self, episode: Episode) -> None: ...


def _same(one: Run, other: Run) -> bool:
    """Whether two runs have the same episodes, but for the time and how often something was lost."""
    changes = {"seconds": 0.0, "restarts": 0}
    first, second = ([episode.model_copy(update=changes) for episode in run.records] for run in (one, other))
    return first == second


def _random_run(out: Path, **more: Any) -> Run:
    observer = more.pop("observer", None)
    config = RunConfig(**{"agent": "random", "tasks": GAMES, "mode": "prompt", "max_steps": 8, **more})
    return run(config, out=out, workers=1, num_envs=2, observer=observer)


# A worker process


# One that is stopped, by default: below.
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_lost_worker_costs_no_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(env_workers, "REPLY_SECONDS", 3.0)
    fault = Fault(WORKER, number)
    disturbed = _random_run(tmp_path / "disturbed", observer=fault)
    assert len(fault.hit) == 1 and not any(map(alive, fault.hit)) and not descendants(word=WORKER)
    assert [episode.error for episode in disturbed.records] == [None, None]
    assert all(episode.restarts == 1 for episode in disturbed.records), "both were in that process"
    assert disturbed.summary.modes["prompt"].restarts == 2
    assert _same(disturbed, _random_run(tmp_path / "undisturbed"))


def test_a_worker_lost_again_is_an_error_of_its_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_workers, "REPLY_SECONDS", 2.0)
    outcome = _random_run(tmp_path, tasks=GAMES[:1], observer=Fault(WORKER, signal.SIGSTOP, times=2))
    (episode,) = outcome.records
    assert episode.error == "the process of environment alfworld-gen did not answer within 2 s"
    assert episode.error_kind == INFRASTRUCTURE and not descendants(word=WORKER)


def test_a_worker_stopped_in_the_middle_of_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "STALL_SECONDS", 0.5)
    child = ChildProcess(_reply_half)
    (pipe,) = child.pipes
    assert pipe.poll(60)
    begun = time.monotonic()
    with pytest.raises(OSError):
        pipe.recv_bytes()
    with pytest.raises(OSError):  # Nor does it read.
        pipe.send_bytes(bytes(10_000_000))
    assert time.monotonic() - begun < 30
    assert child.ending() == "does not answer"
    child.close()


def _reply_half(pipes: Any) -> None:
    os.write(pipes[0].fileno(), b"\0\0\1\0abc")  # Of 256 bytes.
    os.kill(os.getpid(), signal.SIGSTOP)


def test_time_in_which_the_waiting_process_was_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(child_process.time, "monotonic", lambda: clock[0])
    patience = Patience(20.0)
    for wait in (1.0, 3600.0, 1.0):  # Ctrl-Z, an hour, fg.
        clock[0] += wait
        assert not patience.spent()
    for _ in range(13):
        clock[0] += 1.0
    assert not patience.spent()
    while not patience.spent():
        clock[0] += 1.0
    assert clock[0] < 3750


# The process that verifies


def test_a_stopped_verifying_process_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "START_SECONDS", 4.0)
    monkeypatch.setattr(replay_processes, "REPLY_SECONDS", 1.0)
    outcome = run(RunConfig(agent="random", episodes=6, max_steps=5), out=tmp_path / "run")
    stopped: list[int] = []

    def stop_one(done: int, of: int) -> None:
        if not stopped:
            stopped.append(descendants(word=WORKER)[0])
            os.kill(stopped[0], signal.SIGSTOP)

    bundle = Bundle.of(Details(name="Mine"), outcome.manifest, outcome.records)
    assert verify_bundle(bundle, jobs=2, progress=stop_one).difference is None
    assert stopped and not alive(stopped[0])


# Java


def _fake_java(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "bin" / "java"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(folder))


@needs_scienceworld
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exec sleep 100", "it printed no port within 0.5 s"),
        ("kill -STOP $$", "it printed no port within 0.5 s"),
        ("printf 123; exec sleep 100", "it printed no port within 0.5 s"),
        ("echo ready; exec sleep 100", r"it printed b'ready\\n' in the place of its port"),
        ("echo 'no such option' >&2; exit 3", r"it ended \(exit code 3\): no such option"),
        ("yes | tr -d '\\n'", "it printed b'y+' in the place of its port"),
    ],
)
def test_a_java_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    from cotbench.envs.scienceworld import java
    from cotbench.envs.scienceworld.env import ScienceWorldEnv

    monkeypatch.setattr(java, "START_SECONDS", 0.5 if "no port" in message else 60.0)
    _fake_java(tmp_path, monkeypatch, script)
    begun = time.monotonic()
    with pytest.raises(EngineError, match=f"ScienceWorld's Java does not start: {message}"):
        ScienceWorldEnv().reset(options={"task": "scienceworld/boil/22"})
    assert time.monotonic() - begun < 30
    assert not [pid for pid in descendants() if "java" in Path(f"/proc/{pid}/cmdline").read_text()]


@needs_scienceworld
def test_a_java_that_is_lost_at_its_first_start_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.envs.scienceworld.env import ScienceWorldEnv
    from cotbench.envs.scienceworld.java import java_path

    _fake_java(
        tmp_path, monkeypatch, f'test -e {tmp_path}/tried || {{ touch {tmp_path}/tried; kill -9 $$; }}\nexec {java_path()} "$@"'
    )
    env = ScienceWorldEnv()
    try:
        assert env.reset(options={"task": "scienceworld/boil/22"})[0]
        assert (tmp_path / "tried").exists()
    finally:
        env.close()


SCIENCE = {"env": "scienceworld", "tasks": ("scienceworld/find-plant/255",), "max_steps": 6}


@needs_scienceworld
@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("victim", ["the command", "its worker"])
def test_all_processes_end_with_the_one_that_is_killed(tmp_path: Path, victim: str, rounds: int) -> None:
    words = ["run", "--agent", "random", "--env", "scienceworld", "--split", "train", "--workers", "1", "--episodes", "40"]
    longest = 0.0
    for number in range(rounds):
        process = subprocess.Popen([*_COTBENCH, *words, "--out", str(tmp_path / str(number))], stderr=subprocess.DEVNULL)
        _until(lambda: process.poll() is not None or descendants(process.pid, JAVA))  # noqa: B023
        time.sleep(random.Random(number).uniform(0, 2 if rounds > 1 else 0.5))
        below = descendants(process.pid)
        worker = descendants(process.pid, WORKER)
        killed = process.pid if victim == "the command" else worker[0]
        ending = below if victim == "the command" else [*worker, *descendants(worker[0])]
        os.kill(killed, signal.SIGKILL)
        longest = max(longest, seconds_until_gone(ending))
        process.kill()
        process.wait()
        assert seconds_until_gone(below) < 5
    print(f"{victim} killed {rounds} times: all gone within {longest:.2f} s")
    assert longest < 2


@needs_scienceworld
@pytest.mark.slow
@pytest.mark.parametrize(("word", "number"), [(WORKER, signal.SIGKILL), (WORKER, signal.SIGSTOP), (JAVA, signal.SIGKILL)])
def test_a_science_run_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, number: int) -> None:
    monkeypatch.setattr(env_workers, "REPLY_SECONDS", 60.0)
    fault = Fault(word, number)
    disturbed = _random_run(tmp_path / "disturbed", **SCIENCE, observer=fault)
    assert fault.hit and not descendants(word=JAVA) and not descendants(word=WORKER)
    assert [(episode.error, episode.restarts) for episode in disturbed.records] == [(None, 1)]
    assert _same(disturbed, _random_run(tmp_path / "undisturbed", **SCIENCE))


# The executor of calls


@needs_bfcl
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_run_survives_a_lost_executor(tmp_path: Path, number: int) -> None:
    tasks = ("bfcl/multi_turn_base_12", "bfcl/multi_turn_base_30")
    calls = {"env": "bfcl", "tasks": tasks, "agent": "expert", "max_steps": None}
    fault = Fault(EXECUTOR, number, step=2)
    disturbed = _random_run(tmp_path / "disturbed", **calls, observer=fault)
    assert fault.hit and not any(map(alive, fault.hit))
    assert [episode.error for episode in disturbed.records] == [None, None]
    assert _same(disturbed, _random_run(tmp_path / "undisturbed", **calls))


# A study's process


def test_a_stage_whose_process_is_killed_is_begun_again_once() -> None:
    from cotbench.study.executor import Finished, Job
    from cotbench.study.scheduler import _Work

    class Watch:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    def stage() -> Any:
        return type("Stage", (), {"name": "run/id", "uses": (), "trained": False, "folder": "run/id"})()

    work = object.__new__(_Work)
    one = stage()
    for name, value in {"study": Path(), "plan": None, "observer": Watch(), "todo": [], "missing": {one.name}}.items():
        setattr(work, name, value)
    work.lost, work.again, work.failures = set(), set(), []
    killed = Finished(Job(one.name, (), Path("log")), -signal.SIGKILL)
    work.running = {one.name: (one, 0.0)}
    work.end(killed)
    assert work.todo == [one] and not work.failures
    work.todo, work.running = [], {one.name: (one, 0.0)}
    work.end(killed)
    assert work.todo == [] and [failure.message for failure in work.failures] == ["its process was ended by SIGKILL"]


# The command itself

_COTBENCH = [sys.executable, "-P", "-m", "cotbench"]


def _until(holds: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.01)


def _run_words(agent: str, kills: int) -> list[str]:
    if agent == "random":
        size = ["--episodes", "30", "--max-steps", "30"] if kills > 2 else ["--episodes", "12", "--max-steps", "20"]
        return ["run", "--agent", agent, *size, "--seed", "3"]
    return ["run", "--agent", agent, "--episodes", "12", "--max-steps", "12", "--trace-tokens", "16", "--seed", "3"]


def _untimed(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds") >= 0
        del row["sha256"]
    return rows


@pytest.mark.parametrize(
    ("agent", "kills"),
    [
        ("random", 2),
        pytest.param("random", 30, marks=pytest.mark.slow),
        pytest.param("hf:tiny", 100, marks=[pytest.mark.slow, needs_hf]),
    ],
)
def test_killed_at_random_moments_and_resumed_it_is_the_same_run(tmp_path: Path, agent: str, kills: int) -> None:
    words = _run_words(agent, kills)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run([*_COTBENCH, *words, "--out", str(undisturbed)], check=True, capture_output=True)
    rng, done = random.Random(20), 0
    while done < kills:
        resumed = ["--resume"] if (killed / "manifest.json").exists() else []
        process = subprocess.Popen(
            [*_COTBENCH, *words, "--out", str(killed), *resumed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # At some moment: in the middle of a line, a step, the start of a game or of the program, the last rewrite.
        journal = killed / "episodes.jsonl"
        before, wanted = _lines(journal), rng.randint(0, (25 if kills > 2 else 9) if agent == "random" else 2)
        while process.poll() is None and _lines(journal) < before + wanted:
            time.sleep(rng.uniform(0.001, 0.02))
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:  # It was faster.
            assert _untimed(killed) == _untimed(undisturbed)
            for path in sorted(killed.iterdir()):
                path.unlink()
            continue
        done += 1
        if done % 2 == 0 and journal.exists():
            with journal.open("a") as file:
                file.write('{"task": "torn')
    ended = subprocess.run([*_COTBENCH, *words, "--out", str(killed), "--resume"], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert _untimed(killed) == _untimed(undisturbed)
    assert (killed / "summary.json").read_text() == (undisturbed / "summary.json").read_text()
    assert not [path.name for path in killed.iterdir() if path.name.startswith((".episodes", ".summary"))]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("limits", [(3_000, 40_000), pytest.param(range(1_000, 60_000, 4_000), marks=pytest.mark.slow)])
def test_a_disk_that_is_full_costs_nothing_that_was_played(tmp_path: Path, limits: Any) -> None:
    """No file may become larger than the limit, as on a disk without room: in the middle of a line too."""
    words = ["run", "--agent", "random", "--episodes", "6", "--max-steps", "20", "--seed", "3"]
    subprocess.run([*_COTBENCH, *words, "--out", str(tmp_path / "undisturbed")], check=True, capture_output=True)
    for limit in limits:
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
        code = f"{limited}; from cotbench.cli import main; main()"
        out = tmp_path / str(limit)
        full = subprocess.run(
            [sys.executable, "-P", "-c", code, *words, "--out", str(out)], check=False, capture_output=True, text=True
        )
        assert full.returncode in (1, 2) and "Traceback" not in full.stderr, full.stderr
        assert full.stderr.splitlines()[-1].startswith("error: ")
        resumed = ["--resume"] if (out / "manifest.json").exists() else []
        subprocess.run([*_COTBENCH, *words, "--out", str(out), *resumed], check=True, capture_output=True)
        assert _untimed(out) == _untimed(tmp_path / "undisturbed"), limit


# A server


@pytest.fixture
def slow_server() -> Iterator[Callable[[bytes, list[bytes], float], str]]:
    """Starts a server that answers each request with a head and then the pieces of a body, with a pause before each."""
    import socket
    import threading

    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def start(head: bytes, pieces: list[bytes], pause: float) -> str:
        def serve() -> None:
            while not over.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.recv(1 << 16)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + head + b"\r\n")
                    for piece in pieces:
                        if over.wait(pause):
                            return
                        connection.sendall(piece)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

    yield start
    over.set()
    listening.close()


@needs_openai
@pytest.mark.parametrize(
    ("head", "pieces", "pause", "message"),
    [
        (b"", [b" "] * 10_000, 0.05, "did not answer within 1 s"),
        (b"", [b"x" * (1 << 20)] * 4_000, 0.0, "a body of more than 16,777,216 bytes"),
        (b"Content-Encoding: gzip\r\n", [b"x"], 0.0, "a compressed body, which was not asked for"),
    ],
)
def test_a_server_s_answer_takes_bounded_time_and_memory(
    slow_server: Any, head: bytes, pieces: list[bytes], pause: float, message: str
) -> None:
    from cotbench.agents.openai.connection import Connection, ServerError

    connection = Connection(slow_server(head, pieces, pause), None, timeout=1.0, retries=0)
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ServerError, match=message):
        connection.ask("chat/completions", {"model": "m", "messages": []})
    assert time.monotonic() - begun < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB"
