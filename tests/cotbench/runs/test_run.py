"""Whole runs on real engines: what is in the folder, resuming, replaying."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import cotbench
from cotbench.agents.base import Agent
from cotbench.errors import MissingDataError, RunFolderError, UnknownNameError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.runner import SilentObserver, new_folder, resume_run, run
from tests.lines import read_objects

GAMES = ("alfworld/gen/pick/0", "alfworld/gen/heat/1")
ALWAYS_DRAWN = ("look/17", "look/22", "look/28", "clean/3", "heat/8")
"""What `--episodes 5` has drawn since split `id` had 120 games."""


def _untimed(folder: Path) -> list[dict[str, Any]]:
    rows = read_objects(folder / "episodes.jsonl")
    for row in rows:
        assert row.pop("seconds") >= 0
    return rows


def _config(**changes: Any) -> RunConfig:
    return RunConfig(**{"agent": "random", "tasks": GAMES, "max_steps": 4, **changes})


def test_a_smaller_number_of_episodes_gives_the_first_of_a_larger() -> None:
    few = make_plan(RunConfig(agent="random", episodes=5)).tasks
    many = make_plan(RunConfig(agent="random", episodes=50)).tasks
    assert many[:5] == few
    assert make_plan(RunConfig(agent="random", episodes=5, seed=1)).tasks != few
    usual = make_plan(RunConfig(agent="random"))
    assert (len(usual.tasks), usual.split_tasks) == (120, 1000)
    for seed in (0, 1):  # The first 120 games of a generated split are drawn first, whatever the seed.
        all_drawn = make_plan(RunConfig(agent="random", episodes=1000, seed=seed)).tasks
        assert len(set(all_drawn)) == 1000 and sorted(all_drawn[:120]) == sorted(usual.tasks)
        assert make_plan(RunConfig(agent="random", episodes=120, seed=seed)).tasks == all_drawn[:120]
    assert few == tuple(f"alfworld/gen/{name}" for name in ALWAYS_DRAWN)
    assert [(unit.task, unit.mode) for unit in make_plan(RunConfig(agent="random", episodes=1)).rollouts] == [
        (few[0], "prompt"),
        (few[0], "cot"),
    ]


def test_what_cannot_be_played_is_refused_before_anything_starts(real_games: Path) -> None:
    with pytest.raises(UsageError, match="--episodes 1001 is more than the 1000 tasks"):
        make_plan(RunConfig(agent="random", episodes=1001))
    with pytest.raises(UnknownNameError, match="did you mean 'alfworld/gen/pick/0'"):
        make_plan(RunConfig(agent="random", tasks=("alfworld/gen/pikc/0",)))
    with pytest.raises(MissingDataError, match="games are missing"):
        make_plan(RunConfig(agent="random", env="alfworld", split="ood"), real_games)
    partial = make_plan(RunConfig(agent="random", env="alfworld", split="ood", available_only=True), real_games)
    assert partial.partial and 0 < len(partial.tasks) < partial.split_tasks == 87
    whole = make_plan(RunConfig(agent="random", env="alfworld", available_only=True), real_games)
    assert not whole.partial and len(whole.tasks) == 91


def test_folder_names_do_not_collide(tmp_path: Path) -> None:
    config = RunConfig(agent="hf:./ckpt?dtype=float32")
    first = new_folder(config, tmp_path)
    first.mkdir(parents=True)
    assert new_folder(config, tmp_path) == tmp_path / f"{first.name}_2"
    assert "/" not in first.name and ":" not in first.name


def test_a_run_folder_holds_everything(tmp_path: Path) -> None:
    outcome = run(_config(agent="expert", max_steps=20), out=tmp_path / "run", workers=2)
    loaded = cotbench.load_run(tmp_path / "run")
    assert loaded.summary == outcome.summary
    assert loaded.summary.modes["prompt"].success.mean == loaded.summary.modes["cot"].success.mean == 1.0
    manifest = loaded.manifest
    assert manifest.task_list == GAMES
    assert manifest.elicitation_fingerprint == Elicitation().fingerprint
    assert {"generator", "alfworld_wheel_sha256"} <= set(manifest.data)
    assert {"cotbench", "gymnasium", "numpy"} <= set(manifest.packages)
    assert list(loaded.episodes["mode"]) == ["prompt", "cot", "prompt", "cot"]
    assert loaded.episodes["success"].all()
    steps = loaded.steps
    assert len(steps) == loaded.episodes["steps"].sum()
    cot = steps[steps["mode"] == "cot"]
    assert (cot["prompt_action"] == cot["action"]).all()
    assert cot["trace"].str.len().min() > 0
    assert steps[steps["mode"] == "prompt"]["trace"].isna().all()
    assert not (tmp_path / "run" / "summary.json").read_text().startswith("{}")


def test_a_second_run_writes_the_same_and_a_replay_too(tmp_path: Path) -> None:
    run(_config(), out=tmp_path / "one")
    run(_config(), out=tmp_path / "two", workers=2)
    assert _untimed(tmp_path / "one") == _untimed(tmp_path / "two")
    run(_config(agent=f"replay:{tmp_path / 'one'}"), out=tmp_path / "three")
    assert _untimed(tmp_path / "one") == _untimed(tmp_path / "three")


class Flaky:
    """Plays at random, but its server is down for one task until it is mended."""

    name = "flaky"
    needs = frozenset({"admissible_actions"})

    def __init__(self) -> None:
        self.down = True

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        from cotbench.agents.random import RandomAgent

        decisions = RandomAgent().decide(queries)
        return [
            Decision("", error="503 from the server") if self.down and query.task == GAMES[1] and query.step == 1 else decision
            for query, decision in zip(queries, decisions, strict=True)
        ]

    def close(self) -> None: ...


def test_errors_are_played_again_and_leave_no_trace(tmp_path: Path) -> None:
    agent: Agent = Flaky()
    outcome = run(_config(), out=tmp_path / "flaky", agent=agent)
    assert [mode.errors for mode in outcome.summary.modes.values()] == [1, 1]
    assert [mode.n for mode in outcome.summary.modes.values()] == [1, 1]
    agent.down = False  # type: ignore[attr-defined]
    mended = resume_run(tmp_path / "flaky", agent=agent, resources=Resources(), observer=SilentObserver())
    assert [mode.errors for mode in mended.summary.modes.values()] == [0, 0]
    run(_config(), out=tmp_path / "whole")
    assert _untimed(tmp_path / "flaky") == _untimed(tmp_path / "whole")


def test_resuming_refuses_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(_config(tasks=GAMES[:1], mode="prompt", max_steps=1), out=tmp_path / "run")
    agent = cotbench.make_agent("random")
    with pytest.raises(RunFolderError, match=r"not empty; resume with: cotbench run --resume"):
        run(_config(), out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="not a run folder"):
        resume_run(tmp_path, agent=agent, resources=Resources(), observer=SilentObserver())
    monkeypatch.setattr("cotbench.envs.alfworld.generator.VERSION", "other")
    with pytest.raises(RunFolderError, match="holds another run: its data generator is '2', not 'other'"):
        resume_run(tmp_path / "run", agent=agent, resources=Resources(), observer=SilentObserver())
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(RunFolderError, match="has format 99"):
        cotbench.load_run(tmp_path / "run")
    manifest.write_text("[]")
    with pytest.raises(RunFolderError, match="not the manifest of a cotbench run"):
        cotbench.load_run(tmp_path / "run")


def test_resuming_refuses_another_model_and_not_another_machine(tmp_path: Path) -> None:
    class Told(Flaky):
        def __init__(self, weights: str, device: str) -> None:
            self.down, self.told = False, {"weights_sha256": weights, "device": device}

        def describe(self) -> dict[str, str]:
            return self.told

    run(_config(tasks=GAMES[:1], mode="prompt", max_steps=1), out=tmp_path / "run", agent=Told("a", "cpu"))
    resume_run(tmp_path / "run", agent=Told("a", "gpu"), resources=Resources(), observer=SilentObserver())
    with pytest.raises(RunFolderError, match="its agent weights_sha256 is 'a', not 'b'"):
        resume_run(tmp_path / "run", agent=Told("b", "cpu"), resources=Resources(), observer=SilentObserver())


def test_a_description_that_no_file_can_hold_is_replaced(tmp_path: Path) -> None:
    class Odd(Flaky):
        down = False

        def describe(self) -> dict[str, object]:
            return {"model": "m\ud800", "served": ["\udfff"]}

    run(_config(tasks=GAMES[:1], mode="prompt", max_steps=1), out=tmp_path / "run", agent=Odd())
    assert cotbench.load_run(tmp_path / "run").manifest.agent == {"model": "m?", "served": ["?"]}
    resume_run(tmp_path / "run", agent=Odd(), resources=Resources(), observer=SilentObserver())


@pytest.mark.slow
def test_the_expert_wins_fifty_real_games_and_random_does_not(tmp_path: Path, real_games: Path) -> None:
    official = {"env": "alfworld", "scheme": "official", "split": "valid_seen", "tasks": None, "max_steps": 50}
    expert = run(
        _config(agent="expert", episodes=50, mode="prompt", **official), out=tmp_path / "e", data=real_games, workers=2
    )
    assert expert.summary.modes["prompt"].success.mean == 1.0
    rnd = run(_config(agent="random", episodes=10, mode="prompt", **official), out=tmp_path / "r", data=real_games, workers=2)
    assert rnd.summary.modes["prompt"].success.mean is not None and rnd.summary.modes["prompt"].success.mean < 0.5
