"""Pairs as stages of a study: sampled from the end of an arm's training, shared by the arms that are trained on them."""

from __future__ import annotations

from typing import Any

import pytest

from cotbench.errors import UsageError
from cotbench.study.config import StudyConfig, parse_study
from cotbench.study.plan import StudyPlan, make_study_plan

STUDY = """
name = "preferences"
models = ["tiny"]
seeds = [0, 1]
checkpoints = [0.0, 0.5, 1.0]
[envs]
alfworld-gen = ["id"]
[traces]
episodes = 20
[pairs]
samples = 2
states = 50
[train]
preset = "tiny"
[[arms]]
name = "sft"
[[arms]]
name = "dpo"
recipe = "dpo"
[[arms]]
name = "dpo+"
recipe = "dpo+"
"""


def planned(text: str = STUDY) -> StudyPlan:
    return make_study_plan(parse_study(text, "s.toml"))


def test_arms_with_the_same_start_share_their_pairs() -> None:
    plan = planned()
    assert [stage.name for stage in plan.of_kind("pairs")] == ["pairs/sft-seed0", "pairs/sft-seed1"]
    for seed in (0, 1):
        stage = plan.named(f"pairs/sft-seed{seed}")
        assert stage.uses == (f"train/sft-seed{seed}", "traces")
        start = f"{{train/sft-seed{seed}@1}}"
        assert stage.command[:5] == ["pairs", "--agent", f"hf:{start}", "--data", "{traces}"]
        assert stage.command[5:] == ["--samples", "2", "--seed", str(seed), "--states", "50"]
        for arm in ("dpo", "dpo+"):
            training = plan.named(f"train/{arm}-seed{seed}")
            assert set(training.uses) == {stage.name, f"train/sft-seed{seed}"}
            words = training.command
            assert f'data=["{{pairs/sft-seed{seed}}}"]' in words and f'model="{start}"' in words
            assert words[words.index("--recipe") + 1] == arm


def test_every_stage_comes_after_what_it_uses() -> None:
    seen: set[str] = set()
    for stage in planned().stages:
        assert seen.issuperset(stage.uses), stage.name
        seen.add(stage.name)


def test_how_pairs_are_sampled_reaches_what_is_trained_on_them_and_nothing_else() -> None:
    before, after = (
        {stage.name: stage.key for stage in planned(text).stages} for text in (STUDY, STUDY.replace("= 50", "= 60"))
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("pairs/") or "dpo" in name}


def test_what_a_training_on_pairs_costs_depends_on_how_many_states_are_sampled() -> None:
    def tokens(text: str) -> dict[str, float]:
        return {stage.name.removesuffix("-seed0"): stage.tokens for stage in planned(text).stages if "seed0" in stage.name}

    few, more, most, every = (
        tokens(STUDY.replace("states = 50\n", f"states = {states}\n" if states else "")) for states in (45, 90, 10**6, None)
    )
    assert more["train/dpo"] == pytest.approx(2 * few["train/dpo"]) and most == every
    assert every["train/dpo"] > more["train/dpo"] and every["train/sft"] == few["train/sft"]


def test_a_study_without_pairs_is_written_as_before() -> None:
    text = STUDY.partition("[pairs]")[0] + '[[arms]]\nname = "sft"\n'
    config = parse_study(text, "s.toml")
    assert "pairs" not in config.model_dump()
    again = StudyConfig.model_validate_json(parse_study(STUDY, "s.toml").model_dump_json())
    assert again.pairs.states == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('recipe = "dpo"\n', 'recipe = "dpo"\nseeds = [0]\n'), None),
        (('name = "sft"\n', 'name = "sft"\nseeds = [0]\n'), "arm sft is not trained with seed 1"),
        (('[[arms]]\nname = "sft"\n', ""), "no arm of recipe sft"),
    ],
)
def test_an_arm_without_its_start_is_refused(change: tuple[str, str], message: Any) -> None:
    text = STUDY.replace(*change)
    if message is None:
        assert len(planned(text).of_kind("pairs")) == 2
        return
    with pytest.raises(UsageError, match=message):
        planned(text)


def test_an_arm_in_front_of_its_start_is_refused() -> None:
    sft = '[[arms]]\nname = "sft"\n'
    with pytest.raises(UsageError, match="arm dpo begins from arm sft: put it behind that one"):
        planned(STUDY.replace(sft, "") + sft)


def test_until_traces_leaves_the_pairs_out_and_until_train_does_not() -> None:
    plan = planned()
    assert not plan.until("traces").of_kind("pairs") and len(plan.until("train").of_kind("pairs")) == 2
