"""Commands and scripts in fresh processes: whatever the current directory holds, and however the user's code is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import needs_bfcl, needs_scienceworld

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import pathlib
import sys

import cotbench

config = cotbench.RunConfig(agent="random", env="alfworld-gen", episodes=2, max_steps=3)
outcome = cotbench.run(config, workers=1, out=pathlib.Path(sys.argv[1]))
print("played", sum(episode.error is None for episode in outcome.records))
"""


def _python(*arguments: str, cwd: Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    # A checkout's `cotbench/` shadows what is installed, for the user's own process too: there, -P is for the user to give.
    command = [sys.executable, "-P", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command, cwd=cwd, input=given, capture_output=True, text=True, check=False, timeout=300, env=environment
    )


@pytest.fixture(params=["checkout", pytest.param("unrelated", marks=pytest.mark.slow), "shadowing"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where commands are started: from a checkout, from an empty folder, and, which is harder, from one that
    has names of ours.
    """
    if request.param == "checkout":
        return ROOT
    folder = tmp_path / request.param
    folder.mkdir()
    if request.param == "shadowing":
        for name in ("cotbench", "gymnasium", "queue"):
            (folder / f"{name}.py").write_text("raise RuntimeError('imported from the current directory')\n")
    return folder


def _played(run: Path) -> list[str | None]:
    return [json.loads(line)["error"] for line in (run / "episodes.jsonl").read_text().splitlines()]


def test_a_command(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = _python(
        *("-m", "cotbench", "run", "--env", "alfworld-gen", "--agent", "random", "--episodes", "2"),
        *("--max-steps", "3", "--workers", "1", "--out", str(run)),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert _played(run) == [None] * 4


def test_a_script_without_a_guard(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = _python(str(script), str(tmp_path / "run"), cwd=place)
    assert (done.stdout, done.stderr) == ("played 4\n", "")


def test_standard_input(place: Path, tmp_path: Path) -> None:
    done = _python("-", str(tmp_path / "run"), cwd=place, given=SCRIPT)
    assert (done.stdout, done.stderr) == ("played 4\n", "")


@pytest.mark.parametrize(
    "env",
    [pytest.param("bfcl", marks=needs_bfcl), pytest.param("scienceworld", marks=[needs_scienceworld, pytest.mark.slow])],
)
def test_an_engine_with_a_process_of_its_own(tmp_path: Path, env: str) -> None:
    run = tmp_path / "run"
    done = _python(
        *("-m", "cotbench", "run", "--env", env, "--agent", "random", "--episodes", "1", "--mode", "prompt"),
        *("--max-steps", "2", "--workers", "1", "--out", str(run)),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert _played(run) == [None]


def test_a_worker_of_a_study(place: Path, tmp_path: Path) -> None:
    from cotbench.child_process import python_command
    from cotbench.study.local_executor import WORKER

    log = tmp_path / "log"
    done = subprocess.run(
        python_command(WORKER, str(os.getpid())),
        input=json.dumps({"arguments": ["--version"], "log": str(log)}) + "\n",
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert log.read_text().splitlines()[0] == "$ cotbench --version"


def test_workers_import_what_their_parent_has_imported(tmp_path: Path) -> None:
    plugin = tmp_path / "my_env.py"
    plugin.write_text("import os, pathlib\npathlib.Path(__file__).with_name(f'imported-{os.getpid()}').touch()\n")
    done = _python(
        *("-m", "cotbench", "run", "--import", "my_env.py", "--env", "alfworld-gen", "--agent", "random", "--episodes", "2"),
        *("--max-steps", "2", "--workers", "2", "--out", "run"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert _played(tmp_path / "run") == [None] * 4
    assert len(list(tmp_path.glob("imported-*"))) == 3, "once here, once in each worker"
