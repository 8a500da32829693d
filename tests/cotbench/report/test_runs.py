"""The page of plain runs, from real runs: every number of theirs is on it, and what a reader must know stands before them."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli.report import report
from cotbench.errors import MissingExtraError, UsageError
from cotbench.judge import read_judges
from cotbench.judge.folder import folder_of, judge_run, make_judge_plan
from cotbench.judge.preference import PreferenceOptions
from cotbench.prompting.elicitation import Elicitation
from cotbench.report.browser import effect_of
from cotbench.report.page import Figure, Page, Table
from cotbench.report.runs import page_of_runs
from cotbench.runs.manifest import SUITE, RunConfig
from cotbench.runs.results import Run, load_run
from cotbench.runs.runner import run
from cotbench.stats.estimates import Estimate
from tests.cotbench.report import pages
from tests.judges import Judge

TASKS = tuple(f"alfworld/gen/{kind}/{number}" for kind in ("look", "pick") for number in (1, 2, 3))


def _config(**more: Any) -> RunConfig:
    return RunConfig(**{"agent": "slips", "tasks": TASKS, "expert_actions": True, "max_steps": 15, **more})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    run(_config(), out=folder)
    plan = make_judge_plan(folder, PreferenceOptions(judge="judge-test"))
    judge_run(plan, folder_of(folder, "judge-test"), agent=Judge())
    return folder


@pytest.fixture
def one(recorded: Path) -> Run:
    return load_run(recorded)


def _changed(run: Run, name: str, **more: Any) -> Run:
    """The same run in another folder, with some of its summary or config otherwise."""
    config = {key: more.pop(key) for key in ("elicitation_config",) if key in more}
    summary = run.summary.model_copy(update=more)
    manifest = run.manifest
    if config:
        manifest = manifest.model_copy(
            update={"config": manifest.config.model_copy(update={"elicitation": config["elicitation_config"]})}
        )
    return replace(run, path=run.path.parent / name, summary=summary, manifest=manifest)


def _tables(page: Page) -> dict[str, Table]:
    return {item.name: item for section in page.sections for item in section.items if isinstance(item, Table)}


def _rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _numbers(value: Any) -> list[Estimate]:
    if isinstance(value, Estimate):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else []
    return [found for each in inside for found in _numbers(each)]


def test_every_number_of_the_summary_is_in_a_table(one: Run) -> None:
    shown = [number for table in _tables(page_of_runs([one])).values() for number in _numbers(table.rows)]
    summary = one.summary
    assert summary.gap is not None and summary.consistency is not None and summary.revisions is not None
    expected = [summary.gap.success, summary.consistency.consistency, summary.consistency.revision_rate, summary.revisions.net]
    for mode in summary.modes.values():
        expected += [mode.success, *mode.by_type.values(), mode.score, mode.steps, mode.invalid_actions, mode.tokens]
        expected += [mode.prefilled_tokens, mode.reused_tokens, mode.format_ok]
    for number in expected:
        assert number in shown, number


def test_the_answer_is_in_sentences_with_numbers(one: Run) -> None:
    reached, gap, revisions = page_of_runs([one]).answer
    modes, found = one.summary.modes, one.summary.revisions
    assert reached.startswith(f"slips succeeds at {modes['prompt'].success.mean:.2f} [") and "on 6 tasks" in reached
    assert f"p = {one.summary.gap.p:.2g}" in gap and "No difference between the modes is shown" in gap
    assert f"{found.helped} revisions helped and {found.hurt} hurt" in revisions
    assert f"of {one.summary.consistency.states} states" in revisions


def test_the_browser_counts_revisions_like_the_summary(one: Run) -> None:
    (browsed,) = page_of_runs([one]).runs
    steps = [step for episode in browsed.episodes if episode.mode == "cot" for step in episode.trajectory]
    known = [effect_of(step) for step in steps if step.expert_action is not None]
    found = one.summary.revisions
    assert (known.count("helped"), known.count("hurt"), known.count("revised")) == (found.helped, found.hurt, found.neither)
    assert found.helped > 0


def test_figures_hold_the_rates_of_the_modes_and_of_the_types(one: Run) -> None:
    figures = {
        item.name: item for section in page_of_runs([one]).sections for item in section.items if isinstance(item, Figure)
    }
    (panel,) = figures["success"].panels
    assert [(line.series, line.y) for line in panel.lines] == [
        (mode, (one.summary.modes[mode].success,)) for mode in ("prompt", "cot")
    ]
    (types,) = figures["task_types"].panels
    assert types.labels == ("look", "pick")
    assert types.lines[1].y == tuple(one.summary.modes["cot"].by_type[name] for name in types.labels)
    assert "n = 6 tasks" in figures["success"].caption


@pytest.mark.parametrize("used", [True, False])
def test_captions_name_an_elicitation_where_the_agent_uses_it(one: Run, used: bool) -> None:
    page = page_of_runs([_changed(one, "used", uses_elicitation=used)])
    captions = [item.caption for section in page.sections for item in section.items]
    captions += [section.text for section in page.sections if section.title == "How it was measured"]
    elicited = [caption for caption in captions if "licitation" in caption]
    assert len(elicited) > 4
    for caption in elicited:
        assert re.findall(r"\b[0-9a-f]{16}\b", caption) == ([one.summary.elicitation] if used else [])
        assert ("slips: no elicitation settings (this agent does not use them)" in caption) is not used


def test_judges_are_there(one: Run) -> None:
    (row,) = _rows(_tables(page_of_runs([one]))["judges"])
    found = read_judges(one.path)["judge-test"].numbers
    rate = found.estimates["win rate of the cot action"]
    assert (row["judge"], row["states"], row["win rate of CoT"]) == ("judge-test", found.states, rate)
    assert row["agreement with the expert"] == found.estimates["agreement with the reference"]
    assert found.states > 0
    assert row["gate"] in ("passes", "does not pass") and row["gate"] in found.notes[0]


def test_one_episode_says_that_there_is_no_interval(tmp_path: Path) -> None:
    run(_config(tasks=TASKS[:1], mode="cot"), out=tmp_path / "one")
    page = page_of_runs([load_run(tmp_path / "one")])
    assert any("no interval over tasks" in warning for warning in page.warnings)
    assert any("no gap" in warning for warning in page.warnings)
    assert "gap" not in page.answer[0] and len(page.answer) == 1


def test_errors_partial_splits_and_unfinished_runs_are_warnings(one: Run) -> None:
    cot = one.summary.modes["cot"].model_copy(update={"errors": 2})
    bad = _changed(one, "bad", partial=True, modes={**one.summary.modes, "cot": cot}, split_tasks=500)
    bad = replace(bad, records=bad.records[:-3])
    warnings = "\n".join(page_of_runs([bad]).warnings)
    for text in ("PARTIAL", "ERRORS: 2 episodes", "UNFINISHED: 9 of 12 episodes", "6 of the 500 tasks"):
        assert text in warnings
    assert not page_of_runs([one]).warnings


def test_two_elicitations_do_not_stand_on_one_page(one: Run) -> None:
    other = _changed(one, "second", elicitation="0123456789abcdef")
    with pytest.raises(UsageError) as refused:
        page_of_runs([one, other])
    message = str(refused.value)
    assert all(part in message for part in ("first", one.summary.elicitation, "second", "0123456789abcdef"))
    assert "\n" not in message
    with pytest.raises(UsageError, match="no run to report"):
        page_of_runs([])


def test_environments_differ_by_their_own_defaults_alone(one: Run) -> None:
    own = Elicitation.for_env("bfcl")
    bfcl = {"env": "bfcl", "elicitation": own.fingerprint, "elicitation_config": own}
    page = page_of_runs([one, _changed(one, "bfcl", **bfcl)])
    assert "Over 2 environments, slips succeeds on average" in page.answer[0]
    warm = Elicitation.for_env("bfcl", temperature=0.7)
    with pytest.raises(UsageError, match="was elicited as"):
        page_of_runs([one, _changed(one, "bfcl", **bfcl | {"elicitation": warm.fingerprint, "elicitation_config": warm})])


def test_several_runs_have_names_of_their_own_and_adjusted_p_values(one: Run) -> None:
    gap = one.summary.gap
    assert gap is not None
    runs = [
        _changed(one, f"run{place}", seed=seed, gap=gap.model_copy(update={"p": p}))
        for place, (seed, p) in enumerate(((0, 0.01), (1, 0.04), (1, 0.03)))
    ]
    page = page_of_runs(runs)
    rows = _rows(_tables(page)["success"])
    assert [row["run"] for row in rows] == ["seed 0", "seed 1, run1", "seed 1, run2"] == [run.label for run in page.runs]
    # Holm by hand: 0.01 x 3, then 0.03 x 2, then 0.04 x 1 raised to what came before it.
    assert [row["Holm p"] for row in rows] == pytest.approx([0.03, 0.06, 0.06])
    assert any("not paired" in warning for warning in page.warnings)


@pages.needs_report
def test_the_command_writes_the_page(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([recorded, recorded], out=tmp_path / "page") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page" / "index.html")
    read = pages.Read((tmp_path / "page" / "index.html").read_text("utf-8"))
    (run_,) = json.loads(read.scripts[0])["runs"]
    assert len(run_["episodes"]) == 12
    assert "episode_seconds" not in read.text and one_hostile(read)
    assert report([recorded]) == 0 and (recorded / "report" / "index.html").is_file()


def one_hostile(read: pages.Read) -> bool:
    """The player's markup is in the data and is no element."""
    return not read.all("img") and pages.HOSTILE[1].replace('"', '\\"') in json.dumps(json.loads(read.scripts[0]))


@pages.needs_report
def test_a_suite_is_reported_run_by_run(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "alfworld-gen").symlink_to(recorded)
    configs = [load_run(recorded).manifest.config, RunConfig(agent="slips", env="bfcl")]
    (suite / SUITE).write_text(json.dumps([config.model_dump(mode="json") for config in configs]))
    assert report([suite], out=tmp_path / "page") == 0
    assert "bfcl has not begun" in pages.Read((tmp_path / "page" / "index.html").read_text("utf-8")).text


def test_what_cannot_be_reported_is_said(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"cotbench report needs the extra 'report'"):
        report([recorded])
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UsageError, match="report it without the others"):
        report([tmp_path, recorded])
    with pytest.raises(UsageError, match="not a run folder"):
        report([tmp_path / "nothing"])
    assert not (tmp_path / "nothing").exists()
