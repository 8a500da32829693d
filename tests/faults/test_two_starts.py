"""Two starts on one `--out` at the same moment: exactly one goes through, the other says so in a line and changes nothing, and
the folder holds the result of one.

The starts are real processes: forks of one that has loaded what they need and waits, so that they begin together.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cotbench.child_process import python_command
from tests.conftest import needs_hf
from tests.house import ROOT

_STARTER = """
import os, sys, json
from cotbench.cli import run_cli
import cotbench.runs.runner, cotbench.cli.playing, cotbench.probes.folder, cotbench.judge.folder
for module in json.loads(sys.argv[1]):
    __import__(module)
print("ready", flush=True)
for line in sys.stdin:
    starts = json.loads(line)
    go_out, go_in = os.pipe()
    children = []
    for number, words in enumerate(starts["words"]):
        pid = os.fork()
        if pid == 0:
            os.close(go_in)
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{starts['log']}.{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.read(go_out, 1)
            code = 70
            try:
                code = run_cli(words)
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(pid)
    os.close(go_out)
    os.close(go_in)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]), flush=True)
"""


class Starter:
    """Starts command lines together.

    Args:
        folder: for the output of the commands.
        modules: what is loaded before.
    """

    def __init__(self, folder: Path, modules: Sequence[str] = ()) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _STARTER, json.dumps(list(modules))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def __call__(self, *words: list[str]) -> list[tuple[int, str]]:
        """Return exit code and error output of each command line."""
        assert self._process.stdin is not None and self._process.stdout is not None
        log = self.folder / "log"
        self._process.stdin.write(json.dumps({"words": words, "log": str(log)}) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        return [(code, Path(f"{log}.{number}.err").read_text("utf-8")) for number, code in enumerate(codes)]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Starter:
    started = Starter(tmp_path_factory.mktemp("starts"))
    yield started  # type: ignore[misc]
    started.close()


@pytest.fixture(scope="module")
def recorded(starter: Starter) -> Path:
    """A run whose traces change actions, for probes and judges."""
    folder = starter.folder / "recorded"
    words = ["run", "--agent", "scripted?slips=0.5", "--mode", "both", "--limit", "2", "--workers", "0", "--out", str(folder)]
    ((code, err),) = starter(words)
    assert code == 0, err
    return folder


SMALL = ("--limit", "1", "--max-steps", "3", "--workers", "0")
Words = Callable[[int, Path, Path], list[str]]


def _run(number: int, out: Path, recorded: Path) -> list[str]:
    return ["run", "--agent", "random", "--seed", str(number), *SMALL, "--out", str(out)]


def _suite(number: int, out: Path, recorded: Path) -> list[str]:
    return ["run", "--agent", "random", "--env", "alfworld-gen,bfcl", "--seed", str(number), *SMALL, "--out", str(out)]


def _traces(number: int, out: Path, recorded: Path) -> list[str]:
    return ["traces", "--seed", str(number), "--limit", "1", "--workers", "0", "--out", str(out)]


def _probe(number: int, out: Path, recorded: Path) -> list[str]:
    words = ["probe", "alignment", "--agent", "scripted", "--reference", str(recorded), "--states", "2"]
    return [*words, "--seed", str(number), "--out", str(out)]


def _judge(number: int, out: Path, recorded: Path) -> list[str]:
    return ["judge", str(recorded), "--agent", "random", "--out", str(out)]


KINDS: dict[str, tuple[Words, str]] = {
    "run": (_run, "manifest.json"),
    "suite": (_suite, "suite.json"),
    "traces": (_traces, "manifest.json"),
    "probe": (_probe, "probe_config.json"),
    "judge": (_judge, "manifest.json"),
}


def _check(kind: str, out: Path, outcomes: Sequence[tuple[int, str]]) -> None:
    """One has won; the other has said in one line why not."""
    codes = [code for code, _ in outcomes]
    assert codes.count(0) == 1, outcomes
    ((_, said),) = [one for one in outcomes if one[0] != 0]
    assert "Traceback" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert said.splitlines()[-1] == error
    assert f"{out} is in use by another cotbench {'run' if kind == 'suite' else kind}: wait for it" in error or (
        f"{out} is not empty; " in error
    ), error


def _seeds(folder: Path) -> set[int]:
    """The seeds that the files of a folder are of: of its configs, and of its episodes by the tasks that are drawn."""
    found = set()
    for path in [*folder.rglob("manifest.json"), *folder.rglob("suite.json"), *folder.rglob("probe_config.json")]:
        value = json.loads(path.read_text("utf-8"))
        for one in value if isinstance(value, list) else [value]:
            seed = one.get("config", one).get("seed")
            found |= {seed} if seed is not None else set()
        for episodes in path.parent.glob("episodes.jsonl"):
            played = {json.loads(line)["task"] for line in episodes.read_text("utf-8").splitlines()}
            assert played == set(value["task_list"])
    return found


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_one_of_two_starts_goes_through(starter: Starter, recorded: Path, tmp_path: Path, kind: str, rounds: int) -> None:
    words, manifest = KINDS[kind]
    for turn in range(rounds):
        out = tmp_path / f"out{turn}"
        outcomes = starter(words(2 * turn, out, recorded), words(2 * turn + 1, out, recorded))
        _check(kind, out, outcomes)
        won = next(number for number, (code, _) in enumerate(outcomes) if code == 0)
        assert (out / manifest).is_file()
        if kind == "judge":  # Its commands are equal: there is one result, and not half of two.
            rows = [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]
            keys = {(row["task"], row["step"]) for row in rows}
            assert len(keys) == len(rows) > 0 and (out / "probe.json").is_file()
        else:
            assert _seeds(out) == {2 * turn + won}, "all files are of the one that went through"


@pytest.mark.slow
@needs_hf
@pytest.mark.parametrize("rounds", [4])
def test_one_of_two_trainings_goes_through(tmp_path: Path, starter: Starter, rounds: int) -> None:
    """In new processes: torch is not forked."""
    traces = tmp_path / "traces"
    ((code, err),) = starter(_traces(0, traces, tmp_path))
    assert code == 0, err
    for turn in range(rounds):
        out = tmp_path / f"out{turn}"
        words = ["train", "--model", "tiny", "--data", str(traces), "--epochs", "1", "--checkpoints", "1", "--device", "cpu"]
        commands = [python_command("cotbench", *words, "--seed", str(number), "--out", str(out)) for number in (0, 1)]
        started = [subprocess.Popen(one, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for one in commands]
        outcomes = [(one.wait(600), (one.stderr.read() if one.stderr else "")) for one in started]
        _check("train", out, outcomes)
        won = next(number for number, (code, _) in enumerate(outcomes) if code == 0)
        assert json.loads((out / "training.json").read_text("utf-8"))["config"]["seed"] == won
        assert json.loads((out / "recipe.json").read_text("utf-8"))["config"]["seed"] == won


def test_one_of_two_studies_holds_the_folder(tmp_path: Path, starter: Starter) -> None:
    """The lock is held while the settings are written; both studies would take minutes."""
    from cotbench.errors import RunFolderError
    from cotbench.study import folder

    with folder.only_one(tmp_path / "study"):
        for number in range(2):
            toml = tmp_path / f"study{number}.toml"
            toml.write_text((ROOT / "cotbench" / "study" / "presets" / "smoke.toml").read_text("utf-8"), "utf-8")
        names = [str(tmp_path / f"study{number}.toml") for number in (0, 1)]
        outcomes = starter(*(["study", name, "--out", str(tmp_path / "study")] for name in names))
        for code, said in outcomes:
            assert code != 0 and f"{tmp_path / 'study'} is in use by another cotbench study: wait for it" in said
        assert not (tmp_path / "study" / "study.json").exists()
        with pytest.raises(RunFolderError), folder.only_one(tmp_path / "study"):
            pass
