"""Trackers of a run: what they are told, and that no run changes by one, whatever it does."""

import json
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate", reason="pip install -e '.[hf]'")

from accelerate import tracking

from cotbench.agents.random import RandomAgent
from cotbench.cli import run_cli
from cotbench.errors import AgentBugError, UsageError
from cotbench.runs import tracker as tracker_module
from cotbench.runs.manifest import RunConfig
from cotbench.runs.results import Run
from cotbench.runs.runner import run
from cotbench.runs.tracker import require_trackers
from tests.lines import read_objects

ENV = "alfworld-gen"
CALLS: list[tuple[str, Any]] = []
"""What the tracker was told, in order."""
BROKEN: set[str] = set()
"""The methods of it that fail."""


class Spy(tracking.GeneralTracker):  # type: ignore[misc]
    """A tracker that is registered as users register theirs."""

    name = "spy"
    requires_logging_directory = True
    tracker = None

    def __init__(self, project: str, folder: str) -> None:
        self._told("init", (project, folder))

    def start(self) -> None:
        self._told("start", None)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._told("config", values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self._told("log", (step, values))

    def finish(self) -> None:
        self._told("finish", None)

    def _told(self, what: str, value: Any) -> None:
        print(f"* {what}")  # As some clients do.
        CALLS.append((what, value))
        if what in BROKEN:
            raise RuntimeError("no\nnetwork")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", dict(tracking.LOGGER_TYPE_TO_CLASS))
    monkeypatch.setattr(tracker_module, "_SECONDS", 0.0)
    tracking.register_tracker_class(Spy)
    CALLS.clear()
    BROKEN.clear()
    yield


def _run(out: Path, *trackers: str, **more: Any) -> Run:
    return run(RunConfig(agent="expert", env=ENV, episodes=2, max_steps=3, **more), out=out, report_to=trackers)


def _untimed(folder: Path) -> list[Any]:
    return [{**row, "seconds": 0} for row in read_objects(folder / "episodes.jsonl")]


def test_a_tracker_is_told_the_settings_the_progress_and_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPY_PROJECT", "mine")
    outcome = _run(tmp_path / "r", "spy")
    kinds = [kind for kind, _ in CALLS]
    assert kinds == ["init", "start", "config", *["log"] * 5, "finish"]
    assert CALLS[0][1] == ("mine", str(tmp_path / "r"))
    config = CALLS[2][1]
    assert (config["agent"], config["env"], config["elicitation/style"], config["tasks"]) == ("expert", ENV, "prefill", 2)
    assert config["fingerprint"] == outcome.manifest.elicitation_fingerprint
    logged = [value for kind, value in CALLS if kind == "log"]
    assert [step for step, _ in logged] == [1, 2, 3, 4, 4]
    assert [values["episodes"] for _, values in logged] == [1, 2, 3, 4, 4]
    last = logged[-1][1]
    for mode, numbers in outcome.summary.modes.items():
        assert last[f"{mode}/success"] == pytest.approx(numbers.success.mean)
        assert last[f"{mode}/steps"] == pytest.approx(numbers.steps.mean)
        assert last[f"summary/modes/{mode}/success/mean"] == numbers.success.mean
        assert last[f"summary/modes/{mode}/success/high"] == numbers.success.high
    assert outcome.summary.gap is not None and last["summary/gap/p"] == outcome.summary.gap.p
    assert all(isinstance(value, int | float) for value in last.values())
    assert not any("summary" in name for _, values in logged[:-1] for name in values)


def test_a_run_with_a_tracker_is_the_run_without(tmp_path: Path) -> None:
    plain = _run(tmp_path / "plain")
    tracked = _run(tmp_path / "tracked", "spy")
    assert tracked.manifest.identity() == plain.manifest.identity()
    assert "spy" not in (tmp_path / "tracked" / "manifest.json").read_text()
    assert _untimed(tmp_path / "tracked") == _untimed(tmp_path / "plain")
    assert (tmp_path / "tracked" / "summary.json").read_bytes() == (tmp_path / "plain" / "summary.json").read_bytes()


@pytest.mark.parametrize("broken", ["init", "start", "config", "log", "finish"])
def test_what_fails_in_a_tracker_is_a_warning(broken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    BROKEN.add(broken)
    with caplog.at_level(logging.WARNING):
        outcome = _run(tmp_path / "r", "spy")
    assert outcome.summary.modes["cot"].n == 2 and (tmp_path / "r" / "summary.json").is_file()
    assert [one.getMessage() for one in caplog.records if one.name == tracker_module.__name__] == [
        "tracker spy is switched off for the rest of the run: RuntimeError: no network"
    ]
    assert [kind for kind, _ in CALLS].count(broken) == 1, "it is not told again"


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    _run(tmp_path / "r", mode="cot")
    lines = (tmp_path / "r" / "episodes.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "r" / "episodes.jsonl").write_text(lines[0])
    assert run_cli(["run", "--resume", str(tmp_path / "r"), "--report-to", "spy"]) == 0
    logged = [value for kind, value in CALLS if kind == "log"]
    assert [step for step, _ in logged] == [2, 2]
    assert logged[0][1]["cot/episodes"] == 2
    assert len((tmp_path / "r" / "episodes.jsonl").read_text().splitlines()) == 2


def test_the_run_of_a_teacher_is_tracked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["traces", "--teacher", "expert", "-n", "1", "--out", str(tmp_path / "t"), "--report-to", "spy", "--json"]
    assert run_cli(command) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 1, "nothing of a tracker stands in the output"
    assert [kind for kind, _ in CALLS].count("finish") == 1


@pytest.mark.parametrize("command", [["run", "--agent", "random"], ["traces", "--teacher", "expert"]])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tensorbord"], "unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
        (["nosuch"], "unknown tracker 'nosuch'; known: aim, "),
        (["aim"], "--report-to aim needs what is not installed: pip install aim"),
        (["none", "spy"], "--report-to none excludes other trackers: omit them"),
    ],
)
def test_a_bad_name_is_an_error_before_anything_is_played(
    command: list[str], names: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [word for name in names for word in ("--report-to", name)]
    assert run_cli([*command, "-n", "1", "--out", str(tmp_path / "r"), *flags]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_names() -> None:
    assert require_trackers(()) == require_trackers(("none",)) == []
    assert require_trackers(("spy", "spy")) == ["spy"]
    assert "spy" in require_trackers(("all",))
    for names in (("none", "spy"), ("spy", "all"), ("spie",)):
        with pytest.raises(UsageError):
            require_trackers(names)


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed: pip install -e '.[dev]'")
def test_tensorboard_shows_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = _run(tmp_path / "r", "tensorboard")
    found = EventAccumulator(str(tmp_path / "r" / "cotbench")).Reload()
    wins = found.Scalars("summary/modes/cot/success/mean")
    assert [(one.step, one.value) for one in wins] == [(4, outcome.summary.modes["cot"].success.mean)]
    assert [one.step for one in found.Scalars("episodes")] == [1, 2, 3, 4, 4]
    again = run_cli(["run", "--resume", str(tmp_path / "r")])
    assert again == 0, "its files are no part of the run"


def test_a_run_of_a_broken_agent_leaves_no_file_of_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(RandomAgent):
        def decide(self, queries: Any) -> Any:
            raise KeyError("answer")

    def start(self: Spy) -> None:
        (tmp_path / "runs" / "r" / "events").mkdir()
        (tmp_path / "runs" / "r" / "events" / "1").write_text("...")

    monkeypatch.setattr(Spy, "start", start)
    config = RunConfig(agent="random", env=ENV, episodes=2)
    with pytest.raises(AgentBugError, match="failed: KeyError: 'answer'"):
        run(config, agent=Broken(), out=tmp_path / "runs" / "r", report_to=("spy",))
    assert [kind for kind, _ in CALLS] == ["init", "config", "finish"]
    assert list(tmp_path.iterdir()) == []
