"""`cotbench study smoke`: every stage, probe and section once.

The study itself takes minutes (pytest -m slow); otherwise the same stages are done on a fraction of its data and states.
"""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

import cotbench
from cotbench.cli import run_cli
from cotbench.report.typography import typeset
from cotbench.study.config import read_study
from cotbench.study.folder import is_done
from cotbench.study.plan import make_study_plan
from tests.conftest import needs_hf
from tests.cotbench.report.pages import Read, needs_report
from tests.cotbench.study.inline import inline_executor

pytestmark = [needs_hf, needs_report]

SECTIONS = [
    "What training does to both actions",
    "How the prompt action is elicited",
    "Does the trace change the action?",
    "How probable the right action is",
    "Playing whole episodes",
    "Does masking actions help?",
    "A conflicting trace",
    "Where the action comes from",
    "What a judge prefers",
    "Does the action follow the prompt?",
    "Does the wording of the instruction matter?",
    "The tests",
    "Decodability of the traces",
]


CHECKPOINTS = [0.0, 1.0]
LESS = {"[traces]": {"episodes": 8}, "[train]": {"epochs": 0.5}, "[[runs]]": {"episodes": 2, "max_steps": 2}}
ENVS = 'alfworld-gen = ["id", "ood_pair"]'
LESS_STATES = {"alignment": 4, "conflict": 4, "attention": 2, "gradient": 2, "preference": 4, "sensitivity": 2, "wording": 2}


def _smaller(text: str) -> str:
    """The study with fewer checkpoints, games, epochs, steps and states, shorter traces, and one split: a report of several
    splits is test_study_report.py's.
    """
    text, count = re.subn(r"^checkpoints = .*$", f"checkpoints = {CHECKPOINTS}", text, count=1, flags=re.MULTILINE)
    assert count == 1 and text.count(ENVS) == 1
    text = text.replace(ENVS, 'alfworld-gen = ["id"]')
    sections = re.split(r"\n(?=\[)", text)
    for number, section in enumerate(sections):
        less: dict[str, float] = LESS.get(section.partition("\n")[0], {})
        if probe := re.search(r'^probe = "(\w+)"', section, re.MULTILINE):
            less = {"states": LESS_STATES[probe[1]]}
        for name, value in less.items():
            section, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", section, flags=re.MULTILINE)  # noqa: PLW2901
            assert count == 1, (name, section)
        sections[number] = section
    return "\n".join([*sections, "[elicitation]", "trace_tokens = 12", ""])


@pytest.fixture(
    scope="module",
    params=[pytest.param("smaller", marks=[pytest.mark.slow, pytest.mark.ci]), pytest.param("whole", marks=pytest.mark.slow)],
)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a study or its file."""
    if request.param == "whole":
        return "smoke"
    file = tmp_path_factory.mktemp("study") / "smoke.toml"
    file.write_text(_smaller((files("cotbench.study") / "presets" / "smoke.toml").read_text()))
    return str(file)


@pytest.fixture(scope="module")
def smoke(study: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smoke") / "study"
    with pytest.MonkeyPatch.context() as patch:
        if study != "smoke":  # In processes of its own: test_scheduler.py, and the whole study.
            patch.setattr("cotbench.api.study._executor", inline_executor)
        assert run_cli(["study", study, "--out", str(out)]) == 0
    return out


def test_all_stages_are_done_and_all_sections_are_there(study: str, smoke: Path) -> None:
    plan = make_study_plan(read_study(study))
    assert all(is_done(smoke, stage) for stage in plan.stages)
    whole = {(stage.kind, stage.place.probe, stage.place.arm) for stage in make_study_plan(read_study("smoke")).stages}
    assert {(stage.kind, stage.place.probe, stage.place.arm) for stage in plan.stages} == whole
    numbers = json.loads((smoke / "numbers.json").read_text())
    assert [section["title"] for section in numbers["sections"]] == SECTIONS
    assert len(numbers["answer"]) == 3
    assert any("One seed" in warning for warning in numbers["warnings"])


def test_every_figure_and_table_says_n_and_interval_and_the_page_the_elicitation(smoke: Path) -> None:
    numbers = json.loads((smoke / "numbers.json").read_text())
    assert any(re.fullmatch(r"Elicitation prefill [0-9a-f]{16}, temperature 0\.", note) for note in numbers["notes"])
    shown = " ".join(Read((smoke / "report" / "index.html").read_text()).text.split())
    assert all(typeset(note) in shown for note in numbers["notes"])
    items = [item for section in numbers["sections"] for item in section["items"]]
    assert len(items) > 15
    for item in items:
        if item["name"] in ("conflict_donors", "traces"):  # Counts of states, and of decisions without a model.
            continue
        assert re.search(r"95 % intervals over [\d to]+ tasks", item["caption"]), item["name"]


def test_shares_of_attention_and_gradient_are_shares(smoke: Path) -> None:
    numbers = json.loads((smoke / "numbers.json").read_text())
    section = next(one for one in numbers["sections"] if one["title"] == "Where the action comes from")
    tables = {item["name"]: item for item in section["items"] if item["kind"] == "table"}
    for name in ("attention", "gradient"):
        columns = tables[name]["columns"]
        places = [columns.index(f"{part} share") for part in ("prompt", "trace", "rest")]
        for row in tables[name]["rows"]:
            assert sum(row[place]["mean"] for place in places) == pytest.approx(1, abs=1e-4)
        assert not any(column.startswith("paper: ") for column in columns)  # It did not play generated games.


def test_the_report_is_small_and_whole(smoke: Path) -> None:
    page = (smoke / "report" / "index.html").read_text()
    assert len(page.encode()) < 5_000_000
    for section in SECTIONS:
        assert section in page
    assert len(list((smoke / "report" / "figures").glob("*.pdf"))) > 8


@pytest.mark.slow  # Of a smaller study: test_scheduler.py.
def test_a_study_is_reported_again(smoke: Path, tmp_path: Path) -> None:
    assert run_cli(["report", str(smoke), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "index.html").read_bytes() == (smoke / "report" / "index.html").read_bytes()


def test_python_reads_the_study_again(smoke: Path) -> None:
    found = cotbench.load_study(smoke)
    runs = found.runs
    assert len(runs) == sum(len(run.summary.modes) for _, run in found.data.runs) and set(runs["mode"]) <= {"prompt", "cot"}
    assert set(runs["arm"].dropna()) == {arm.name for arm in found.config.arms}
    assert ((runs["low"] <= runs["success"]) & (runs["success"] <= runs["high"])).all()


@pytest.mark.slow
def test_python_does_the_study_and_shows_it(study: str, smoke: Path) -> None:
    marks = {path: path.stat().st_mtime_ns for path in (smoke / "done").iterdir()}
    found = cotbench.study(study, out=smoke)
    assert {path: path.stat().st_mtime_ns for path in (smoke / "done").iterdir()} == marks, "nothing is done again"
    numbers = json.loads((smoke / "numbers.json").read_text())
    text = repr(found)
    assert all(sentence in text for sentence in numbers["answer"]) and str(smoke) in text
    assert "<table" in found._repr_html_() and set(found.probes["probe"]) == {one.probe for one in found.config.probes}
