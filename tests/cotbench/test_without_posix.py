"""A system without what only POSIX has, as Windows is: results are read there; writing is refused in one line."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cotbench.cli import run_cli
from tests import house
from tests.cotbench.report.pages import needs_report

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
NAMES = {
    "os": "fork forkpty killpg getuid geteuid getpgid setsid sched_getaffinity sysconf O_CLOEXEC",
    "signal": "SIGALRM SIGHUP SIGKILL SIGPROF SIGQUIT ITIMER_PROF alarm pthread_sigmask setitimer sigwait",
}
"""What another system may lack. The standard library itself needs some of POSIX here (`posix`, `select`, `os.uname`)."""

CODE = f"""
import json, os, signal, sys
for name in {MODULES!r}:
    sys.modules[name] = None
for module, names in ((os, {NAMES["os"]!r}), (signal, {NAMES["signal"]!r})):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
from cotbench.cli import run_cli
for words in json.loads(sys.argv[1]):
    print(json.dumps([words, run_cli(words)]), file=sys.stderr)
import cotbench
for folder in ("first", "second"):
    assert len(cotbench.load_run(folder).records) == 4
"""


def test_no_module_needs_posix_to_be_imported() -> None:
    imported = {name: house.imports(path, in_functions=False) for name, path in house.modules().items()}
    assert {name: sorted(found) for name, targets in imported.items() if (found := targets & set(MODULES))} == {}


@needs_report
@pytest.mark.slow
@pytest.mark.ci
def test_results_are_read_and_writing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for agent, out in (("random", "first"), ("expert", "second")):
        assert run_cli(["run", "--agent", agent, "--episodes", "2", "--max-steps", "3", "--out", out]) == 0
    reading = [
        *(["list", what] for what in ("envs", "agents", "recipes", "probes")),
        *(["list", "tasks", "--env", env, "--split", "id"] for env in ("alfworld-gen", "scienceworld")),
        *(["doctor"], ["data", "list"], ["compare", "first", "second"], ["report", "first", "--out", "page"]),
        ["run", "--agent", "random", "--episodes", "2", "--dry-run"],
    ]
    if find_spec("sqlalchemy") is not None:
        reading.append(["leaderboard", "list", "--db", "board.sqlite"])
    writing = [
        ["run", "--agent", "random", "--episodes", "1", "--workers", "0", "--out", "new"],
        ["run", "--resume", "first"],
        ["traces", "--episodes", "1", "--workers", "0", "--out", "new"],
        ["probe", "alignment", "--agent", "random", "--reference", "second", "--out", "new"],
    ]
    before = {path: path.read_bytes() for path in Path("first").iterdir()}
    command = [sys.executable, "-P", "-c", CODE, json.dumps(reading + writing)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("loading ")]
    results = [line for line in lines if line.startswith("[")]
    assert [json.loads(line) for line in results] == [*([words, 0] for words in reading), *([words, 2] for words in writing)]
    errors = [line for line in lines if line not in results]
    folders = ("new", "first", "new", "new")
    said = "this system has no file locks; use Linux or macOS, on Windows WSL"
    assert errors == [f"error: cannot lock {Path(folder, '.lock')}: {said}" for folder in folders]
    assert not Path("new").exists()
    assert {path: path.read_bytes() for path in Path("first").iterdir()} == before
