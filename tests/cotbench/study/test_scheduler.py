"""Doing a study: killed on the way, failing stages, changed options. The commands are real; the study is very small."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cotbench.cli import run_cli
from cotbench.errors import RunFolderError, UsageError
from cotbench.probes.folder import read_probe
from cotbench.report.typography import typeset
from cotbench.study.config import StudyConfig, parse_study
from cotbench.study.data import StudyCell, read_data
from cotbench.study.folder import checkpoint, command_of, folder_of, is_done
from cotbench.study.plan import make_study_plan
from cotbench.study.report import page_of_study
from tests.conftest import needs_hf
from tests.cotbench.report.pages import Read, needs_report
from tests.cotbench.study.inline import inline_executor

MINI = """
name = "mini"
models = ["tiny"]
checkpoints = [0.0, 0.5, 1.0]
threads = 1
[envs]
alfworld-gen = ["id"]
[elicitation]
trace_tokens = 12
[traces]
episodes = 12
[train]
preset = "tiny"
epochs = 1.0
[[arms]]
name = "sft"
[[runs]]
episodes = 2
max_steps = 3
checkpoints = [1.0]
[[probes]]
probe = "alignment"
states = 4
options = { scores = false }
[[probes]]
probe = "conflict"
states = 4
options = { truncations = [1.0] }
"""

pytestmark = [needs_hf, needs_report]


def _write(folder: Path, text: str = MINI) -> Path:
    path = folder / "mini.toml"
    path.write_text(text)
    return path


def _start(study: Path, out: Path) -> subprocess.Popen[bytes]:
    # What is started in the background of a shell has inherited that Ctrl-C is ignored: here it is not.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cotbench.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "study", str(study), "--out", str(out), "--jobs", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def _numbers(out: Path) -> str:
    return (out / "numbers.json").read_text()


def _config(text: str = MINI) -> StudyConfig:
    return parse_study(text, "mini")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was never disturbed. In processes of its own: the slow tests below, and tests/test_toy_package.py."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cotbench.api.study._executor", inline_executor)
        assert run_cli(["study", str(_write(folder)), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_a_study_ends_with_its_report(done: Path) -> None:
    assert all(is_done(done, stage) for stage in make_study_plan(_config()).stages)
    numbers = json.loads(_numbers(done))
    titles = [section["title"] for section in numbers["sections"]]
    assert "What training does to both actions" in titles and "A conflicting trace" in titles
    shown = " ".join(Read((done / "report" / "index.html").read_text()).text.split())
    assert len(numbers["answer"]) == 2, "the gap, and the conflict"
    for text in (*numbers["answer"], *titles):
        assert " ".join(typeset(text).split()) in shown


def test_its_numbers_are_those_of_its_probes(done: Path) -> None:
    data = read_data(done)
    plan = make_study_plan(_config())
    cell = StudyCell("alfworld-gen", "tiny", "sft", "id")
    for share in (0.0, 0.5, 1.0):
        found = data.numbers(cell, 0, share)
        stage = next(one for one in plan.of_kind("probe") if one.place.probe == "alignment" and one.place.progress == share)
        alone = read_probe(folder_of(done, stage))
        rows = [row for row in alone.rows if row.error is None]
        assert found.states == len(rows) == 4
        assert found.estimates["cot exact"].mean == pytest.approx(sum(row.cot_match for row in rows) / 4)


@pytest.mark.slow
def test_interrupted_and_killed_it_ends_with_the_same_numbers(done: Path, tmp_path: Path) -> None:
    study, out = _write(tmp_path), tmp_path / "out"
    process = _start(study, out)
    _wait_for_marks(process, out, 1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"resume with: cotbench study --resume {out}" in err.decode()
    assert "Traceback" not in err.decode()
    process = _start(study, out)
    _wait_for_marks(process, out, 4)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)  # In the middle of what measures the training.
    process.communicate()
    process = _start(study, out)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err.decode()
    assert b"are done already" in err
    assert _numbers(out) == _numbers(done)


def _wait_for_marks(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    deadline = time.monotonic() + 600
    while len(list((out / "done").glob("*.json"))) < count:
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_started_again_it_does_nothing_but_the_report(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = _write(done.parent)
    before = {path: path.stat().st_mtime_ns for path in (done / "done").iterdir()}
    page = (done / "report" / "index.html").read_bytes()
    assert run_cli(["study", str(study), "--out", str(done)]) == 0
    assert (done / "report" / "index.html").read_bytes() == page
    assert {path: path.stat().st_mtime_ns for path in (done / "done").iterdir()} == before
    assert "report:" in capsys.readouterr().out


def test_a_checkpoint_missing_from_a_series_is_named(done: Path, tmp_path: Path) -> None:
    plan = make_study_plan(_config())
    training = folder_of(done, plan.of_kind("train")[0])
    assert checkpoint(training, 0.5) != checkpoint(training, 1.0)
    with pytest.raises(RunFolderError, match=r"no checkpoint after 0\.25 of the training"):
        checkpoint(training, 0.25)
    with pytest.raises(RunFolderError, match="missing from the series"):
        checkpoint(tmp_path, 1.0)


def test_a_stage_that_was_begun_is_gone_on_with(done: Path, tmp_path: Path) -> None:
    plan = make_study_plan(_config())
    for stage in plan.stages:
        fresh, begun = command_of(tmp_path, plan, stage) if not stage.uses else None, command_of(done, plan, stage)
        assert fresh is None or "--resume" not in fresh
        assert "--resume" in begun


@pytest.mark.parametrize("how", ["inline", pytest.param("in processes", marks=pytest.mark.slow)])
def test_a_failed_stage_costs_what_uses_it_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "inline":  # That the local executor tells of its processes' ends: test_executor.py.
        monkeypatch.setattr("cotbench.api.study._executor", inline_executor)
    # Two episodes are too few for a conflict, but what fails here is the training: its model is a folder without one.
    text = MINI.replace('models = ["tiny"]', f'models = ["{tmp_path / "none"}"]').replace("[0.0, 0.5, 1.0]", "[1.0]")
    assert run_cli(["study", str(_write(tmp_path, text)), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: 1 stages failed, the first is train/sft-seed0: ", said)
    assert "logs/train_sft-seed0" in said
    plan = make_study_plan(_config(text))
    done = {stage.name for stage in plan.stages if is_done(tmp_path / "out", stage)}
    assert done == {"reference/id", "traces"}


def test_it_stops_after_the_traces_where_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cotbench.api.study._executor", inline_executor)
    out = tmp_path / "out"
    assert run_cli(["study", str(_write(tmp_path)), "--out", str(out), "--jobs", "1", "--until", "traces"]) == 0
    plan = make_study_plan(_config())
    assert {stage.name for stage in plan.stages if is_done(out, stage)} == {"reference/id", "traces"}
    said = capsys.readouterr().out
    assert f"2 of {len(plan.stages)} stages are done, up to traces; continue with: cotbench study --resume {out}" in said
    assert not (out / "report").exists()


def test_a_mixture_of_elicitations_is_refused(done: Path) -> None:
    plan = make_study_plan(_config())
    stage = next(one for one in plan.of_kind("probe") if one.place.probe == "alignment" and one.place.progress == 1.0)
    path = folder_of(done, stage) / "manifest.json"
    text = path.read_text()
    manifest = json.loads(text)
    manifest["elicitation_fingerprint"] = "0" * 16
    try:
        path.write_text(json.dumps(manifest))
        with pytest.raises(UsageError, match="mixes elicitations of alfworld-gen"):
            page_of_study(done)
    finally:
        path.write_text(text)


def test_a_series_on_other_states_is_refused(done: Path) -> None:
    plan = make_study_plan(_config())
    stage = next(one for one in plan.of_kind("probe") if one.place.probe == "alignment" and one.place.progress == 1.0)
    path = folder_of(done, stage) / "manifest.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(text) | {"states_sha256": "0" * 64}))
        with pytest.raises(UsageError, match="other states than its series"):
            read_data(done)
    finally:
        path.write_text(text)


def test_a_folder_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not the folder of a study"):
        read_data(tmp_path)
    (tmp_path / "something").write_text("")
    assert run_cli(["study", str(_write(tmp_path)), "--out", str(tmp_path)]) == 2
