"""An arm that begins from another arm's end: its options, its checkpoint at 0, and how the report names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cotbench.errors import UsageError
from cotbench.probes.alignment_row import AlignmentRow
from cotbench.probes.folder import ProbeManifest, ProbeResult
from cotbench.report.page import Table
from cotbench.study import report_tests
from cotbench.study.arm_training import arm_config, starts
from cotbench.study.config import StudyConfig, parse_study
from cotbench.study.data import StudyData
from cotbench.study.plan import make_study_plan
from cotbench.study.report_training import revisions_section, training_section
from cotbench.study.scope import Scope
from cotbench.study.series import probe_series, series_levels

STUDY = """
name = "made"
models = ["tiny"]
seeds = [0, 1]
checkpoints = [0.0, 1.0]
[envs]
alfworld-gen = ["id"]
[train]
preset = "tiny"
epochs = 1.0
learning_rate = 0.003
max_tokens_per_forward = 2048
[[arms]]
name = "sft"
[[arms]]
name = "dpo"
recipe = "dpo"
options = { batch_size = 4 }
[[arms]]
name = "grpo"
recipe = "grpo"
[[arms]]
name = "frodo"
recipe = "frodo"
[[probes]]
probe = "alignment"
"""
TASKS = 20
RIGHT = {("base", None): 4, ("sft", 0): 10, ("sft", 1): 12, ("dpo", 0): 14, ("dpo", 1): 15}
"""(arm, seed) -> number of states of `TASKS` at which the prompt action is the reference's."""


def _study() -> StudyConfig:
    return parse_study(STUDY, "made")


def _rows(right: int) -> list[AlignmentRow]:
    found = []
    for number in range(TASKS):
        action = "right" if number < right else "wrong"
        found.append(AlignmentRow(task=f"t/{number}", step=0, reference="right", prompt_action=action, cot_action="right"))
    return found


def _scope(text: str = STUDY) -> Scope:
    config = parse_study(text, "made")
    plan = make_study_plan(config)
    manifest = ProbeManifest.model_construct(probe="alignment", options={}, elicitation_fingerprint="0" * 16, states_sha256="0")
    places = [stage.place for stage in plan.of_kind("probe")]
    probed = tuple(
        (place, ProbeResult(Path(), manifest, list(_rows(RIGHT[place.arm or "base", place.seed]))))
        for place in places
        if place.arm in (None, "sft", "dpo")
    )
    return Scope(StudyData(Path("nowhere"), config, plan, (), probed, ()), "alfworld-gen", "tiny")


def test_options_of_learning_are_for_arms_that_begin_with_the_studys_model() -> None:
    config = _study()
    sft, dpo, grpo, frodo = (arm_config(config, "tiny", arm) for arm in config.arms)
    assert (sft.learning_rate, sft.epochs, sft.max_tokens_per_forward) == (0.003, 1.0, 2048)
    for arm in (dpo, grpo, frodo):
        assert arm.learning_rate != 0.003 and arm.max_tokens_per_forward == 2048
    assert dpo.batch_size == 4 and grpo.updates == 40  # The arm's own options, and the preset's.


def test_without_a_preset_every_arm_has_the_one_of_the_studys_model() -> None:
    plain = parse_study(STUDY.replace('preset = "tiny"\n', ""), "made")
    presets = {stage.place.arm: getattr(stage.request, "preset", None) for stage in make_study_plan(plain).of_kind("train")}
    assert {arm: presets[arm] for arm in ("dpo", "grpo", "frodo")} == dict.fromkeys(("dpo", "grpo", "frodo"), "tiny")
    for before, after in zip(_study().arms, plain.arms, strict=True):
        assert arm_config(plain, "tiny", after) == arm_config(_study(), "tiny", before)


def test_each_arm_begins_from_the_first_arm_of_the_recipe() -> None:
    assert starts(_study()) == {"dpo": "sft", "grpo": "sft", "frodo": "sft"}


def test_the_checkpoint_at_0_is_the_end_of_the_arm_that_it_begins_from() -> None:
    scope = _scope()
    assert scope.data.shares(scope.cell("dpo", "id"), 0) == [0.0, 1.0]
    levels = {}
    for arm in ("sft", "dpo"):
        series = probe_series(scope.data, scope.cell(arm, "id"), 0, lambda row: row.prompt_match)
        assert series is not None
        levels[arm] = series_levels(series)
    assert levels["sft"].by_seed == ((0.2,), (0.5, 0.6)), "one model before training"
    assert levels["dpo"].by_seed == ((0.5, 0.6), (0.7, 0.75)), "each seed begins from its own"
    assert [one.mean for one in levels["dpo"].estimates] == [0.55, 0.725]


def test_an_arm_that_may_stop_early_is_refused() -> None:
    text = STUDY.replace('recipe = "grpo"\n', 'recipe = "grpo"\noptions = { early_stop = 2 }\n')
    with pytest.raises(UsageError, match=r"^arm grpo: early_stop ends a training before its last checkpoints.*omit it$"):
        make_study_plan(parse_study(text, "made"))


def test_an_arm_before_which_nothing_was_measured_has_no_start() -> None:
    scope = _scope()
    assert scope.data.shares(scope.cell("grpo", "id"), 0) == [0.0], "the end of sft stands for its start"
    assert scope.data.shares(scope.cell("sft", "id"), 0) == [0.0, 1.0]


def test_an_arm_with_fewer_seeds_begins_with_these_alone() -> None:
    scope = _scope(STUDY.replace('recipe = "dpo"\n', 'recipe = "dpo"\nseeds = [1]\n'))
    begun, ended = (scope.data.rows(scope.cell("dpo", "id"), 0, share) for share in (0.0, 1.0))
    assert [sum(row.prompt_match for row in rows) for rows in (begun, ended)] == [RIGHT["sft", 1], RIGHT["dpo", 1]]
    assert len(scope.data.rows(scope.cell("sft", "id"), 0, 1.0)) == 2 * TASKS


def test_the_report_says_where_arms_begin() -> None:
    scope = _scope()
    section = training_section(scope)
    assert section is not None and "Arms dpo, grpo, frodo begin from the end of sft, seed by seed" in (section.text or "")
    sentence = report_tests.seeds_sentence(scope)
    assert sentence.startswith("All seeds of an arm share one set of traces and one base. Arms dpo, grpo, frodo begin from the")
    assert "end of sft, seed by seed: in these arms a seed has its own start. The 2 seeds differ in what" in sentence
    assert "(order, masks): intervals over tasks and seeds hold for another such training" in sentence
    revisions = revisions_section(scope)
    assert revisions is not None
    table = next(item for item in revisions.items if isinstance(item, Table))
    assert [(row[0], row[2]) for row in table.rows] == [("before training", "0%"), ("sft", "100%"), ("dpo", "100%")]
