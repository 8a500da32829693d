"""Every registered environment keeps the same contract."""

import copy
import pickle
import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from cotbench.envs.base import TextEnv
from cotbench.envs.registry import env_entry, env_names
from cotbench.errors import EngineError, EpisodeOverError, MissingExtraError, UnknownNameError, UsageError
from tests.envs.scienceworld import simulators

INFO = {"task", "goal", "score", "raw_score", "success", "steps", "invalid_action", "restarts"}
MORE = {"bfcl": {"functions", "turn", "turns", "turns_passed"}}
"""What `info` holds in one environment alone."""

NONSENSE = {"bfcl": "[dance("}
"""What cannot be acted upon, where "dance" can: in BFCL words without a call end a turn."""


LONG = {"bfcl": "bfcl/multi_turn_base_10"}
"""A task that two actions cannot end."""

SHORT = {"scienceworld": "scienceworld/find-plant/255"}
"""A task with a short way to the goal, where others may have long ones."""


@pytest.fixture(params=env_names())
def kind(request: pytest.FixtureRequest) -> str:
    """The name of an environment whose engine is installed."""
    try:
        env_entry(request.param).require()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes environments of one kind, over real games where they need data, and closes them."""
    entry, made = env_entry(kind), []
    if kind == "scienceworld":
        monkeypatch.setattr("cotbench.envs.scienceworld.env.Server", simulators.Lent)
    settings = {"data": request.getfixturevalue("real_games")} if kind == "alfworld" else {}

    def maker(**kwargs: Any) -> TextEnv:
        env = gymnasium.make(entry.gym_id, disable_env_checker=True, **settings, **kwargs).unwrapped
        assert isinstance(env, TextEnv)
        made.append(env)
        return env

    yield maker
    for env in made:
        env.close()


def test_check_env_passes_without_a_warning(make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(render_mode="ansi"))


def test_twin_rollouts_are_equal(make: Any) -> None:
    def roll() -> list[Any]:
        env, rng = make(request=["admissible_actions"]), random.Random(5)
        observation, info = env.reset(seed=11)
        seen: list[Any] = [observation, info]
        for _ in range(8):
            action = rng.choice([*info["admissible_actions"], "nonsense", ""])
            *rest, info = env.step(action)
            seen += [*rest, info]
            if rest[2] or rest[3]:
                break
        return seen

    assert roll() == roll()


def test_info_holds_the_contract_and_nothing_unasked(make: Any, kind: str) -> None:
    env = make(max_steps=2)
    observation, info = env.reset(options={"task": LONG[kind]} if kind in LONG else None, seed=1)
    expected = INFO | MORE.get(kind, set())
    assert set(info) == expected
    assert info["goal"] and info["goal"] in observation
    assert (info["steps"], info["success"], info["score"], info["invalid_action"]) == (0, False, 0.0, None)
    observation, reward, terminated, truncated, info = env.step(NONSENSE.get(kind, "dance"))
    assert set(info) == expected
    assert info["invalid_action"]
    assert (reward, terminated, truncated, info["steps"]) == (0.0, False, False, 1)
    *_, terminated, truncated, info = env.step("inventory")
    assert (terminated, truncated, info["success"], info["invalid_action"]) == (False, True, False, None)
    with pytest.raises(EpisodeOverError):
        env.step("look")


def test_the_expert_wins_and_only_winning_terminates(make: Any, kind: str) -> None:
    # What ScienceWorld lists as valid is no complete list: its gold paths name things in other words too. In BFCL the values of
    # arguments are free: it lists examples.
    complete = kind not in ("scienceworld", "bfcl")
    env = make(request=["expert_action", "admissible_actions"] if complete else ["expert_action"])
    _, info = env.reset(seed=2, options={"task": SHORT[kind]} if kind in SHORT else None)
    terminated, gained = False, 0.0
    while info["expert_action"] is not None and not terminated:
        assert not complete or info["expert_action"] in info["admissible_actions"]
        assert not info["success"]
        _, reward, terminated, truncated, info = env.step(info["expert_action"])
        gained += reward
        assert not truncated
    assert terminated
    assert (info["success"], info["score"]) == (True, 1.0)
    assert info["raw_score"] == (100.0 if kind == "scienceworld" else 1.0)
    assert gained == pytest.approx(1.0)


def test_what_is_listed_as_admissible_is_executed(make: Any, kind: str) -> None:
    env, rng, before = make(request=["admissible_actions"]), random.Random(7), list[str]()
    named = {"task": LONG[kind]} if kind in LONG else None
    _, info = env.reset(options=named, seed=1)
    task = {"task": info["task"]}
    for _ in range(4 if kind == "alfworld" or kind == "alfworld-gen" else 2):
        listed = info["admissible_actions"]
        assert listed and listed == sorted(set(listed))
        # All of them where a state is quickly come to, some where it is not.
        tried = listed if kind != "scienceworld" else rng.sample(listed, 4)
        for action in tried:
            env.reset(options=task)
            for taken in before:
                env.step(taken)
            *_, info = env.step(action)
            assert info["invalid_action"] is None, (before, action, info["invalid_action"])
        # Go on from the last one that leaves the episode running.
        before.append(next(action for action in reversed(tried) if action != "[]"))
        env.reset(options=task)
        for taken in before:
            *_, terminated, truncated, info = env.step(taken)
        if terminated or truncated:
            break


def _pickled(env: TextEnv) -> TextEnv:
    return pickle.loads(pickle.dumps(env))  # type: ignore[no-any-return]


def test_a_running_environment_can_be_pickled_and_copied(make: Any, kind: str) -> None:
    for copied in (_pickled, copy.deepcopy) if kind != "scienceworld" else (_pickled,):
        env = make(request=["admissible_actions"], render_mode="ansi", max_steps=4)
        new = copied(env)
        with pytest.raises(EpisodeOverError):
            new.step("look")
        _, info = env.reset(seed=2, options={"task": LONG[kind]} if kind in LONG else None)
        for _ in range(2):
            *_, info = env.step(info["admissible_actions"][-1])
        new = copied(env)
        try:
            assert new is not env and type(new) is type(env) and new.spec == env.spec
            assert new.render() == env.render()
            action = info["admissible_actions"][len(info["admissible_actions"]) // 2]
            # In step with each other, and independent of each other.
            assert new.step(action) == env.step(action)
            *_, truncated, info = new.step("nonsense")
            assert truncated and info["steps"] == 4
            *_, truncated, info = env.step(action)
            assert truncated and info["steps"] == 4
            assert new.reset()[1]["task"] == env.reset()[1]["task"], "the same draw of the next task"
        finally:
            new.close()


def test_an_episode_that_cannot_be_repeated_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    env = env_entry("alfworld-gen").make()
    env.reset(seed=2)
    env.step("nonsense")
    pickled, act = pickle.dumps(env), type(env)._act
    monkeypatch.setattr(type(env), "_act", lambda self, action: replace(act(self, action), observation="something else"))
    with pytest.raises(EngineError, match="cannot be restored: repeated, its 1 actions led to another text") as told:
        pickle.loads(pickled)
    assert "\n" not in str(told.value)


def test_a_named_task_is_that_task_and_reset_starts_it_anew(make: Any) -> None:
    env = make()
    first, info = env.reset(seed=3)
    env.step("inventory")
    again, info_again = env.reset(options={"task": info["task"]})
    assert (first, info) == (again, info_again)


def test_the_seed_chooses_among_the_tasks(make: Any) -> None:
    env = make()
    drawn = [env.reset(seed=seed)[1]["task"] for seed in (0, 1, 2)]
    assert len(set(drawn)) > 1
    assert env.reset(seed=0)[1]["task"] == drawn[0]


def test_wrong_arguments_are_named(make: Any) -> None:
    with pytest.raises(UnknownNameError, match="request"):
        make(request=["admissable_actions"])
    with pytest.raises(UnknownNameError, match="split"):
        make(split="nowhere")
    with pytest.raises(UsageError, match="max_steps"):
        make(max_steps=0)
    with pytest.raises(UnknownNameError, match="render mode"), pytest.warns(UserWarning, match="render_mode='human'"):
        make(render_mode="human")
    env = make()
    with pytest.raises(EpisodeOverError):
        env.step("look")
    with pytest.raises(UnknownNameError, match="reset option"):
        env.reset(options={"tsak": "x"})
    env.reset(seed=0)
    with pytest.raises(UsageError, match="an action is a string"):
        env.step(3)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments(mode: str) -> None:
    envs = gymnasium.make_vec("cotbench/ALFWorldGen-v0", num_envs=2, vectorization_mode=mode)
    try:
        observations, info = envs.reset(seed=4)
        assert all("Your task is to" in text for text in observations)
        assert list(info["task"]) == [_task_for(4), _task_for(5)]
        observations, *_, info = envs.step(("dance", "look"))
        assert observations[0] == "Nothing happens."
        assert "unknown verb" in info["invalid_action"][0]
        assert info["invalid_action"][1] is None
    finally:
        envs.close()


def _task_for(seed: int) -> str:
    env = env_entry("alfworld-gen").make()
    task = env.reset(seed=seed)[1]["task"]
    env.close()
    return str(task)
