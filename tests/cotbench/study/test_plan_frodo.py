"""How a study plans `frodo`: after the supervised arm, from its checkpoint, played by the two-model agent."""

import pytest

from cotbench.errors import UsageError
from cotbench.study.config import parse_study
from cotbench.study.plan import StudyPlan, make_study_plan

STUDY = """
name = "frodo"
models = ["tiny"]
seeds = [0, 1]
checkpoints = [0.0, 0.5, 1.0]
reference = "expert"

[envs]
alfworld-gen = ["id"]

[traces]
teacher = "scripted"
episodes = 8

[[arms]]
name = "sft"
recipe = "sft"

[[arms]]
name = "frodo"
recipe = "frodo"

[[runs]]
episodes = 2
"""


def plan_of(text: str = STUDY) -> StudyPlan:
    return make_study_plan(parse_study(text, "frodo"))


def test_both_models_begin_from_the_supervised_arm_of_their_seed() -> None:
    plan = plan_of()
    for seed in (0, 1):
        stage = plan.named(f"train/frodo-seed{seed}")
        assert set(stage.uses) == {"traces", f"train/sft-seed{seed}"}
        assert f'model="{{train/sft-seed{seed}@1}}"' in stage.command
        assert 'data=["{traces}"]' in stage.command
        # A folder is no name of a model, so the preset of the study's model is named.
        assert stage.command[stage.command.index("--preset") + 1] == "tiny"
    assert "--preset" not in plan.named("train/sft-seed0").command


def test_its_checkpoints_are_played_by_two_models() -> None:
    runs = [stage for stage in plan_of().of_kind("run") if stage.place.arm == "frodo"]
    assert {stage.agent for stage in runs} == {
        f"frodo:{{train/frodo-seed{seed}@{share}}}" for seed in (0, 1) for share in ("0.5", "1")
    }


def test_without_a_supervised_arm() -> None:
    text = STUDY.replace('name = "sft"\nrecipe = "sft"', 'name = "masked"\nrecipe = "sft+"')
    with pytest.raises(UsageError, match="no arm of recipe sft"):
        plan_of(text)
