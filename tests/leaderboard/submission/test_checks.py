"""What can be checked without an engine: honest runs pass, whatever does not fit together is named with its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cotbench.envs.registry import env_entry
from cotbench.envs.splits import digest
from cotbench.envs.tasks import first_tasks
from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission import limits
from cotbench.leaderboard.submission.bundle import pack, unpack
from cotbench.leaderboard.submission.check_tasks import check_tasks, training_tasks
from cotbench.leaderboard.submission.checks import check, unranked_reasons
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import draw_tasks, make_plan
from cotbench.runs.runner import run
from tests.conftest import needs_bfcl, needs_hf, needs_scienceworld
from tests.leaderboard import made
from tests.leaderboard.made import DETAILS, JSON, bundled, edited, packed, setting

Edit = Callable[[Any], object]


def _refusal(**edits: Edit) -> str:
    """What is said of the usual run after edits."""
    bundle = unpack(edited(packed(), **edits))  # type: ignore[arg-type]
    with pytest.raises(SubmissionError) as raised:
        check(bundle)
    message = str(raised.value)
    assert message.isprintable() and len(message) < 700, message
    return message


# Honest runs pass.


def test_a_part_of_a_split_passes_and_has_no_rank() -> None:
    assert check(bundled()) == ("4 of 120 tasks", "step budget 6 instead of 50")
    assert check(bundled(max_steps=50, episodes=1, mode="prompt")) == ("1 of 120 tasks",)
    assert check(bundled(tasks=_games(), episodes=None)) == ("tasks named one by one", "step budget 6 instead of 50")
    assert check(bundled(episodes=2, seed=7, mode="cot", agent="expert", split="ood_room", max_steps=None)) == (
        "2 of 120 tasks",
    )


def _games() -> tuple[str, ...]:
    return make_plan(RunConfig(agent="random")).tasks[5:7]


@needs_bfcl
def test_a_whole_split_has_a_rank() -> None:
    asked: JSON = {"env": "bfcl", "scheme": "official", "split": "live_parallel", "max_steps": None, "agent": "expert"}
    assert check(bundled(**asked, episodes=None)) == ()
    # All tasks, but drawn: the same.
    assert check(bundled(**asked, episodes=16, mode="prompt")) == ()


@needs_bfcl
@pytest.mark.parametrize("agent", ["random", "expert"])
def test_conversations_pass(agent: str) -> None:
    asked: JSON = {"env": "bfcl", "agent": agent, "split": "ood_miss", "episodes": 2}
    assert check(bundled(**asked, max_steps=None)) == ("2 of 150 tasks",)
    if agent == "expert":
        assert check(bundled(**asked, max_steps=168)) == ("2 of 150 tasks", "step budget 168 instead of each task's own")


@needs_scienceworld
def test_scienceworld_passes() -> None:
    found = check(bundled(env="scienceworld", episodes=1, max_steps=3))
    assert found == ("1 of 100 tasks", "step budget 3 instead of each task's own")


@needs_hf
@pytest.mark.parametrize("style", ["prefill", "template"])
def test_a_model_passes(style: str) -> None:
    short = {"style": style, "trace_tokens": 12, "action_tokens": 8}
    bundle = bundled(agent="hf:tiny", episodes=1, max_steps=2, elicitation=short)
    assert check(bundle) == ("1 of 120 tasks", "step budget 2 instead of 50")
    assert all(
        step.decision.trace_tokens for episode in bundle.episodes for step in episode.trajectory if episode.mode == "cot"
    )


def test_a_replayed_run_passes() -> None:
    bundle = bundled(agent=f"replay:{made.played()}")
    assert check(bundle) == check(bundled()) and bundle.digest != bundled().digest


def test_real_games_are_not_needed(real_games: Path, tmp_path: Path) -> None:
    def played(**asked: Any) -> tuple[str, ...]:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        run(RunConfig(agent="random", env="alfworld", mode="cot", max_steps=1, **asked), out=folder, data=real_games)
        return check(unpack(pack(folder, DETAILS)))

    budget = "step budget 1 instead of 50"
    there = sum("/valid_seen/" in task for task in env_entry("alfworld").source().tasks("paper", "ood"))
    assert played(episodes=3) == ("3 of 91 tasks", budget)
    assert played(episodes=3, available_only=True) == ("3 of 91 tasks", budget)
    assert played(split="ood", available_only=True) == (f"{there} of 87 tasks, games were not there", budget)
    assert played(split="ood", available_only=True, episodes=2)[0] == "2 of 87 tasks, games were not there"


@pytest.mark.parametrize("env", ["alfworld-gen", "bfcl", "scienceworld"])
@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_the_tasks_are_those_that_a_run_draws(env: str, seed: int) -> None:
    entry, usual = env_entry(env), bundled().manifest
    for split in entry.source().schemes()["paper"]:
        for episodes in (None, 1, 2, 40, 200):
            if split in ("train", "dev") or (episodes or 0) > len(entry.source().tasks("paper", split)):
                continue
            config = RunConfig(agent="random", env=env, split=split, episodes=episodes, seed=seed)
            plan = make_plan(config)
            told = {"config": config, "task_list": plan.tasks, "split_tasks": plan.split_tasks}
            again = check_tasks(usual.model_copy(update=told), entry)
            assert again == plan and again.rollouts == plan.rollouts
            other = (*plan.tasks[1:], plan.tasks[0])
            if len(other) > 1:
                with pytest.raises(SubmissionError, match=r"task_list\.0 is"):
                    check_tasks(usual.model_copy(update={**told, "task_list": other}), entry)


def test_no_split_for_training_or_tuning_is_scored() -> None:
    usual = bundled().manifest
    refused = set()
    for env in ("alfworld", "alfworld-gen", "bfcl", "scienceworld"):
        entry = env_entry(env)
        for scheme, splits in entry.source().schemes().items():
            for split in splits:
                config = RunConfig(agent="random", env=env, scheme=scheme, split=split)
                tasks = entry.source().tasks(scheme, split)
                first = first_tasks(entry.source(), scheme, split)
                manifest = usual.model_copy(update={"config": config, "task_list": first, "split_tasks": len(tasks)})
                try:
                    check_tasks(manifest, entry)
                    assert not (training_tasks(env) | set(entry.source().tasks("paper", "dev"))) & set(tasks)
                except SubmissionError as error:
                    reason = "dev is for tuning" if split == "dev" else "are trained on"
                    assert f"{reason}, so it is not scored: submit a run on another split" in str(error)
                    refused.add(f"{env} {scheme}/{split}")
    assert refused == {
        "alfworld paper/train",
        "alfworld paper/dev",
        "alfworld official/train",
        "alfworld-gen paper/train",
        "alfworld-gen paper/dev",
        "scienceworld paper/train",
        "scienceworld paper/dev",
        "scienceworld official/train",
        "scienceworld official/dev",
        "bfcl paper/train",
        "bfcl paper/dev",
        "bfcl official/multi_turn_base",
    }


def test_the_first_120_games_of_a_generated_split_are_ranked_as_before_it_grew() -> None:
    usual = bundled().manifest
    source = env_entry("alfworld-gen").source()
    first, whole = first_tasks(source, "paper", "id"), source.tasks("paper", "id")

    def checked(tasks: Sequence[str], split_tasks: int, **config: Any) -> tuple[str, ...]:
        """What `check` says of a run of these tasks, its episodes taken as right."""
        of = usual.config.model_copy(update={"episodes": None, "max_steps": None, **config})
        changes = {"config": of, "task_list": tuple(tasks), "split_tasks": split_tasks}
        bundle = replace(bundled(), manifest=usual.model_copy(update=changes))
        check_tasks(bundle.manifest, env_entry("alfworld-gen"))
        return unranked_reasons(bundle, env_entry("alfworld-gen"))

    assert checked(first, 120) == checked(first, 1000) == ()
    assert checked(draw_tasks(whole, 120, 3, first), 1000, episodes=120, seed=3) == ()
    (more,) = checked(draw_tasks(whole, 200, 0, first), 1000, episodes=200)
    assert more == "200 tasks instead of the 120 that --episodes 120 plays"
    with pytest.raises(SubmissionError, match="split_tasks is 120, not 1000"):
        checked(draw_tasks(whole, 200, 0, first), 120, episodes=200)
    with pytest.raises(SubmissionError, match=r"task_list\.3 is"):
        checked(whole, 1000)


# Why there is no rank.


def _failed(episode: JSON) -> None:
    outcome = {"success": False, "score": 0.0, "raw_score": 0.0, "terminated": False, "truncated": False}
    episode.update(outcome, error="the server is gone")


def test_an_error_is_a_reason_and_no_score() -> None:
    one = unpack(edited(packed(), episodes=lambda rows: _failed(rows[2])))
    assert check(one) == ("4 of 120 tasks", "1 of 8 episodes ended in an error", "step budget 6 instead of 50")

    def two(rows: list[JSON]) -> None:
        _failed(rows[2])
        _failed(rows[3])
        rows[3].update(trajectory=[], steps=0)

    assert "2 of 8 episodes ended in errors" in check(unpack(edited(packed(), episodes=two)))


# The manifest.


MANIFEST: dict[str, tuple[Edit, str]] = {
    "no such environment": (setting("config", "env", to="alfword"), "config.env: unknown environment 'alfword'; did you mean"),
    "no such scheme": (setting("config", "scheme", to="mine"), "config: unknown scheme 'mine' of alfworld-gen"),
    "no such split": (setting("config", "split", to="test"), "config: unknown split 'test' of alfworld-gen in scheme 'paper'"),
    "a training split": (
        setting("config", "split", to="train"),
        "config.split: 8000 of the 8000 tasks of alfworld-gen paper/train are trained on, so it is not scored",
    ),
    "another split": (
        setting("config", "split", to="ood"),
        "is not a task of alfworld-gen paper/ood: play it with the --split",
    ),
    "another environment": (setting("config", "env", to="bfcl"), "unknown dialect 'move' of environment 'bfcl'"),
    "another environment, without a dialect": (
        lambda manifest: (manifest["config"].update(env="bfcl"), manifest.update(dialect="")),
        "instructions_sha256 is",
    ),
    "another dialect": (setting("dialect", to="put"), "instructions_sha256 is"),
    "another expert": (setting("expert", to="turn"), "expert is 'turn', which alfworld-gen does not have"),
    "another elicitation": (
        setting("config", "elicitation", "trace_tokens", to=512),
        "elicitation_fingerprint is '",
    ),
    "another fingerprint": (
        setting("elicitation_fingerprint", to="0" * 16),
        "elicitation_fingerprint is '0000000000000000', but its config give",
    ),
    "other instructions": (
        setting("instructions_sha256", to="f" * 64),
        "but the instructions of alfworld-gen give",
    ),
    "another list": (setting("task_list_sha256", to=digest(["a"])), "task_list_sha256 is"),
    "another number of tasks": (setting("split_tasks", to=4), "split_tasks is 4, not 1000"),
    "another seed": (setting("config", "seed", to=1), "task_list.0 is 'alfworld/gen/"),
    "another number of episodes": (
        setting("config", "episodes", to=3),
        "task_list has 4 tasks, the config gives 3",
    ),
    "all episodes": (setting("config", "episodes", to=None), "task_list.0 is 'alfworld/gen/"),
    "too many episodes": (setting("config", "episodes", to=1001), "config.episodes is 1001, the split has 1000 tasks"),
    "drawn and named": (
        lambda manifest: (manifest["config"].update(tasks=manifest["task_list"]), manifest.update(split_tasks=4)),
        "config: tasks names the tasks and episodes draws them",
    ),
    "games left out without leave": (setting("partial", to=True), "partial is true, which only --available-only allows"),
    "a date that is none": (setting("created", to="yesterday"), "created is 'yesterday', not a date and time"),
    "a date without a zone": (setting("created", to="2026-01-01T00:00:00"), "which names no time zone"),
    "a long agent": (setting("config", "agent", to="x" * 1001), "config.agent has 1,001 characters; at most 1,000"),
    "an agent of two lines": (setting("config", "agent", to="a\nb"), r"config.agent holds the character '\n': 'a\nb'"),
    "an agent from right to left": (setting("config", "agent", to="a\u202eb"), r"config.agent holds the character '\u202e'"),
    "an escape sequence": (setting("hardware", to={"cpu": "\x1b[2J"}), r"hardware.cpu holds the character '\x1b'"),
    "a name with an escape sequence": (setting("packages", to={"\x07": "1"}), r"a name in packages holds the character '\x07'"),
    "a long version": (setting("packages", to={"torch": "1" * 201}), "packages.torch has 201 characters; at most 200"),
    "many packages": (setting("packages", to={str(i): "1" for i in range(600)}), "packages holds more than 1,000 values"),
    "a deep description": (
        setting("agent", to={"a": [{"b": {"c": "\x00"}}]}),
        r"agent.a.0.b.c holds the character '\x00'",
    ),
    "a long description": (setting("agent", to={"a": "x" * 4001}), "agent.a has 4,001 characters; at most 4,000"),
    "a long place": (setting("agent", to={"a" * 150: {"b" * 150: {"c" * 150: "\x00"}}}), "holds the character"),
    "a long commit": (setting("git_commit", to="x" * 201), "git_commit has 201 characters"),
}


@pytest.mark.parametrize("name", MANIFEST)
def test_a_manifest_that_does_not_fit_is_refused(name: str) -> None:
    edit, message = MANIFEST[name]
    refusal = _refusal(manifest=edit)
    assert refusal.startswith("manifest.json: ") and message in refusal


def _list(tasks: Callable[[list[str]], list[str]], **config: object) -> Edit:
    """Another list of tasks, with the sha256 that it has."""

    def edit(manifest: JSON) -> None:
        listed = tasks(manifest["task_list"])
        manifest.update(task_list=listed, task_list_sha256=digest(listed))
        manifest["config"].update(config)

    return edit


LEARNT = min(training_tasks("alfworld-gen"))

TASKS: dict[str, tuple[Edit, str]] = {
    "none": (_list(lambda tasks: []), "task_list is empty"),
    "one twice": (_list(lambda tasks: [*tasks[:3], tasks[0]]), "task_list has 'alfworld/gen/"),
    "one swapped for an easier one": (
        _list(lambda tasks: [*tasks[:3], next(task for task in make_plan(RunConfig(agent="x")).tasks if task not in tasks)]),
        "task_list.3 is 'alfworld/gen/",
    ),
    "one of another split": (
        _list(lambda tasks: [*tasks[:3], "alfworld/gen/cool/8000"]),
        "task_list: 'alfworld/gen/cool/8000' is not a task of alfworld-gen paper/id",
    ),
    "one that is trained on": (
        _list(lambda tasks: [*tasks[:3], LEARNT]),
        f"task_list: '{LEARNT}' is not a task of alfworld-gen paper/id",
    ),
    "one that does not exist": (_list(lambda tasks: ["../" * 1000]), "task_list: '../../"),
    "in another order": (_list(lambda tasks: tasks[::-1]), "task_list.0 is 'alfworld/gen/"),
    "one less": (_list(lambda tasks: tasks[:3]), "task_list has 3 tasks, the config gives 4"),
}


@pytest.mark.parametrize("name", TASKS)
def test_other_tasks_than_those_that_were_drawn_are_refused(name: str) -> None:
    edit, message = TASKS[name]
    assert message in _refusal(manifest=edit)


def test_named_tasks_belong_to_their_split() -> None:
    def named(manifest: JSON) -> None:
        manifest["config"].update(tasks=[LEARNT], episodes=None)
        manifest.update(split_tasks=1)

    assert f"config.tasks: '{LEARNT}' is not a task of alfworld-gen paper/id" in _refusal(manifest=named)


@pytest.mark.parametrize(
    ("tasks", "config", "message"),
    [
        (lambda tasks: tasks, {"episodes": 3}, "task_list has 4 tasks, config.episodes is 3"),
        (lambda tasks: tasks, {"episodes": None}, "task_list.0 is 'alfworld/gen/"),
        (sorted, {"episodes": None, "available_only": False}, "partial is true, which only --available-only allows"),
        (
            lambda tasks: list(make_plan(RunConfig(agent="x")).tasks),
            {"episodes": None},
            "but all 120 tasks are in its task_list",
        ),
    ],
)
def test_a_split_with_games_left_out_is_still_a_part_of_it(
    tasks: Callable[[list[str]], list[str]], config: JSON, message: str
) -> None:
    def edit(manifest: JSON) -> None:
        _list(tasks, **{"available_only": True, **config})(manifest)
        manifest["partial"] = True

    assert message in _refusal(manifest=edit)


# The episodes. Line 1 is a prompt episode, line 2 the CoT episode of the same task.


def _swap(rows: list[JSON]) -> None:
    rows[1], rows[2] = rows[2], rows[1]


def _at(line: int, *path: str | int, to: object) -> Edit:
    return setting(line - 1, *path, to=to)


def _step(line: int, step: int, *path: str | int, to: object) -> Edit:
    return setting(line - 1, "trajectory", step, *path, to=to)


EPISODES: dict[str, tuple[Edit, str]] = {
    "one removed": (lambda rows: rows.pop(3), "episodes.jsonl: 1 of 8 episodes are missing, the first is alfworld/gen/"),
    "one doubled": (lambda rows: rows.insert(4, rows[1]), "episodes.jsonl, line 5: alfworld/gen/"),
    "two swapped": (_swap, "episodes.jsonl, line 2: is alfworld/gen/"),
    "another task": (_at(2, "task", to="alfworld/gen/cool/1"), "line 2: 'alfworld/gen/cool/1#cot' is not planned"),
    "another mode": (_at(2, "mode", to="prompt"), "episodes.jsonl, line 2: alfworld/gen/"),
    "another type": (_at(2, "task_type", to="x"), "task_type is 'x', not '"),
    "more steps": (_at(2, "steps", to=7), "): steps is '7', not '6'"),
    "a step left out": (lambda rows: rows[1]["trajectory"].pop(), "): steps is '6', not '5'"),
    "more steps than the budget": (
        lambda rows: rows[1].update(trajectory=[*rows[1]["trajectory"], rows[1]["trajectory"][0]], steps=7),
        "): steps is 7, the step budget is 6",
    ),
    "no steps": (lambda rows: rows[1].update(trajectory=[], steps=0), "): steps is 0: an episode that did not end in an error"),
    "a score above 1": (_at(2, "score", to=1.5), "): score is 1.5, not in [0, 1]"),
    "a score below 0": (_at(2, "score", to=-0.5), "): score is -0.5, not in [0, 1]"),
    "a score that no step has": (_at(2, "score", to=1.0), "): score is '1.0', not '0.0'"),
    "a step's score above 1": (_step(2, 3, "score", to=2), ", step 3: score is 2.0, not in [0, 1]"),
    "no end": (_at(2, "truncated", to=False), "): terminated and truncated are both False"),
    "two ends": (_at(2, "terminated", to=True), "): terminated and truncated are both True"),
    "restarts below zero": (_at(2, "restarts", to=-1), "): restarts is -1: impossible"),
    "seconds below zero": (_at(2, "seconds", to=-1.0), "): seconds is -1.0: impossible"),
    "an error with an end": (_at(2, "error", to="x"), "): truncated is True, but it ended in an error, which has no outcome"),
    "a success with an error": (
        lambda rows: rows[1].update(error="x", success=True),
        "): success is True, but it ended in an error, which has no outcome",
    ),
    "a score with an error": (
        lambda rows: (_failed(rows[1]), rows[1].update(score=1.0)),
        "): score is 1.0, but it ended in an error, which has no outcome",
    ),
    "another action": (_step(2, 3, "action", to="win"), ", step 3: action is 'win', not '"),
    "another answer": (_step(2, 3, "decision", "action", to="win"), "', not 'win'"),
    "an action in other letters": (
        lambda rows: rows[1]["trajectory"][3].update(action=rows[1]["trajectory"][3]["action"].upper()),
        ", step 3: action is '",
    ),
    "another prompt action": (_step(2, 3, "prompt_action", to="win"), ", step 3: prompt_action is 'win', not '"),
    "another prompt answer": (_step(2, 3, "prompt_decision", "action", to="win"), "', not 'win'"),
    "no prompt action": (_step(2, 3, "prompt_action", to=None), ", step 3: prompt_action is 'None', not '"),
    "no prompt decision": (
        _step(2, 3, "prompt_decision", to=None),
        ", step 3: prompt_decision is missing, and mode both has one at every state of a CoT episode",
    ),
    "a prompt decision in a prompt episode": (
        lambda rows: rows[0]["trajectory"][3].update(prompt_decision=rows[0]["trajectory"][3]["decision"]),
        ", step 3: prompt_decision is present, but only a CoT episode of mode both has one",
    ),
    "a prompt action in a prompt episode": (_step(1, 3, "prompt_action", to="x"), ", step 3: prompt_action is 'x', not 'None'"),
    "a trace in a prompt decision": (
        _step(2, 3, "prompt_decision", "trace", to="I think"),
        ", step 3: prompt_decision.trace is 'I think': a prompt action has no trace",
    ),
    "a trace in a prompt episode": (
        _step(1, 3, "decision", "trace", to=""),
        ", step 3: decision.trace is '': a prompt action has no trace",
    ),
    "an answer that failed": (
        _step(2, 3, "decision", "error", to="x"),
        ", step 3: decision.error is 'x': an answer that failed ends its episode",
    ),
    "a prompt answer that failed": (
        _step(2, 3, "prompt_decision", "error", to="x"),
        ", step 3: prompt_decision.error is 'x'",
    ),
    **{
        f"{name} {count}": (_step(2, 3, field, name, to=count), f", step 3: {field}.{name} is {count}: impossible")
        for name in (
            "prompt_tokens",
            "reused_tokens",
            "prefilled_tokens",
            "trace_tokens",
            "action_tokens",
            "dropped_observations",
        )
        for field, count in (("decision", -1), ("prompt_decision", 10**9))
    },
}


@pytest.mark.parametrize("name", EPISODES)
def test_episodes_that_do_not_fit_are_refused_with_their_place(name: str) -> None:
    edit, message = EPISODES[name]
    refusal = _refusal(episodes=edit)
    assert refusal.startswith("episodes.jsonl") and message in refusal
    if "): " in message or ", step 3" in message:
        line = 1 if "prompt episode" in name else 2
        task = bundled().episodes[0].task
        assert refusal.startswith(f"episodes.jsonl, line {line} ({task}#{('prompt', 'cot')[line - 1]})")


def test_a_prompt_decision_in_a_run_of_cot_alone_is_refused() -> None:
    data = packed(mode="cot")

    def edit(rows: list[JSON]) -> None:
        step = rows[0]["trajectory"][0]
        step.update(prompt_action=step["action"], prompt_decision={**step["decision"], "trace": None})

    assert check(unpack(data)) == check(bundled())
    with pytest.raises(SubmissionError, match="step 0: prompt_decision is present, but only a CoT episode of mode both"):
        check(unpack(edited(data, episodes=edit)))


def test_actions_are_counted_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundled()
    first = bundle.episodes[0].trajectory
    monkeypatch.setattr(limits, "ACTIONS", sum(len(step.decision.action) for step in first))
    with pytest.raises(SubmissionError, match=r"line 2 .* the actions of a submission have at most"):
        check(bundle)


@needs_bfcl
def test_an_action_that_is_nested_deeper_than_it_can_be_spelled_is_only_another_action() -> None:
    data = packed(env="bfcl", agent="expert", split="ood_miss", episodes=2, max_steps=None)
    nested = "[f(a=g" + "(a=1)" * 900 + ")]"
    with pytest.raises(SubmissionError, match=r"line 1 .* step 0: action is .*, not "):
        check(unpack(edited(data, episodes=_step(1, 0, "decision", "action", to=nested))))


def test_instructions_of_another_version_are_told_from_an_edit_by_nobody() -> None:
    other = hashlib.sha256(b"older words").hexdigest()
    message = _refusal(manifest=setting("instructions_sha256", to=other))
    assert message.endswith("it was made by another version of cotbench, or edited")
