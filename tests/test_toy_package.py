"""A package from outside registers an agent, an environment, a probe and a recipe, and goes through every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import needs_hf

TOY = Path(__file__).resolve().parents[1] / "examples" / "toy_package"
pytestmark = needs_hf


COMMANDS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from cotbench.cli import run_cli
for line in iter(sys.__stdin__.readline, ""):
    words, typed = json.loads(line)
    sys.stdin, out, err = io.StringIO(typed), io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_cli(words)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=sys.__stdout__, flush=True)
"""
"""Carries out one command after the other in one process, which loads the libraries once."""


class Toy:
    """The toy package, installed beside cotbench, and a folder to work in."""

    def __init__(self, folder: Path, site: Path | None) -> None:
        self.folder = folder
        self._environment: Mapping[str, str] = os.environ | ({} if site is None else {"PYTHONPATH": str(site)})
        self._commands: subprocess.Popen[str] | None = None

    def python(self, *arguments: str, text: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=self.folder,
            env=dict(self._environment),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def cotbench(self, *arguments: str, text: str = "") -> str:
        """What a command prints, carried out where all before it were; `text` is typed."""
        if self._commands is None:
            command = [sys.executable, "-P", "-c", COMMANDS]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._commands = subprocess.Popen(command, cwd=self.folder, env=dict(self._environment), text=True, **pipes)
        assert self._commands.stdin is not None and self._commands.stdout is not None
        print(json.dumps([arguments, text]), file=self._commands.stdin, flush=True)
        answer = self._commands.stdout.readline()
        assert answer, "the process has ended"
        code, out, err = json.loads(answer)
        assert code == 0, out + err
        return str(out)

    def close(self) -> None:
        if self._commands is not None:
            self._commands.communicate(timeout=60)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    site = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--target", str(site), "--disable-pip-version-check"]
    options += ["--no-build-isolation"] if find_spec("setuptools") is not None else []
    copy = tmp_path_factory.mktemp("source") / "toy_package"
    subprocess.run(["cp", "-r", str(TOY), str(copy)], check=True)  # Building leaves files beside the sources.
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(copy)], check=True)
    toy = Toy(tmp_path_factory.mktemp("work"), site)
    yield toy
    toy.close()


@pytest.fixture(scope="module")
def played(toy: Toy) -> Path:
    toy.cotbench("run", "--agent", "counter", "--env", "counting", "--workers", "1", "--out", "run")
    return toy.folder / "run"


@pytest.fixture(scope="module")
def traces(toy: Toy) -> Path:
    toy.cotbench("traces", "--teacher", "expert", "--env", "counting", "--out", "traces")
    return toy.folder / "traces"


def test_everything_is_listed(toy: Toy) -> None:
    for kind, name in (("agents", "counter"), ("envs", "counting"), ("probes", "trace-length"), ("recipes", "noise")):
        assert name in toy.cotbench("list", kind)
    assert toy.cotbench("list", "tasks", "--env", "counting", "--split", "ood").split() == [
        "counting/long/7",
        "counting/long/8",
    ]


def test_gymnasium_makes_the_environment(toy: Toy) -> None:
    code = (
        "import gymnasium\n"
        "from gymnasium.utils.env_checker import check_env\n"
        "env = gymnasium.make('toy_package.env:toy/Counting-v0')\n"
        "check_env(env.unwrapped)\n"
        "print(env.reset(options={'task': 'counting/short/3'})[0])\n"
    )
    assert toy.python("-W", "error", "-c", code) == "Your task is to count to 3. Nothing was said yet.\n"


def test_it_is_played_in_worker_processes(played: Path) -> None:
    summary = json.loads((played / "summary.json").read_text())
    assert summary["modes"]["cot"]["success"]["mean"] == 1.0
    assert summary["modes"]["prompt"]["success"]["mean"] == 0.0
    assert all(mode["errors"] == 0 for mode in summary["modes"].values())


def test_a_person_can_play_it(toy: Toy) -> None:
    out = toy.cotbench("play", "--env", "counting", "--task", "counting/short/3", text="?\nsay 1\nsay 2\n!\nsay 3\n")
    assert "say 9" in out
    assert "won after 3 steps" in out


