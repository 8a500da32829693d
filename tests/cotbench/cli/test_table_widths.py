"""The tables that the commands print, in terminals of 80, 100 and 140 columns: no number, label or id is cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cotbench.cli import run_cli, terminal
from cotbench.runs.results import load_run
from cotbench.runs.suite import summarize_suite
from cotbench.runs.summary import Summary
from cotbench.runs.tables import run_table, suite_table
from cotbench.stats.estimates import Estimate
from cotbench.text_table import TextTable
from tests.cotbench.table_checks import WIDTHS, check_whole
from tests.house import ROOT

Printed = Callable[..., tuple[str, list[TextTable]]]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[TextTable]:
    """The tables that were drawn."""
    drawn: list[TextTable] = []
    render = TextTable.__rich_console__

    def record(self: TextTable, *of_rich: Any) -> Any:
        drawn.append(self)
        return render(self, *of_rich)

    monkeypatch.setattr(TextTable, "__rich_console__", record)
    return drawn


@pytest.fixture
def printed(tables: list[TextTable], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Runs a command in 80 columns, and returns its output and tables, which were checked at all widths."""
    monkeypatch.setattr(terminal, "_WIDE", 80)

    def command(*words: str) -> tuple[str, list[TextTable]]:
        tables.clear()
        assert run_cli(list(words)) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert tables, "no table was printed"
        for table in tables:
            assert all(line.text in out for line in table.lines(80))
            for width in WIDTHS:
                check_whole(table, width)
        return out, tables

    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two agents on the same tasks, of several types."""
    path = tmp_path_factory.mktemp("runs")
    for agent in ("random", "expert"):
        words = ["run", "--agent", agent, "--episodes", "4", "--out", str(path / agent), "--json"]
        assert run_cli(words) == 0
    return path


def _estimate(mean: float, low: float, high: float) -> Estimate:
    return Estimate(n=40, mean=mean, low=low, high=high)


@pytest.fixture
def large(folder: Path) -> Summary:
    """A summary with numbers as long as those of a run with a large model."""
    summary = load_run(folder / "random").summary
    rate, tokens = _estimate(0.4, 0.26, 0.56), _estimate(1234567, 1100000, 1300000)
    values = {"success": rate, "macro_success": rate, "score": _estimate(0.55, 0.4, 0.7), "prefilled_tokens": tokens}
    modes = {mode: numbers.model_copy(update=values) for mode, numbers in summary.modes.items()}
    assert summary.gap is not None
    lower = _estimate(-0.1, -0.25, 0.05)
    gap = summary.gap.model_copy(update={"success": lower, "macro_success": lower})
    return summary.model_copy(update={"modes": modes, "gap": gap})


def _text(part: Any, width: int) -> str:
    screen = Console(width=width, file=io.StringIO())
    screen.print(part, crop=False)
    return screen.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_a_run(large: Summary, tables: list[TextTable], width: int) -> None:
    for verbose in (False, True):
        text = _text(run_table(large, verbose=verbose), width)
        check_whole(tables[-1], width)
        assert max(map(len, text.splitlines())) <= width
        for part in ("success", "0.40", "[0.26, 0.56]", "-0.10", "[-0.25, +0.05]", "1234567", "[1100000, 1300000]", "4 pairs"):
            assert part in text
    assert tables[0].rows[0].cells[0].value == "success", "what was asked comes first"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_a_run_on_several_environments(large: Summary, tables: list[TextTable], width: int) -> None:
    runs = [large.model_copy(update={"env": env}) for env in ("alfworld-gen", "scienceworld", "bfcl")]
    text = _text(suite_table(summarize_suite(runs)), width)
    check_whole(tables[-1], width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("scienceworld") >= 2 and text.count("-0.10") == 4 and "-v" in text


def test_what_all_episodes_share_is_left_out_of_the_table_and_named(folder: Path) -> None:
    summary = load_run(folder / "random").summary
    short, whole = " ".join(_text(run_table(summary), 80).split()), _text(run_table(summary, verbose=True), 80)
    shared = short.partition("the same in all episodes: ")[2]
    assert "tokens reused 0," in shared and "errors 0," in shared and "score = success" in shared
    for name in ("tokens reused", "errors", "score"):
        assert any(line.startswith(name) for line in whole.splitlines())
    one = {mode: numbers.model_copy(update={"errors": 1}) for mode, numbers in summary.modes.items()}
    failed = _text(run_table(summary.model_copy(update={"modes": one})), 80)
    assert any(line.split() == ["errors", "1", "1"] for line in failed.splitlines()), "an error is never left out"
    for name in ("success", "episodes"):
        assert any(line.split()[:1] == [name] for line in _text(run_table(summary), 80).splitlines())


def test_a_run_in_80_columns(folder: Path, printed: Printed) -> None:
    out, _ = printed("run", "--resume", str(folder / "random"))
    assert "CoT - prompt" in out and f"run folder: {folder / 'random'}\n" in out


@pytest.mark.parametrize("more", [(), ("--verbose", "--tasks", "--paper")])
def test_a_comparison(folder: Path, printed: Printed, more: tuple[str, ...]) -> None:
    out, (table,) = printed("compare", str(folder / "random"), str(folder / "expert"), *more)
    assert str(folder / "expert") in out, "a path is not broken"
    assert [row.cells[0].value for row in table.rows][:3] == ["success, prompt", "success, CoT", "CoT - prompt"]


def test_the_list_of_runs(folder: Path, printed: Printed) -> None:
    out, (table,) = printed("list", "runs", str(folder))
    assert str(folder / "random") in out and [row.cells[1].value for row in table.rows] == ["8/8", "8/8"]


def test_boards_and_an_entry(printed: Printed, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    from cotbench.leaderboard.store.store import Store
    from tests.leaderboard.stored import bundle

    with Store.open(tmp_path / "board.sqlite") as store:
        for name, team, won in (
            ("First", "", 100),
            ("A model of a long name", "A team of many", 10),
            ("Third", "T", 60),
        ):
            one = bundle(name, team=team, won=[place < won for place in range(120)])
            entry, _ = store.add(one, (), b"zip")
            store.settle(entry.id, None, with_versions={})
    db = ("--db", str(tmp_path / "board.sqlite"))
    out, boards = printed("leaderboard", "list", *db)
    assert len(boards) > 1 and entry.id in out
    assert out.count("recomputed here by executing") == 1, "what marks mean is said once"
    printed("leaderboard", "show", entry.id, *db)


def test_a_probe(folder: Path, printed: Printed, tmp_path: Path) -> None:
    agent = ("--agent", "random", "--reference", str(folder / "expert"), "--states", "4", "--out", str(tmp_path / "probe"))
    _, tables = printed("probe", "alignment", *agent, "--option", "prompt_elicitations=bare")
    assert "prompt exact" in [row.cells[0].value for row in tables[0].rows]


@pytest.mark.parametrize("words", [("study", "smoke", "--dry-run"), ("list", "envs"), ("list", "agents"), ("list", "recipes")])
def test_plans_and_lists(printed: Printed, words: tuple[str, ...]) -> None:
    out, _ = printed(*words)
    assert max(map(len, out.splitlines())) <= 80


def test_the_list_of_probes_and_what_is_installed(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    printed("list", "probes")
    monkeypatch.setattr("cotbench.cli.doctor._device", list)
    printed("doctor")


def test_all_tables_are_laid_out_in_one_way() -> None:
    """A table of rich's own cuts what does not fit."""
    for room in ("cotbench", "envs", "baselines", "leaderboard"):
        for path in (ROOT / room).rglob("*.py"):
            assert "rich.table" not in path.read_text("utf-8"), path
