"""Runs that may spend so many tokens or dollars: what is played, what is not, and going on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import cotbench
from cotbench.cli import run_cli
from cotbench.errors import UsageError
from cotbench.prompting.query import Decision, Query
from cotbench.runs.limits import Budget, Limits, Price, price_of, read_prices
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.results import Run, load_run
from cotbench.runs.runner import SilentObserver, resume_run, start_run
from tests.lines import read_objects

TASKS = tuple(f"alfworld/gen/pick/{number}" for number in range(6))
EPISODE = 3 * (100 + 10)
"""Tokens of an episode of three steps."""
PRICES = """
["dear-model"]
prompt = 2.0
cached = 0.5
completion = 8.0

["openai:cheap"]
prompt = 1
completion = 1
"""


class Spender:
    """Looks, and says what that took."""

    name = "spender"
    uses_elicitation = True

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [Decision("look", action_tokens=10, prefilled_tokens=100, reused_tokens=50) for _ in queries]

    def close(self) -> None:
        pass


def _play(folder: Path, limits: Limits | None = None, *, num_envs: int = 1, **changes: Any) -> tuple[Run, Budget]:
    config = RunConfig(
        **{"agent": "openai:dear-model@http://host", "tasks": TASKS, "max_steps": 3, "mode": "prompt", **changes}
    )
    budget = Budget(limits or Limits(), config.agent)
    how: Any = {"agent": Spender(), "resources": Resources(num_envs=num_envs, workers=0), "observer": SilentObserver()}
    if folder.exists():
        return resume_run(folder, budget=budget, **how), budget
    return start_run(make_plan(config), folder, budget=budget, **how), budget


def _untimed(folder: Path) -> list[dict[str, Any]]:
    rows = read_objects(folder / "episodes.jsonl")
    for row in rows:
        del row["seconds"]
    return rows


@pytest.mark.parametrize(("limit", "num_envs", "played"), [(EPISODE * 3, 1, 3), (EPISODE * 3 - 1, 1, 2), (EPISODE * 4, 2, 4)])
def test_no_episode_begins_for_which_no_room_is_left_and_a_higher_limit_goes_on(
    tmp_path: Path, limit: int, num_envs: int, played: int
) -> None:
    _play(tmp_path / "whole")
    outcome, budget = _play(tmp_path / "run", Limits(limit_tokens=limit), num_envs=num_envs)
    assert budget.stopped and budget.spent == f"{EPISODE * played:,} tokens"
    assert (len(outcome.records), outcome.summary.unplayed) == (played, 6 - played)
    assert sorted(episode.task for episode in outcome.records) == list(TASKS[:played])
    assert not (tmp_path / "run" / "summary.json").exists()  # As after an interrupt.
    assert load_run(tmp_path / "run").summary.unplayed == 6 - played
    again, budget = _play(tmp_path / "run", Limits(limit_tokens=limit), num_envs=num_envs)
    assert budget.stopped and len(again.records) == played  # What was played before counts.
    done, budget = _play(tmp_path / "run", Limits(limit_tokens=EPISODE * 6), num_envs=num_envs)
    assert not budget.stopped and done.summary.unplayed == 0
    assert _untimed(tmp_path / "run") == _untimed(tmp_path / "whole")
    assert (tmp_path / "run" / "summary.json").read_text() == (tmp_path / "whole" / "summary.json").read_text()


def test_dollars_are_those_of_every_decision(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES, "utf-8")
    decision = (100 * 2.0 + 50 * 0.5 + 10 * 8.0) / 1e6
    limits = Limits(prices=tmp_path / "prices.toml", limit_cost=decision * 3 * 3.5)
    outcome, budget = _play(tmp_path / "run", limits)
    assert len(outcome.records) == 3 and budget.stopped
    dollars = outcome.summary.modes["prompt"].dollars
    assert dollars is not None and dollars.mean == pytest.approx(decision * 3)
    assert outcome.summary.dollars == pytest.approx(decision * 9)
    # Of a CoT episode in mode both the prompt actions cost too, and are not in the price of its executed decisions.
    both, _ = _play(tmp_path / "both", Limits(prices=tmp_path / "prices.toml"), mode="both", tasks=TASKS[:2])
    assert both.summary.dollars == pytest.approx(decision * 3 * 2 * 3)
    dollars = both.summary.modes["cot"].dollars
    assert dollars is not None and dollars.mean == pytest.approx(decision * 3)


def test_python_has_the_same_limits_and_a_run_that_they_end_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES, "utf-8")
    config = RunConfig(agent="openai:dear-model@http://host", tasks=TASKS, max_steps=3, mode="prompt")
    how: Any = {"agent": Spender(), "out": tmp_path / "run", "num_envs": 1, "workers": 0, "prices": tmp_path / "prices.toml"}
    outcome = cotbench.run(config, limit_tokens=EPISODE * 2, **how)
    assert len(outcome.records) == 2 and not outcome.finished and outcome.summary.dollars
    assert "NOT FINISHED" in repr(outcome)
    assert len(cotbench.run(config, resume=True, limit_cost=1e-9, **how).records) == 2
    assert cotbench.run(config, resume=True, **how).finished
    with pytest.raises(UsageError, match="--limit-cost needs prices"):
        cotbench.run(config, out=tmp_path / "other", agent=Spender(), limit_cost=1)
    assert not (tmp_path / "other").exists()


def test_a_model_is_found_by_its_spec_or_its_name(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES, "utf-8")
    prices = read_prices(tmp_path / "prices.toml")
    dear = Price(prompt=2.0, cached=0.5, completion=8.0)
    assert price_of("openai:dear-model@https://api.host/v1?timeout=3", prices) == dear
    assert price_of("hf:dear-model", prices) == dear
    assert price_of("openai:cheap", prices) == Price(prompt=1, completion=1) and price_of("hf:cheap", prices) is None
    assert price_of("openai:cheap", prices) is not None and price_of("random", prices) is None
    assert Price(prompt=1, completion=1).dollars(prompt=1, cached=1, completion=1) == pytest.approx(3e-6)


def test_prices_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    for content, message in (
        ("= 1", "is not TOML"),
        ("[m]\nprompt = 1", "m.completion: Field required; a model has prompt and completion"),
        ("[m]\nprompt = -1\ncompletion = 1", "m.prompt: Input should be greater"),
        ("[m]\nprompt = 1\ncompletion = 1\ncache = 1", "m.cache: Extra inputs"),
    ):
        path.write_text(content, "utf-8")
        with pytest.raises(UsageError, match=message):
            read_prices(path)
    path.write_text(PRICES, "utf-8")
    with pytest.raises(UsageError, match=r"has no price of openai:dear-modle@http://h; did you mean 'dear-model'"):
        Budget(Limits(limit_cost=1, prices=path), "openai:dear-modle@http://h")
    with pytest.raises(UsageError, match="--limit-cost needs prices"):
        Budget(Limits(limit_cost=1), "openai:m")
    assert Budget(Limits(prices=path), "random").price is None


def test_the_command_line_says_what_was_not_played(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spender.py").write_text(
        "from collections.abc import Sequence\n"
        "import cotbench\n"
        "from cotbench.prompting.query import Decision\n"
        "@cotbench.register_agent('spender_of_limits')\n"
        "class Spender:\n"
        "    name = 'spender_of_limits'\n"
        "    def decide(self, queries): return [Decision('look', action_tokens=10, prefilled_tokens=100) for _ in queries]\n"
        "    def close(self): pass\n"
    )
    words = ["run", "--import", "spender.py", "--agent", "spender_of_limits", "--limit", "3", "--max-steps", "1"]
    words += ["--mode", "prompt", "--num-envs", "1", "--workers", "0", "--out", "run"]
    assert run_cli([*words, "--limit-tokens", "250"]) == 0
    shown = capsys.readouterr()
    assert "NOT FINISHED: 1 planned episodes were not played and are excluded from all statistics" in shown.out
    assert (
        "stopped at the limit, after 220 tokens: 1 of 3 episodes were not played; resume with a higher limit: cotbench run"
        in (shown.err)
    )
    other = ((["--wording", "brief"], "its wording is 'default', not 'brief'"), (["--samples", "2"], "its samples is 1, not 2"))
    for typed, message in other:
        assert run_cli(["run", "--import", "spender.py", "--resume", "run", *typed]) == 2
        assert message in capsys.readouterr().err
    assert run_cli(["run", "--import", "spender.py", "--resume", "run"]) == 0
    shown = capsys.readouterr()
    assert "NOT FINISHED" not in shown.out and "stopped" not in shown.err
