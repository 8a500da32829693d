"""Whose actions a run records as the expert's: one's that steps in anywhere, unless the agent itself follows the expert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.registry import make_agent
from cotbench.envs.alfworld.generator import generate
from cotbench.envs.bfcl import data
from cotbench.envs.registry import builtin_entries, env_entry
from cotbench.errors import GameFileError, UsageError
from cotbench.leaderboard.submission.bundle import unpack
from cotbench.leaderboard.verification.verify import verify_bundle
from cotbench.runs.episode import Episode
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.runner import SilentObserver, resume_run, run
from tests.conftest import needs_bfcl, needs_scienceworld
from tests.leaderboard.made import edited, packed, setting

GAMES = ("alfworld/gen/pick/0", "alfworld/gen/heat/1")


def _run(folder: Path, agent: str, **changes: Any) -> Any:
    return run(RunConfig(**{"agent": agent, "tasks": GAMES, "max_steps": 20, **changes}), out=folder, workers=0)


def _known(episodes: list[Episode]) -> tuple[int, int]:
    steps = [step for episode in episodes for step in episode.trajectory]
    return sum(step.expert_action is not None for step in steps), len(steps)


def test_the_expert_is_known_wherever_a_player_goes(tmp_path: Path) -> None:
    outcome = _run(tmp_path / "random", "random")
    assert outcome.manifest.expert == outcome.summary.expert == "seen"
    known, states = _known(outcome.records)
    assert known == states > 60
    assert outcome.summary.revisions is not None and outcome.summary.consistency is not None
    assert outcome.summary.revisions.states == outcome.summary.consistency.states


def test_an_agent_that_follows_the_expert_follows_the_walkthrough(tmp_path: Path) -> None:
    outcome = _run(tmp_path / "expert", "expert")
    assert outcome.manifest.expert == "walkthrough"
    for episode in outcome.records:
        kind, seed = episode.task.split("/")[2:]
        assert tuple(step.action for step in episode.trajectory) == generate(kind, int(seed)).walkthrough
    assert _known(outcome.records)[0] == _known(outcome.records)[1]


def test_the_expert_can_be_named(tmp_path: Path) -> None:
    outcome = _run(tmp_path / "walkthrough", "random", expert="walkthrough", tasks=GAMES[:1], max_steps=3)
    assert outcome.manifest.expert == outcome.summary.expert == "walkthrough"
    first = outcome.records[0].trajectory[0].expert_action
    assert first == generate("pick", 0).walkthrough[0]
    followed = _run(tmp_path / "seen", "expert", expert="seen", tasks=GAMES[:1], max_steps=3)
    assert followed.manifest.expert == "seen"
    assert "expert" not in RunConfig(agent="random").model_dump()
    for changes, message in (
        ({"expert": "sen"}, "unknown expert 'sen' of alfworld-gen; did you mean 'seen'"),
        ({"expert": "seen", "expert_actions": False}, "--no-expert-actions"),
        ({"expert": "seen", "env": "scienceworld", "tasks": None}, "environment 'scienceworld' has one expert"),
    ):
        with pytest.raises(UsageError, match=message):
            make_plan(RunConfig(**{"agent": "random", "tasks": GAMES, **changes}))


def test_where_nothing_is_recorded_no_expert_is_named(tmp_path: Path) -> None:
    outcome = _run(tmp_path / "none", "random", expert_actions=False)
    assert outcome.manifest.expert == "" and _known(outcome.records)[0] == 0


@pytest.mark.parametrize("before", ["", "seen"])
def test_a_resumed_run_keeps_its_expert(tmp_path: Path, before: str) -> None:
    folder = tmp_path / "run"
    whole = _run(folder, "random", mode="prompt")
    manifest, lines = folder / "manifest.json", (folder / "episodes.jsonl").read_text().splitlines(keepends=True)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "expert": before}))
    (folder / "episodes.jsonl").write_text(lines[0])
    resumed = resume_run(folder, agent=make_agent("random"), resources=Resources(workers=0), observer=SilentObserver())
    assert resumed.manifest.expert == before
    first, second = resumed.records
    assert first == whole.records[0] and [step.action for step in second.trajectory] == [
        step.action for step in whole.records[1].trajectory
    ]
    known, states = _known([second])
    # A run from before experts were named had the walkthrough, which is silent once it was left.
    assert known == states if before == "seen" else 0 < known < states


def test_a_submission_is_replayed_with_its_expert() -> None:
    assert verify_bundle(unpack(packed())).difference is None
    found = verify_bundle(unpack(edited(packed(), manifest=setting("expert", to="walkthrough")))).difference
    assert found is not None and found.field == "expert_action"


def test_the_names_are_those_of_the_environments() -> None:
    for entry in builtin_entries():
        for name in entry.experts or ():
            entry.make(expert=name).close()


def test_an_expert_that_does_not_understand_the_task_is_silent_and_ends_no_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise GameFileError("a task sentence that is not understood: 'do the dishes'")

    task = {"task": GAMES[0]}
    env = env_entry("alfworld-gen").make(expert="seen", request=["expert_action"])
    _, info = env.reset(options=task)
    assert info["expert_action"]
    with monkeypatch.context() as patch:
        patch.setattr("cotbench.envs.alfworld.expert.Expert.mind", refuse)
        *_, info = env.step("look")
        assert info["expert_action"] is None
    monkeypatch.setattr("cotbench.envs.alfworld.expert.read_goal", refuse)
    observation, info = env.reset(options=task)
    assert observation and info["expert_action"] is None
    assert env.step("look")[-1]["expert_action"] is None


@needs_bfcl
def test_in_bfcl_the_expert_comes_back_where_a_turn_passed_nevertheless(tmp_path: Path) -> None:
    task = next(task for task in data.ids("multi_turn_base") if len(data.turns(task)) > 2 and all(data.ground_truth(task)))
    turns = [f"[{', '.join(calls)}]" for calls in data.ground_truth(task)]
    known: dict[str, list[bool]] = {}
    for expert in ("turn", "resume"):
        env = env_entry("bfcl").make(expert=expert, request=["expert_action"])
        _, info = env.reset(options={"task": task})
        known[expert] = []
        # A call that changes nothing leads off the path; the turn passes all the same, or it does not.
        for action in ("[nothing()]", turns[0], "[]", turns[1], "[nothing()]", "[]", "[]"):
            *_, info = env.step(action)
            known[expert].append(info["expert_action"] is not None)
        env.close()
    assert known["turn"] == [False] * 7
    assert known["resume"] == [False, False, True, True, False, True, False]


@needs_bfcl
def test_a_run_on_bfcl_records_it_and_an_agent_that_follows_wins(tmp_path: Path) -> None:
    few: dict[str, Any] = {"env": "bfcl", "tasks": ("bfcl/multi_turn_base_10",), "mode": "prompt"}
    random = run(RunConfig(agent="random", max_steps=2, **few), out=tmp_path / "random", workers=0)
    expert = run(RunConfig(agent="expert", **few), out=tmp_path / "expert", workers=0)
    assert (random.manifest.expert, expert.manifest.expert) == ("resume", "turn")
    assert expert.records[0].success and random.manifest.dialect == ""


@needs_scienceworld
def test_an_environment_with_one_expert_names_none(tmp_path: Path) -> None:
    config = RunConfig(agent="random", env="scienceworld", tasks=("scienceworld/find-plant/255",), max_steps=1, mode="prompt")
    outcome = run(config, out=tmp_path / "run", workers=0)
    assert outcome.manifest.expert == outcome.manifest.dialect == ""
