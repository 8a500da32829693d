"""What a training by `grpo` plays: the tasks of splits train and dev, for every environment that a study trains it in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.recipes.grpo.recipe import GRPO, elicitation_of
from cotbench.baselines.recipes.grpo.rollouts import dev_plan, train_plan
from cotbench.envs.registry import env_entry
from cotbench.recipes import recipe_named
from cotbench.runs import plan
from cotbench.study.arm_training import arm_options
from cotbench.study.config import PRESETS, read_study


@pytest.fixture
def all_games(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every game counts as being on this machine."""
    monkeypatch.setattr(plan, "playable", lambda source, tasks, *rest: tuple(tasks))


@pytest.mark.parametrize("name", PRESETS)
def test_each_study_has_the_tasks_that_its_arms_play(name: str, all_games: None) -> None:
    study = read_study(name)
    arms = [arm for arm in study.arms if arm.recipe in ("grpo", "grpo+")]
    assert arms or name not in ("paper", "tiny-rl")
    for arm in arms:
        for env in study.envs:
            options = arm_options(study, env, study.models[0], arm, study.seeds[0])
            config: Any = recipe_named(arm.recipe).resolve(options, options.pop("preset", None))
            elicitation = elicitation_of(config)
            dev = dev_plan(config, elicitation)
            assert dev is not None and dev.tasks and set(dev.tasks).isdisjoint(train_plan(config, elicitation).tasks)


def test_a_split_dev_with_fewer_tasks_is_played_whole(all_games: None) -> None:
    config = GRPO.resolve({"model": "m", "env": "bfcl", "dev_episodes": 64})
    found = dev_plan(config, elicitation_of(config))
    assert found is not None and sorted(found.tasks) == sorted(env_entry("bfcl").source().tasks("paper", "dev"))
    fewer = dev_plan(config.model_copy(update={"dev_episodes": 3}), elicitation_of(config))
    assert fewer is not None and len(fewer.tasks) == 3 and set(fewer.tasks) <= set(found.tasks)
