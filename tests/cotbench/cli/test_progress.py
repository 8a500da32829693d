"""What is shown while a command works: it fits the screen, and without one it says now and then how far the work is."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from cotbench.cli import run_cli
from cotbench.cli.even_progress import EvenProgress
from cotbench.cli.progress import RecentRate, RunProgress
from cotbench.cli.progress_display import BarProgress, LineProgress, fitted, format_duration
from cotbench.prompting.query import Decision
from cotbench.runs.episode import Episode, Step
from cotbench.runs.forecast import Forecast
from cotbench.runs.manifest import RunConfig
from cotbench.runs.rollout import RolloutSpec
from cotbench.runs.runner import run

FACTS = ["prompt 0.12 (14/118 won)", "CoT 0.45 (52/115 won)", "3 errors", "812 tokens/s", "5.1 steps/s"]


class Shown:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.states: list[tuple[int, list[str], float | None]] = []
        self.notes: list[str] = []

    def update(self, done: int, facts: Any, left: float | None) -> None:
        self.states.append((done, [fact for fact in facts if fact], left))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("width", [20, 40, 79, 80, 100, 140, 200])
@pytest.mark.parametrize("left", [None, 0.0, 86_400.0])
def test_a_bar_takes_two_lines_that_fit(width: int, left: float | None) -> None:
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bar = BarProgress("episodes", 480, screen)
    bar.update(233, FACTS, left)
    lines = bar.lines().plain.split("\n")
    assert len(lines) == 2 and all(len(line) < width for line in lines), lines
    screen.print(bar.lines())
    assert len(screen.file.getvalue().splitlines()) == 2  # type: ignore[attr-defined]
    if width >= 80:
        assert lines[0].startswith("episodes 233/480 ━") and lines[1].startswith("prompt 0.12 (14/118 won)  CoT 0.45")
        assert left is None or " left" in lines[0]
    if width >= 100:
        assert "5.1 steps/s" in lines[1]


def test_a_screen_without_such_characters_gets_others() -> None:
    screen = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80, force_terminal=True)
    bar = BarProgress("episodes", 4, screen)
    bar.update(2, [], None)
    assert "####" in bar.lines().plain and bar.lines().plain.isascii()


def test_what_does_not_fit_is_left_out_by_its_weight() -> None:
    assert fitted(FACTS, 200) == "  ".join(FACTS)
    assert fitted(FACTS, 40) == "prompt 0.12 (14/118 won)  3 errors"
    assert fitted(["abcdef"], 3) == "abc" and fitted(["", "a"], 3) == "a" and fitted([], 3) == ""


def test_durations() -> None:
    assert [format_duration(seconds) for seconds in (0.4, 89, 91, 5399, 5401)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h"]


def test_lines_come_now_and_then_and_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = LineProgress("episodes", 1000, lambda: now)
    for done in range(1, 1001):
        now += 3.0
        lines.update(done, FACTS[:2], 3.0 * (1000 - done))
    lines.end()
    found = capsys.readouterr().err.splitlines()
    assert 40 <= len(found) <= 70, "3,000 seconds: the first lines after 20 s, the later ones each minute"
    assert found[0] == "episodes 7/1000, prompt 0.12 (14/118 won), CoT 0.45 (52/115 won), 21 s elapsed, about 50 min left"
    assert found[-1] == "episodes 1000/1000, prompt 0.12 (14/118 won), CoT 0.45 (52/115 won), 50 min elapsed"
    assert all(line.isprintable() for line in found)


def test_work_that_is_done_at_once_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineProgress("states", 2)
    lines.update(1, [], None)
    lines.update(2, [], None)
    lines.end()
    assert capsys.readouterr().err == ""


def _step(tokens: int) -> Step:
    return Step(action="look", decision=Decision("look", "", "look", trace_tokens=tokens), observation="", score=0.0)


def _observed(clock: Any, episodes: int = 4, shown: Shown | None = None) -> tuple[RunProgress, Shown]:
    waiting = {f"{number}#cot": "cot" for number in range(episodes)}
    forecast = Forecast(waiting=waiting, max_steps=5, usual_steps=5, sharing=0.5, now=clock())  # type: ignore[arg-type]
    shown = shown or Shown()
    return RunProgress(shown, forecast, clock), shown


def test_a_run_shows_its_rates_tokens_and_the_time_left() -> None:
    now = [0.0]
    progress, shown = _observed(lambda: now[0])
    for number in range(2):
        unit = RolloutSpec(str(number), "t", "cot")
        for step in range(1, 6):
            now[0] += 1.0
            progress.executed(unit, _step(20))
            progress.stepped(unit, step)
        progress.finished(Episode(task=str(number), task_type="t", mode="cot", success=number == 1, steps=5))
    done, facts, left = shown.states[-1]
    assert done == 2 and facts[0] == "CoT 0.50 (1/2 won)" and facts[-1] == "1.0 steps/s"
    assert facts[1].endswith("tokens/s") and left == pytest.approx(10.0, rel=0.2)


def test_errors_are_counted_and_the_first_are_named_at_once() -> None:
    progress, shown = _observed(lambda: 0.0, episodes=6)
    for number in range(6):
        progress.finished(Episode(task=str(number), task_type="t", mode="cot", error="the server is gone"))
    assert shown.notes[0] == "error in 0#cot: the server is gone" and len(shown.notes) == 3
    assert shown.notes[2].endswith("(further errors are counted)")
    assert shown.states[-1][1] == ["6 errors"]


def test_a_resumed_run_counts_what_was_played_before() -> None:
    from cotbench.runs.episode import row_of

    now = [0.0]
    progress, shown = _observed(lambda: now[0])
    before = [row_of(Episode(task=str(number), task_type="t", mode="cot", success=True, steps=5)) for number in range(2)]
    progress.resumed(before)
    assert shown.states[-1] == (2, ["CoT 1.00 (2/2 won)"], None)
    for step in range(1, 4):
        now[0] += 100.0
        progress.stepped(RolloutSpec("2", "t", "cot"), step)
    left = shown.states[-1][2]
    assert left is not None and 300 < left < 1100  # 2 + 5 steps of 100 s, not what two episodes in no time would promise.


def test_a_real_run_on_a_terminal_and_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["run", "--agent", "expert", "--episodes", "2", "--out", "quiet"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())
    from cotbench.cli import progress_display

    screen = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress_display, "console", lambda stderr: screen)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run_cli(["run", "--agent", "expert", "--episodes", "2", "--out", "seen"]) == 0
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "episodes 4/4" in shown and "prompt 1.00 (2/2 won)  CoT 1.00 (2/2 won)" in shown


def test_watching_changes_no_episode(tmp_path: Path) -> None:
    progress, _ = _observed(time.monotonic)
    config = RunConfig(agent="random", episodes=2, max_steps=4)
    one = run(config, out=tmp_path / "a", observer=progress)
    two = run(config, out=tmp_path / "b")
    assert [each.model_copy(update={"seconds": 0.0}) for each in one.records] == [
        each.model_copy(update={"seconds": 0.0}) for each in two.records
    ]


def test_even_work_counts_from_where_it_was() -> None:
    now, shown = 0.0, Shown()
    work = EvenProgress(shown, 100, 50, lambda: now)
    assert shown.states == [(50, [], None)]
    for _ in range(10):
        now += 2.0
        work.advance(["loss 1.000"])
    assert shown.states[-1] == (60, ["loss 1.000"], pytest.approx(80.0, rel=0.05))
    work.advance(done=99)
    assert shown.states[-1][0] == 99


def test_a_recent_rate_forgets() -> None:
    rate = RecentRate(0.0)
    for second in range(100):
        rate.add(10, float(second))
    assert rate.rate(99.0) == pytest.approx(10.0, rel=0.05)
    assert rate.rate(1000.0) == 0.0


def test_the_rest_of_a_study_follows_from_the_stages_that_are_done() -> None:
    from cotbench.study.time_left import expected_seconds, seconds_left

    def stage(name: str, kind: str, tokens: float) -> Any:
        return SimpleNamespace(
            name=name, kind=kind, tokens=tokens, trained=kind == "train", place=SimpleNamespace(model="tiny")
        )

    stages = [stage(f"{kind}{number}", kind, 1e6) for kind in ("train", "run") for number in range(10)]
    assert seconds_left(stages, {}, {}, 1) is None
    factor = {"train": 3.0, "run": 0.5}
    took = {one.name: factor[one.kind] * expected_seconds(one) for one in stages}
    done = {name: took[name] for name in ("train0", "train1", "run0")}
    left = seconds_left(stages, done, {}, 1)
    truth = sum(seconds for name, seconds in took.items() if name not in done)
    assert left == pytest.approx(truth, rel=1 / 3)
    assert seconds_left(stages, done, {}, 4) == pytest.approx(truth / 4, rel=1 / 3)
    running = seconds_left(stages, done, {"train2": took["train2"] / 2}, 1)
    assert left is not None and running is not None and running < left
    last = {name: seconds for name, seconds in took.items() if name != "run9"}
    assert seconds_left(stages, last, {"run9": 10 * took["run9"]}, 1) == pytest.approx(0.1 * took["run9"], rel=0.5)
