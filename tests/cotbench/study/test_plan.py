"""Stages: what they are, and what a changed option reaches."""

import json
import re
from typing import Any

import pytest

from cotbench.cli import run_cli
from cotbench.study import cost
from cotbench.study.config import StudyConfig, parse_study, read_study
from cotbench.study.plan import StudyPlan, make_study_plan

RL_ARMS = ("sft", "sft+", "dpo", "dpo+", "frodo", "grpo", "grpo+")


@pytest.fixture(scope="module")
def smoke() -> StudyConfig:
    return read_study("smoke")


def _changed(config: StudyConfig, **update: Any) -> StudyPlan:
    return make_study_plan(StudyConfig.model_validate(config.model_dump() | update))


def _differing(before: StudyPlan, after: StudyPlan) -> set[str]:
    keys = {stage.name: stage.key for stage in before.stages}
    return {stage.name for stage in after.stages if keys.get(stage.name) != stage.key}


@pytest.mark.parametrize(
    "name", ["smoke", "tiny", "tiny-rl", "small", "paper", pytest.param("paper-scripted", marks=pytest.mark.slow)]
)
def test_every_stage_comes_after_what_it_uses(name: str) -> None:
    plan = make_study_plan(read_study(name))
    seen: set[str] = set()
    for stage in plan.stages:
        assert stage.name not in seen
        assert seen.issuperset(stage.uses)
        text = " ".join(stage.command)
        assert all(f"{{{name}" in text for name in stage.uses)
        assert len(re.findall(r"\{[\w+./-]+(?:@[\d.]+)?\}", text)) >= len(stage.uses)
        seen.add(stage.name)
    assert len({stage.key for stage in plan.stages}) == len(plan.stages)
    assert len({stage.folder for stage in plan.stages}) == len(plan.stages)


@pytest.mark.parametrize("name", ["smoke", "tiny", "small"])
def test_a_study_read_from_its_folder_has_the_same_stages(name: str) -> None:
    config = read_study(name)
    again = StudyConfig.model_validate_json(config.model_dump_json())
    assert [stage.key for stage in make_study_plan(again).stages] == [stage.key for stage in make_study_plan(config).stages]


def test_the_studies_have_every_system_of_the_paper() -> None:
    for name in ("tiny-rl", "paper"):
        assert set(RL_ARMS) <= {arm.recipe if arm.name != "sft+" else arm.name for arm in read_study(name).arms}, name


def test_grpo_begins_with_the_end_of_sft_of_the_same_seed_and_plays_the_studys_environment() -> None:
    plan = make_study_plan(read_study("tiny-rl"))
    trained = {(stage.place.arm, stage.place.seed): stage for stage in plan.of_kind("train")}
    assert set(trained) == {(arm, seed) for arm in RL_ARMS for seed in (0, 1, 2)}
    for seed in (0, 1, 2):
        for arm in ("grpo", "grpo+"):
            stage = trained[arm, seed]
            text = " ".join(stage.command)
            assert stage.uses == (trained["sft", seed].name,)
            assert f'model="{{{trained["sft", seed].name}@1}}"' in text and 'env="alfworld-gen"' in text
            assert f"--recipe {arm} " in text and f"seed={seed}" in text and "elicitation={trace_tokens = 64}" in text
            assert "data=" not in text


def test_a_study_measures_each_checkpoint_of_each_seed_on_each_split(smoke: StudyConfig) -> None:
    plan = make_study_plan(smoke)
    measured = {
        (stage.place.arm, stage.place.seed, stage.place.progress, stage.place.split)
        for stage in plan.of_kind("probe")
        if stage.place.probe == "alignment"
    }
    expected = {(None, None, 0.0, split) for split in ("id", "ood_pair")}
    expected |= {(arm, 0, share, split) for arm in ("sft", "sft+") for share in (0.5, 1.0) for split in ("id", "ood_pair")}
    assert measured == expected


