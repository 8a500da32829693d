"""The expert that knows the household: it wins from any state, in as many steps as the games' own plans take."""

from __future__ import annotations

import random

import pytest

from cotbench.envs.registry import env_entry


@pytest.fixture
def env():  # type: ignore[no-untyped-def]
    made = env_entry("alfworld-gen").make(split="id")
    yield made
    made.close()


def test_its_plan_is_as_long_as_the_games_own(env) -> None:  # type: ignore[no-untyped-def]
    tasks = random.Random(1).sample(list(env._split_tasks()), 12)
    longer = astray = 0
    for task in tasks:
        env.reset(options={"task": task})
        plan = env._walkthrough_commands
        steps = env.remaining_steps()
        longer += steps > len(plan)
        assert steps <= len(plan) + 1
        for action in plan[:-1]:
            astray += env.remaining_steps(action) >= env.remaining_steps()
            env.step(action)
        assert (env.remaining_steps(), env.remaining_steps(plan[-1])) == (1, 0)
        # Any single action from here that wins: the shortest plan is one step long, and no other action has length 0.
        winning = [action for action in env.admissible_actions() if env.remaining_steps(action) == 0]
        assert plan[-1] in winning
    assert longer + astray <= 2


def test_it_takes_over_from_any_player_and_leaves_the_game_alone(env) -> None:  # type: ignore[no-untyped-def]
    task = next(iter(env._split_tasks()))
    env.reset(options={"task": task})
    chance = random.Random(2)
    for _ in range(12):
        before, listed = env.remaining_steps(), env.admissible_actions()
        assert before is not None
        assert env.remaining_steps("look") == env.remaining_steps("inventory") == before
        assert env.remaining_steps("dance") == before
        after = {action: env.remaining_steps(action) for action in listed}
        assert min(steps for steps in after.values() if steps is not None) < before  # Some action always helps.
        assert env.admissible_actions() == listed
        _, _, ended, truncated, _ = env.step(chance.choice(listed))
        if ended or truncated:
            break
    # The same episode in another environment: the number does not depend on what was asked before.
    other = env_entry("alfworld-gen").make(split="id")
    other.reset(options={"task": task})
    for action in env._executed_actions:
        other.step(action)
    assert other.remaining_steps() == env.remaining_steps()


def test_other_environments_and_engines_do_not_know() -> None:
    from cotbench.envs.base import TextEnv

    assert env_entry("bfcl").loaded_class().remaining_steps is TextEnv.remaining_steps
    assert env_entry("scienceworld").loaded_class().remaining_steps is TextEnv.remaining_steps