def test_a_teacher_s_traces_are_trained_on(toy: Toy, traces: Path) -> None:
    assert len((traces / "traces.jsonl").read_text().splitlines()) == 2
    out = toy.cotbench(
        "train", "--model", "tiny", "--data", "traces", "--epochs", "1", "--checkpoints", "1", "--threads", "1", "--out", "sft"
    )
    assert "trained" in out
    assert (toy.folder / "sft" / "recipe.json").is_file()


def test_its_recipe_trains(toy: Toy) -> None:
    out = toy.cotbench("train", "--recipe", "noise", "--model", "tiny", "--option", "scale=0.5", "--out", "noisy")
    assert "added noise of scale 0.5" in out
    card = json.loads((toy.folder / "noisy" / "checkpoint-1" / "recipe.json").read_text())
    assert (card["recipe"], card["progress"]) == ("noise", 1.0)


def test_its_probe_measures(toy: Toy, played: Path) -> None:
    out = toy.cotbench("probe", "trace-length", "--agent", "counter", "--reference", "run", "--out", "probe", "--json")
    numbers = json.loads(out)["numbers"]
    assert numbers["states"] == 8  # 3 of one task, 5 of the other.
    assert numbers["estimates"]["words in a trace"]["mean"] == 8.0  # "2 numbers were said, so 3 is next."
    assert numbers["estimates"]["long traces"]["mean"] == 0.0


@pytest.mark.parametrize("splits", ['"id"', pytest.param('"id", "ood"', marks=pytest.mark.slow)])
def test_a_study_takes_all_four_and_its_report_shows_them(toy: Toy, splits: str) -> None:
    study = str(TOY / "toy_package" / "study.toml")
    planned = toy.cotbench("study", study, "--dry-run", "-v")
    assert "--recipe noise" in planned
    whole = Path(study).read_text()
    assert 'counting = ["id", "ood"]' in whole
    (toy.folder / "study.toml").write_text(whole.replace('counting = ["id", "ood"]', f"counting = [{splits}]"))
    out = f"study{len(splits)}"
    toy.cotbench("study", "study.toml", "--out", out, "--jobs", "1")
    numbers = json.loads((toy.folder / out / "numbers.json").read_text())
    sections = {section["title"]: section for section in numbers["sections"]}
    table = next(item for item in sections["Trace-length"]["items"] if item["kind"] == "table")
    assert {row[0] for row in table["rows"]} == {"sft", "noise"}
    against = next(item for item in sections["How the arms differ"]["items"] if item["kind"] == "table")
    assert {row[0] for row in against["rows"]} == {"noise"}
    assert any(sentence.startswith("noise minus sft") for sentence in numbers["answer"])


def test_its_runs_have_a_report(toy: Toy, played: Path) -> None:
    toy.cotbench("report", "run", "--out", "page")
    assert "counting/short/3" in (toy.folder / "page" / "index.html").read_text()


def test_its_runs_are_submitted_and_verified(toy: Toy, played: Path) -> None:
    pytest.importorskip("sqlalchemy")
    entry = json.loads(toy.cotbench("leaderboard", "submit", "run", "--name", "Counter", "--db", "board.sqlite", "--json"))
    assert "replayed" in toy.cotbench("leaderboard", "verify", "--all", "--db", "board.sqlite")
    board = toy.cotbench("leaderboard", "list", "--env", "counting", "--db", "board.sqlite")
    assert entry[0]["id"][:6] in board or "Counter" in board


def test_not_installed_it_is_imported(tmp_path: Path) -> None:
    toy = Toy(tmp_path, None)  # Each command in a process of its own: what one imports, the next one does not know.
    environment, agent = (str(TOY / "toy_package" / f"{name}.py") for name in ("env", "agent"))
    plugins = ["--import", environment, "--import", agent]
    toy.python("-m", "cotbench", "run", "--agent", "counter", "--env", "counting", "--workers", "1", "--out", "run", *plugins)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["modes"]["cot"]["success"]["mean"] == 1.0
    assert "counting" in toy.python("-m", "cotbench", "list", "envs", *plugins)