def test_a_changed_option_reaches_what_depends_on_it_and_nothing_else(smoke: StudyConfig) -> None:
    before = make_study_plan(smoke)
    assert _differing(before, make_study_plan(smoke)) == set()
    # A number of states: that probe, and those that take its answers.
    probes = [probe.model_dump() for probe in smoke.probes]
    next(probe for probe in probes if probe["probe"] == "conflict")["states"] = 11
    assert {name.split("/")[0] for name in _differing(before, _changed(smoke, probes=probes))} == {"conflict"}
    # An option of one arm: its training and all that measures it.
    arms = [smoke.arms[0].model_dump(), {**smoke.arms[1].model_dump(), "options": {"mask_fraction": 0.5}}]
    reached = _differing(before, _changed(smoke, arms=arms))
    assert reached == {stage.name for stage in before.stages if stage.place.arm == "sft+"}
    # The traces: every training; not the model before it, not the reference.
    reached = _differing(before, _changed(smoke, traces={"teacher": "scripted", "episodes": 300}))
    assert reached == {stage.name for stage in before.stages if stage.place.arm is not None} | {"traces"}
    # The margin is a matter of the report.
    assert _differing(before, _changed(smoke, margin=0.2)) == set()
    # How answers are asked for: everything but what makes the training data.
    assert "traces" not in (reached := _differing(before, _changed(smoke, elicitation={"trace_tokens": 32})))
    assert {stage.name for stage in before.of_kind("probe")} <= reached


ARMS = """
name = "arms"
models = ["tiny"]
checkpoints = [0.0, 1.0]
[envs]
alfworld-gen = ["id"]
[elicitation]
trace_tokens = 64
[traces]
teacher = "scripted?slips=0.05"
episodes = 100
[[arms]]
name = "sft"
[[runs]]
arms = ["sft"]
[[probes]]
probe = "alignment"
"""
FULL = '[[arms]]\nname = "full"\ntraces = { teacher = "scripted?names=full" }\n'
FULLER = '[[arms]]\nname = "fuller"\ntraces = { teacher = "scripted?names=full" }\noptions = { epochs = 3 }\n'
LISTED = '[[arms]]\nname = "listed"\nelicitation = { show_admissible = true }\n'


def test_an_arms_own_traces_are_a_stage_that_arms_share() -> None:
    before, after = make_study_plan(parse_study(ARMS, "a")), make_study_plan(parse_study(ARMS + FULL + FULLER, "a"))
    assert {stage.name: stage.key for stage in before.stages}.items() <= {
        stage.name: stage.key for stage in after.stages
    }.items()
    assert [stage.name for stage in after.of_kind("traces")] == ["traces", "traces/full"]
    own = after.named("traces/full")
    assert own.command == [*before.named("traces").command[:2], "scripted?names=full", *before.named("traces").command[3:]]
    uses = {stage.place.arm: stage.uses for stage in after.of_kind("train")}
    assert uses == {"sft": ("traces",), "full": ("traces/full",), "fuller": ("traces/full",)}
    alone = make_study_plan(parse_study(ARMS.replace('[[arms]]\nname = "sft"\n', FULL).replace('["sft"]', '["full"]'), "a"))
    assert [stage.name for stage in alone.of_kind("traces")] == ["traces/full"], "nobody is trained on the study's"


def test_an_arms_own_elicitation_has_its_own_start() -> None:
    before, after = make_study_plan(parse_study(ARMS, "a")), make_study_plan(parse_study(ARMS + LISTED, "a"))
    keys = {stage.name: stage.key for stage in after.stages}
    assert {stage.name: stage.key for stage in before.stages}.items() <= keys.items()
    more = {
        stage.name: stage
        for stage in after.stages
        if stage.name not in before.named("traces").uses and stage not in before.stages
    }
    assert set(more) == {"train/listed-seed0", "alignment/base-listed-id", "alignment/listed-seed0-1-id"}
    for name, stage in more.items():
        text = " ".join(stage.command)
        assert ("--show-admissible" in text or "show_admissible = true" in text) and "64" in text, name
        assert stage.place.elicited_as == (None if name.startswith("train") else "listed")
    # What is as usual, though it is said, is no other elicitation.
    said = make_study_plan(parse_study(ARMS + LISTED.replace("true", "false"), "a"))
    assert {stage.name for stage in said.stages} - {stage.name for stage in before.stages} == set(more) - {
        "alignment/base-listed-id"
    }


