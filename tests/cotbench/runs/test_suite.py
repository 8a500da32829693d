"""Runs on several environments, and the numbers that only they have."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_bfcl


def _cotbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", "cotbench", *arguments], capture_output=True, text=True, check=False)


@needs_bfcl
def test_a_suite_is_one_table_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    out = tmp_path / "suite"
    asked = ("--agent", "expert", "--env", "alfworld-gen,bfcl", "--episodes", "2", "--mode", "both", "--out", str(out))
    done = _cotbench("run", *asked)
    assert done.returncode == 0, done.stderr
    for row in ("alfworld-gen", "bfcl", "mean"):
        assert any(line.split()[:1] == [row] and "1.00 [" in line for line in done.stdout.splitlines()), done.stdout
    whole = json.loads((out / "summary.json").read_text())
    assert whole["success"]["cot"]["mean"] == 1.0 and whole["success"]["cot"]["n"] == 4
    again = _cotbench("run", *asked)
    assert again.returncode == 2 and f"--resume {out}" in again.stderr
    shutil.rmtree(out / "bfcl")
    (out / "summary.json").unlink()
    finished = (out / "alfworld-gen" / "episodes.jsonl").read_bytes()
    resumed = _cotbench("run", "--resume", str(out), "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert (out / "alfworld-gen" / "episodes.jsonl").read_bytes() == finished
    now = json.loads(resumed.stdout)
    assert now["success"] == whole["success"] and list(now["runs"]) == ["alfworld-gen", "bfcl"]
    other = _cotbench("run", "--resume", str(out), "--seed", "3")
    assert other.returncode == 2 and "seed" in other.stderr


def test_what_a_suite_cannot_do_is_said() -> None:
    for arguments, message in (
        (("--env", "alfworld-gen,bfcI"), "did you mean 'bfcl'"),
        (("--env", ","), "names no environment"),
        (("--env", "alfworld-gen,bfcl", "--task", "x"), "--task names tasks of one environment"),
    ):
        done = _cotbench("run", "--agent", "random", *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr


@needs_bfcl
def test_a_dry_run_of_all_lists_three_plans() -> None:
    pytest.importorskip("scienceworld")
    done = _cotbench("run", "--agent", "random", "--env", "all", "--episodes", "2", "--dry-run", "--json")
    assert [plan["config"]["env"] for plan in json.loads(done.stdout)] == ["alfworld-gen", "scienceworld", "bfcl"]


@needs_bfcl
def test_tasks_that_nobody_can_pass_are_shown_apart(tmp_path: Path) -> None:
    tasks = ("bfcl/simple_java_36", "bfcl/simple_python_0", "bfcl/simple_python_1")
    mode = run(RunConfig(agent="expert", env="bfcl", tasks=tasks, mode="prompt"), out=tmp_path / "run").summary.modes["prompt"]
    assert mode.success.mean == pytest.approx(2 / 3)
    assert mode.passable_success is not None and (mode.passable_success.n, mode.passable_success.mean) == (2, 1.0)
    assert {name: one.mean for name, one in mode.by_type.items()} == {"simple_java": 0.0, "simple_python": 1.0}
    assert mode.macro_success is not None and mode.macro_success.mean == 0.5


@needs_bfcl
def test_long_observations_are_counted_and_functions_recorded(tmp_path: Path) -> None:
    config = RunConfig(agent="expert", env="bfcl", tasks=("bfcl/multi_turn_long_context_2",), mode="prompt")
    assert config.elicitation == Elicitation.for_env("bfcl") and not config.elicitation.one_line
    outcome = run(config, out=tmp_path / "one")
    (episode,) = outcome.records
    longest = max(len(step.observation) for step in episode.trajectory[:-1])
    assert '"name": "ls"' in episode.functions and episode.restarts == 0
    short = config.model_copy(update={"elicitation": Elicitation.for_env("bfcl", observation_chars=longest - 1)})
    assert run(short, out=tmp_path / "two").summary.modes["prompt"].cut_observations == 1
    whole = config.model_copy(update={"elicitation": Elicitation.for_env("bfcl", observation_chars=longest)})
    assert run(whole, out=tmp_path / "three").summary.modes["prompt"].cut_observations == 0