def test_other_probes_take_the_answers_of_alignment(smoke: StudyConfig) -> None:
    for stage in make_study_plan(smoke).of_kind("probe"):
        takes = [name for name in stage.uses if name.startswith("alignment/")]
        assert bool(takes) == (stage.place.probe != "alignment")
        assert all(name.removeprefix("alignment/") == stage.name.partition("/")[2] for name in takes)


def test_the_plan_of_the_paper_is_printed_with_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["study", "paper", "--dry-run", "--verbose"]) == 0
    out = capsys.readouterr().out
    # 4 models, 3 environments, 11 arms, 5 seeds.
    (cost,) = (line for line in out.splitlines() if re.match(r"train +660 ", line))
    found = re.search(r" ([\d.e+]+) +([\d.e+]+) +([\d.]+) h", cost)
    assert found and all(float(number) > 0 for number in found.groups())
    confident = [line for line in out.splitlines() if re.search(r"\bmask.select\W+confident\b", line)]
    assert len(confident) == 60 and all("-sft+confident-seed" in line.split(": ")[0] for line in confident)


def test_small_trains_a_pretrained_model_twice_an_arm_and_plays_at_the_end() -> None:
    plan = make_study_plan(read_study("small"))
    trained = {(stage.place.model, stage.place.arm, stage.place.seed) for stage in plan.of_kind("train")}
    assert trained == {("smollm2", arm, seed) for arm in ("sft", "sft+") for seed in (0, 1)}
    assert {stage.place.progress for stage in plan.of_kind("probe")} == {0.0, 0.5, 1.0}
    assert {stage.place.progress for stage in plan.of_kind("run")} == {0.0, 1.0}
    (masked,) = {
        " ".join(stage.command) for stage in plan.of_kind("train") if stage.place.arm == "sft+" and stage.place.seed == 0
    }
    assert all(f"--option {option}" in masked for option in ("mask_fraction=0.3", 'unit="episode"', "lora_rank=8"))


@pytest.mark.parametrize(
    ("changed", "cores", "gpu"),
    [
        ({}, (14, 18), (3, 5)),
        ({"seeds": [0]}, (7, 9.5), (1, 3)),
        ({"traces": {"episodes": 1500}, "train": {"epochs": 2.0}}, (45, 65), (6, 8)),
    ],
)
def test_small_takes_as_long_as_its_file_says(
    changed: dict[str, Any], cores: tuple[float, float], gpu: tuple[float, float]
) -> None:
    """By the estimate of a dry run: hours of two cores, minutes of one GPU."""
    settings = read_study("small").model_dump()
    for name, value in changed.items():
        settings[name] = settings[name] | value if isinstance(value, dict) else value
    stages = make_study_plan(StudyConfig.model_validate(settings)).stages
    work = [cost.flops(stage.place.model or "", stage.tokens, stage.trained) or 0.0 for stage in stages]
    assert cores[0] < sum(cost.seconds(one, cost.CPU_FLOPS) for one in work) / 2 / 3600 < cores[1]
    assert gpu[0] < sum(cost.seconds(one, 4e13) for one in work) / 60 < gpu[1] + 0.5


def test_the_first_stages_of_a_plan_use_none_of_the_others() -> None:
    plan = make_study_plan(read_study("small"))
    assert {stage.kind for stage in plan.until("traces").stages} == {"reference", "traces"}
    assert {stage.kind for stage in plan.until("train").stages} == {"reference", "traces", "train"}
    for kind in ("traces", "train"):
        part = plan.until(kind)
        names = {stage.name for stage in part.stages}
        assert all(names.issuperset(stage.uses) for stage in part.stages) and part.config == plan.config


def test_the_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["study", "smoke", "--dry-run", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)
    plan = make_study_plan(read_study("smoke"))
    assert [stage["key"] for stage in stages] == [stage.key for stage in plan.stages]
    assert all(stage["seconds"] > 0 and not stage["done"] for stage in stages)


def test_a_misspelt_option_of_the_recipe_is_told_before_anything_is_done(tmp_path: Any, capsys: Any) -> None:
    text = 'name = "s"\nmodels = ["tiny"]\n[envs]\nalfworld-gen = ["id"]\n'
    text += '[[arms]]\nname = "sft"\noptions = { mask_fracton = 0.3 }\n'
    (tmp_path / "s.toml").write_text(text)
    assert run_cli(["study", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "did you mean 'mask_fraction'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
