"""What a study says of measurements whose truth is known: made by rule, not by a model."""

import dataclasses
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cotbench.errors import RunFolderError
from cotbench.judge.preference import PreferenceRow
from cotbench.probes.alignment import AlignmentRow
from cotbench.probes.attention import AttentionRow
from cotbench.probes.conflict import ConflictRow
from cotbench.probes.folder import ProbeManifest, ProbeResult
from cotbench.probes.gradient import GradientRow
from cotbench.probes.numbers import ProbeRow
from cotbench.report.page import Figure, Table
from cotbench.stats import estimates
from cotbench.stats.crossed import crossed_mean
from cotbench.stats.decodability import Decodability
from cotbench.stats.estimates import Estimate, paired_rate_difference
from cotbench.stats.multiple_testing import holm
from cotbench.stats.trend import CheckpointSeries
from cotbench.study import report_conflict, report_masking, report_probes, report_tests, report_traces, report_training
from cotbench.study.comparisons import CHANGES, finding_of
from cotbench.study.config import StudyConfig, parse_study
from cotbench.study.data import StudyData
from cotbench.study.family import family_of
from cotbench.study.figures import reading_notes
from cotbench.study.folder import folder_of, write_mark
from cotbench.study.plan import make_study_plan
from cotbench.study.report import answer, section_makers
from cotbench.study.report_cards import cards_of
from cotbench.study.report_claims import claims_of, claims_table, claims_verdict
from cotbench.study.report_training import Scope
from cotbench.study.series import final_success, success_levels

TASKS, STATES = 60, 5

STUDY = """
name = "made"
models = ["tiny"]
seeds = [0, 1, 2]
checkpoints = [0.0, 0.5, 1.0]
margin = 0.1
[envs]
alfworld-gen = ["id", "ood"]
[[arms]]
name = "sft"
[[arms]]
name = "sft+"
options = { mask_fraction = 0.3 }
[[arms]]
name = "sft+70"
options = { mask_fraction = 0.7 }
[[probes]]
probe = "alignment"
[[probes]]
probe = "conflict"
"""

Rate = Callable[[str | None, float, str], tuple[float, float]]
"""(arm, share of the training, split) -> how often the prompt action, and the CoT action, is right."""


def _alignment(rates: tuple[float, float], seed: int) -> list[ProbeRow]:
    """States whose actions are right at just these rates, spread evenly over tasks and a little differently for each seed."""
    rows: list[ProbeRow] = []
    total = TASKS * STATES
    for number in range(total):
        # A fixed shuffle, so that what is right is not the same task's states.
        place = (number * 7919 + seed * 31) % total
        right = [place < round(rate * total) for rate in rates]
        actions = ["go right" if one else f"go wrong {mode}" for one, mode in zip(right, ("p", "c"), strict=True)]
        rows.append(
            AlignmentRow(
                task=f"t/{number // STATES}",
                step=number % STATES,
                reference="go right",
                prompt_action=actions[0],
                cot_action=actions[1],
                prompt_logprob=-2.0,
                cot_logprob=-1.0,
            )
        )
    return rows


def _conflict(kept: float) -> list[ProbeRow]:
    rows: list[ProbeRow] = []
    for number in range(TASKS):
        action = "mine" if (number * 7919) % TASKS < round(kept * TASKS) else "theirs"
        rows.append(
            ConflictRow(
                task=f"t/{number}",
                step=0,
                prompt_action="mine",
                own_action="mine",
                donor_action="theirs",
                truncations=(0.5, 1.0),
                # The headline is at a half; the whole trace is followed everywhere.
                conflicting=(action, "theirs"),
                conflicting_unconcluded="mine" if number % 2 else None,
                own=("mine", "mine"),
                empty="mine",
            )
        )
    return rows


def _study(
    rate: Rate, kept: Callable[[float], float] = lambda share: 0.5, text: str = STUDY, env: str = "alfworld-gen"
) -> Scope:
    config: StudyConfig = parse_study(text, "made")
    plan = make_study_plan(config)
    probed = []
    for stage in plan.of_kind("probe"):
        place = stage.place
        share = place.progress or 0.0
        rows = (
            _alignment(rate(place.arm, share, str(place.split)), place.seed or 0)
            if place.probe == "alignment"
            else _conflict(kept(share))
        )
        options: dict[str, Any] = {} if place.probe == "alignment" else {"truncations": (0.5, 1.0)}
        manifest = ProbeManifest.model_construct(
            probe=str(place.probe), options=options, elicitation_fingerprint="0" * 16, states_sha256="0"
        )
        probed.append((place, ProbeResult(Path(), manifest, rows)))
    data = StudyData(Path("nowhere"), config, plan, (), tuple(probed), ())
    return Scope(data, env, "tiny")


def test_each_traces_stage_has_a_row(tmp_path: Path) -> None:
    scope = _study(_both_rise)
    (stage,) = scope.data.plan.of_kind("traces")
    scope = dataclasses.replace(scope, data=dataclasses.replace(scope.data, folder=tmp_path))
    assert report_traces.traces_section(scope) is None, "not done"
    (tmp_path / "done").mkdir()
    write_mark(tmp_path, stage, 1.0)
    with pytest.raises(RunFolderError, match=r"traces\.json is missing or damaged"):
        report_traces.traces_section(scope)
    share = Estimate(n=40, mean=0.99, low=0.98, high=1.0)
    names = ("action", "action_floor", "arguments", "arguments_floor", "arguments_in_trace")
    told = Decodability(decoder="d", decisions=300, tasks=40, **dict.fromkeys(names, share))
    folder_of(tmp_path, stage).mkdir(parents=True)
    for decodability, shown in ((told, share), (None, None)):
        numbers = report_traces.TracesNumbers(teacher="scripted", examples=310, trace_level="state", decodability=decodability)
        (folder_of(tmp_path, stage) / "traces.json").write_text(numbers.model_dump_json())
        section = report_traces.traces_section(scope)
        assert section is not None
        (table,) = section.items
        assert isinstance(table, Table)
        assert table.rows == (("sft, sft+, sft+70", "scripted", "state", 310, *[shown] * 5),)


def test_each_pairs_stage_has_a_row_with_its_card(tmp_path: Path) -> None:
    text = (
        STUDY
        + """
[[arms]]
name = "dpo"
recipe = "dpo"

[[arms]]
name = "dpo+"
recipe = "dpo+"
"""
    )
    scope = _study(_both_rise, text=text)
    stages = scope.data.plan.of_kind("pairs")
    scope = dataclasses.replace(scope, data=dataclasses.replace(scope.data, folder=tmp_path))
    assert report_traces.pairs_section(scope) is None, "not done"
    (tmp_path / "done").mkdir()
    cards = (
        {"pairs": 104, "identical_traces": 6, "left_out": {"not worse": 197}, "lost": 0, "mean_steps_lost": 1.2},
        {"pairs": 0, "identical_traces": 0, "left_out": {"error": 3, "not worse": 298}, "lost": 0, "mean_steps_lost": None},
    )
    for stage in stages[:2]:
        write_mark(tmp_path, stage, 1.0)
    with pytest.raises(RunFolderError, match=r"pairs\.json is missing or damaged"):
        report_traces.pairs_section(scope)
    for stage, card in zip(stages[:2], cards, strict=True):
        folder_of(tmp_path, stage).mkdir(parents=True)
        whole = {"states": 301, "samples": {"worse": 150, "as good": 54, "same action": 1000}, **card}
        (folder_of(tmp_path, stage) / "pairs.json").write_text(json.dumps(whole))
    section = report_traces.pairs_section(scope)
    assert section is not None
    (table,) = section.items
    assert isinstance(table, Table)
    seeds = [stage.place.seed for stage in stages[:2]]
    assert table.rows == (
        ("dpo, dpo+", "sft", seeds[0], 301, 104, 6, 0, 197, 150, 1204, 1.2, 0),
        ("dpo, dpo+", "sft", seeds[1], 301, 0, 0, 3, 298, 150, 1204, None, 0),
    )
    assert table.columns[6:8] == ("left out: error", "left out: not worse") and len(table.columns) == len(table.rows[0])
    assert report_traces.pairs_section in section_makers(scope.data.config)


def _both_rise(arm: str | None, share: float, split: str) -> tuple[float, float]:
    more = {"sft+": 0.1, "sft+70": 0.2}.get(arm or "", 0.0) if split == "ood" else 0.0
    return 0.2 + 0.4 * share, 0.3 + 0.4 * share + more * share


@cache
def _made() -> Scope:
    return _study(_both_rise)


def test_both_rise_and_the_gap_is_flat() -> None:
    first, second, third, *_ = answer(_study(_both_rise, lambda share: 0.2 + 0.6 * share))
    assert "on id, the prompt action's alignment with the reference rises (0.20 to 0.60 [" in first
    assert "the CoT action's rises (0.30 to 0.70 [" in first
    assert "the gap between them is flat (all its changes lie within 0.1)" in first
    assert "n = 60 tasks" in first
    assert "on id it rises (0.20 to 0.80 [" in second
    assert third.startswith("sft+ minus sft in CoT alignment at the end of the training, out of domain: ood +0.10 [+0.")


def test_only_the_cot_action_rises() -> None:
    scope = _study(lambda arm, share, split: (0.3, 0.3 + 0.5 * share), lambda share: 0.5)
    first, second, third, *_ = answer(scope)
    assert "the prompt action's alignment with the reference does not clearly move" in first
    assert "the gap between them rises by +0.50 [" in first
    assert "does not clearly move" in second
    assert "ood +0.00 [" in third


def test_everything_falls_and_it_is_said() -> None:
    first = answer(_study(lambda arm, share, split: (0.6 - 0.4 * share, 0.6 - 0.1 * share)))[0]
    assert "the prompt action's alignment with the reference falls (0.60 to 0.20" in first
    assert "the gap between them rises by +0.30" in first


def test_few_tasks_leave_flatness_undecided() -> None:
    scope = _made()
    few = []
    for place, probed in scope.data.probed:
        kept = [row for row in probed.rows if int(row.task.split("/")[1]) < 4]
        few.append((place, ProbeResult(probed.path, probed.manifest, kept)))
    data = StudyData(Path("nowhere"), scope.data.config, scope.data.plan, (), tuple(few), ())
    assert "stays undecided" in answer(Scope(data, scope.env, scope.model))[0]


def test_one_task_has_no_interval_and_it_is_said() -> None:
    scope = _made()
    one = tuple((place, ProbeResult(probed.path, probed.manifest, probed.rows[:2])) for place, probed in scope.data.probed)
    data = StudyData(Path("nowhere"), scope.data.config, scope.data.plan, (), one, ())
    told = answer(Scope(data, scope.env, scope.model))
    assert "moves (no interval)" in told[0]


def test_a_level_pools_the_seeds_and_keeps_each_as_a_dot() -> None:
    scope = _study(lambda arm, share, split: (0.5, 0.5))
    found = report_training.alignment_levels(scope, scope.cell("sft", "id"), "cot")
    assert found is not None
    assert found.shares == (0.0, 0.5, 1.0)
    assert [len(dots) for dots in found.by_seed] == [1, 3, 3]
    for estimate in found.estimates:
        assert estimate.mean == pytest.approx(0.5)
        assert estimate.n == TASKS


def test_the_change_table_is_over_tasks_and_seeds_with_adjusted_p() -> None:
    scope = _made()
    section = report_training.training_section(scope)
    assert section is not None
    table = next(item for item in section.items if isinstance(item, Table))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["gap is"] == "flat"
    found = report_training.gap_levels(scope, scope.cell("sft", "id"))
    assert found is not None and found.trend is not None
    assert row["gap"] == found.trend.change["both"] and row["p prompt"] == "<0.001*"
    assert "over 60 tasks and 3 seeds" in table.caption and "t intervals" in reading_notes(scope.data)[0]


def test_the_family_holds_the_claims_and_corrects_them_together() -> None:
    family = family_of(_made().data)
    changes = [(one.quantity, one.split) for one in family.claims if one.against is None]
    assert changes == [(quantity, "id") for quantity in CHANGES if quantity != "success gap"]  # No episode was played.
    arms = [(one.arm, one.against, one.split, one.quantity) for one in family.claims if one.against is not None]
    assert arms == [(arm, "sft", split, "CoT alignment") for arm in ("sft+", "sft+70") for split in ("id", "ood")]
    for some in (family.claims, [one for one in family.comparisons if not one.claim]):
        adjusted = holm({one.name: one.p for one in some})
        assert len(adjusted) == len(some)  # Names are distinct, and every comparison has a test.
        assert [one.p_holm for one in some] == [adjusted[one.name].adjusted for one in some]
    better = next(one for one in family.claims if (one.arm, one.split) == ("sft+", "ood"))
    assert better.estimate is not None and better.estimate.mean == pytest.approx(0.1, abs=0.01)
    assert better.detectable is not None and 0 < better.detectable < 0.1 and better.few_seeds


def _without_format(scope: Scope, broken: Callable[[float], bool], **wrong: bool) -> Scope:
    """The study with rows whose format is not kept at some shares of the training."""
    probed = []
    for place, found in scope.data.probed:
        rows = found.rows
        if place.probe == "alignment" and broken(place.progress or 0.0):
            rows = [row.model_copy(update=wrong) for row in rows]
        probed.append((place, ProbeResult(found.path, found.manifest, rows)))
    data = StudyData(Path("nowhere"), scope.data.config, scope.data.plan, (), tuple(probed), ())
    return Scope(data, scope.env, scope.model)


def test_a_series_begins_where_the_format_is_kept() -> None:
    scope = _without_format(_made(), lambda share: share == 0, cot_format_ok=False)
    cell = scope.cell("sft", "id")
    prompt, gap = report_training.alignment_levels(scope, cell, "prompt"), report_training.gap_levels(scope, cell)
    assert prompt is not None and prompt.shares == (0.0, 0.5, 1.0)
    assert gap is not None and gap.shares == (0.5, 1.0)
    first = answer(scope)[0]
    assert "the CoT action's rises (0.50 at 50% of it to 0.70 [" in first and "at 50% of it, " in first
    section = report_training.training_section(scope)
    assert section is not None
    assert "All arms and splits: CoT mode begins at 50% of the training; left out" in section.text
    test = family_of(scope.data).find(scope, "id", "sft", "CoT alignment")
    assert test is not None and test.estimate is not None and test.estimate.mean == pytest.approx(0.2, abs=0.01)


def test_arms_that_never_keep_the_format_are_not_compared() -> None:
    scope = _without_format(_made(), lambda share: True, cot_format_ok=False)
    of_training, of_conflict, *of_arms = answer(scope)
    for sentence in (of_training, of_conflict, *of_arms):
        assert "no checkpoint keeps the format in CoT mode" in sentence
    assert of_arms[0].startswith("sft+ minus sft in CoT alignment at the end of the training, out of domain: ood: sft+: no ")
    late = _without_format(_made(), lambda share: share < 1, cot_format_ok=False)
    assert "only the last checkpoint keeps the format in CoT mode (1.00 of its answers)" in answer(late)[0]


def test_where_no_checkpoint_keeps_the_format_it_is_said() -> None:
    scope = _without_format(_made(), lambda share: True, prompt_format_ok=False)
    never = "no checkpoint keeps the format in prompt mode (at most 0.00 of the answers, 0.9 required)"
    assert never in answer(scope)[0]
    section = report_training.training_section(scope)
    assert section is not None and never in section.text
    table = next(item for item in section.items if isinstance(item, Table))
    assert {row[2] for row in table.rows} == {None} and {row[8] for row in table.rows} == {"-"}
    claim = family_of(scope.data).find(scope, "id", "sft", "gap")
    assert claim is not None and claim.estimate is None and claim.p_holm is None
    assert "no checkpoint keeps the format in prompt mode and CoT mode" in claim.note


def test_one_seed_says_what_it_cannot() -> None:
    scope = _study(_both_rise, text=STUDY.replace("seeds = [0, 1, 2]", "seeds = [0]"))
    section = report_tests.tests_section(scope)
    assert section is not None and "With one seed the tests are over tasks, and decide no claim." in section.text
    table = section.items[0]
    assert isinstance(table, Table) and "Differences: 95 % intervals over 60 tasks." in table.caption
    assert "Elicitation" not in table.caption and any("Elicitation" in note for note in reading_notes(scope.data))
    three = report_tests.tests_section(_made())
    assert three is not None and "All seeds of an arm share one set of traces and one base." in three.text


def test_one_seed_decides_nothing_anywhere() -> None:
    """Sentences, the table of changes and the claims take what a test decides from one function."""
    scope = _study(_both_rise, lambda share: 0.2 + 0.6 * share, STUDY.replace("seeds = [0, 1, 2]", "seeds = [0]"))
    first, second, *_ = answer(scope)
    assert first.startswith("With one seed there is no verdict on the training.") and "from 0.20 to 0.60 [" in first
    for word in ("rises", "falls", "flat"):
        assert word not in first + second
    section = report_training.training_section(scope)
    assert section is not None
    table = next(item for item in section.items if isinstance(item, Table))
    assert {row[8] for row in table.rows} == {"undecided"}
    test = family_of(scope.data).find(scope, "id", "sft", "prompt alignment")
    assert test is not None and test.way == "rises" and finding_of(test) == "undecided"
    assert claims_verdict(claims_table([scope])).endswith("supports 0, contradicts 0 and cannot tell on 13.")


def test_sentences_and_claims_agree() -> None:
    scope = _study(_both_rise, lambda share: 0.2 + 0.6 * share)
    words = {"rises": "supported", "is flat": "supported", "falls": "contradicted"}
    first = answer(scope)[0]
    verdicts = {claim.text: claim.verdict for claim in claims_of(scope)}
    assert words["rises"] == verdicts["training improves the prompt action"] and "alignment with the reference rises" in first
    assert words["is flat"] == verdicts["the gap between them stays flat"] and "the gap between them is flat" in first


def test_the_cards_are_the_gap_the_change_in_consistency_and_what_is_kept() -> None:
    scope = _study(_both_rise, lambda share: 0.2 + 0.6 * share)
    gap, consistency, kept = cards_of([scope])
    assert (gap.estimate.mean, gap.estimate.n, gap.signed) == (pytest.approx(0.1, abs=0.01), 60, True)
    test = family_of(scope.data).find(scope, "id", "sft", "consistency")
    assert test is not None and consistency.estimate == test.estimate
    assert kept.estimate.mean == pytest.approx(0.8) and "under 50 % of the trace of another state" in kept.about
    assert all(card.about.endswith("sft, id") and card.estimate.low is not None for card in (gap, consistency, kept))
    assert len(cards_of([scope, scope])) == 6


def test_the_mask_ablation_goes_over_the_fractions_and_has_the_papers_numbers() -> None:
    section = report_masking.masking_section(_made())
    assert section is not None
    figure = next(item for item in section.items if isinstance(item, Figure))
    line = figure.panels[1].lines[0]
    assert line.x == (0.0, 0.3, 0.7)
    assert [estimate.mean for estimate in line.y] == pytest.approx([0.7, 0.8, 0.9], abs=0.005)
    table = next(item for item in section.items if isinstance(item, Table))
    assert "paper: success" not in table.columns  # The paper did not play generated games.
    section = report_masking.masking_section(_study(_both_rise, text=STUDY.replace("alfworld-gen", "alfworld"), env="alfworld"))
    assert section is not None
    table = next(item for item in section.items if isinstance(item, Table))
    reported = {(row[0], row[3]): row[6] for row in table.rows}
    assert reported["sft+", "ood"] == 0.63  # paper.md, mask fraction 0.3, ALFWorld.
    assert reported["sft+70", "ood"] == 0.60
    assert reported["sft+", "id"] is None
    two = STUDY.replace('[[arms]]\nname = "sft+70"\noptions = { mask_fraction = 0.7 }\n', "")
    assert report_masking.masking_section(_study(_both_rise, text=two)) is None


def test_the_conflict_section_is_about_a_half_of_the_trace() -> None:
    section = report_conflict.conflict_section(_study(_both_rise, lambda share: 0.2 + 0.6 * share))
    assert section is not None and "the headline is at 50 % of its words" in section.text
    cuts, half, whole = (item for item in section.items if isinstance(item, Figure))
    foreign, own = cuts.panels[:2]
    assert (foreign.title, own.title) == ("id: another state's trace", "id: its own trace")
    assert foreign.labels == ("50 %", "last sentence cut", "100 %")
    assert [line.label for line in foreign.lines] == ["before training", "after 100%"]
    assert [[round(one.mean or 0, 2) for one in line.y] for line in foreign.lines] == [[0.2, 1, 0], [0.8, 1, 0]]
    # The own trace was never cut to less than two sentences: nothing is drawn there.
    assert own.lines[0].x == (0.0, 2.0)
    (line,) = (line for line in half.panels[0].lines if line.label == "sft")
    assert [one.mean for one in line.y] == pytest.approx([0.2, 0.5, 0.8])
    assert {one.mean for panel in whole.panels for line in panel.lines for one in line.y} == {0.0}
    tables = {
        item.name: dict(zip(item.columns, item.rows[0], strict=True)) for item in section.items if isinstance(item, Table)
    }
    assert tables["conflict"]["kept at 0.5"].mean == pytest.approx(0.8)  # type: ignore[union-attr]
    assert tables["conflict_whole"]["kept at 1"].mean == 0.0  # type: ignore[union-attr]
    assert tables["conflict_cut"]["last sentence cut: kept"].mean == 1.0  # type: ignore[union-attr]
    counts = tables["conflict_donors"]
    assert (counts["states"], counts["donor's trace of one sentence"]) == (3 * TASKS, 3 * TASKS // 2)


def test_without_a_probe_its_section_is_not_there() -> None:
    scope = _made()
    nobody = _study(_both_rise)
    for _, probed in nobody.data.probed:
        if probed.manifest.probe == "conflict":
            probed.rows[:] = [ConflictRow(task=row.task, step=0, left_out="no admissible donor") for row in probed.rows]
    section = report_conflict.conflict_section(nobody)
    assert section is not None and section.text.startswith("No state was measured")
    (table,) = section.items
    assert isinstance(table, Table)
    assert dict(zip(table.columns, table.rows[0], strict=True))["left out: no admissible donor"] == 3 * TASKS
    alone = STUDY.replace('[[probes]]\nprobe = "conflict"\n', "")
    assert report_conflict.conflict_section(_study(_both_rise, text=alone)) is None
    for make in (
        report_probes.attribution_section,
        report_probes.preference_section,
        report_probes.sensitivity_section,
        report_training.success_section,
    ):
        assert make(scope) is None


def test_successes_with_one_outcome_a_task_have_rates_intervals() -> None:
    nothing = CheckpointSeries(progress=(0.0, 1.0), totals=[[[0.0] * 4, [1.0, 0.0, 0.0, 0.0]]], counts=[[[1.0] * 4] * 2])
    first, last = success_levels(nothing)
    assert (first.mean, first.low, first.high) == (0.0, *_wilson(0, 4))
    assert (last.mean, last.low, last.high) == (0.25, *_wilson(1, 4))
    against = success_levels(nothing, CheckpointSeries(progress=(0.0, 1.0), totals=[[[0.0] * 4] * 2], counts=[[[1.0] * 4] * 2]))
    assert against[1] == paired_rate_difference([False] * 4, [True, False, False, False])
    # Seeds that disagree on a task: no outcome of one trial any more.
    two = CheckpointSeries(progress=(1.0,), totals=[[[1.0, 0.0]], [[0.0, 0.0]]], counts=[[[1.0, 1.0]], [[1.0, 1.0]]])
    assert success_levels(two)[0].mean == 0.25
    assert success_levels(two)[0] == crossed_mean([[1.0, 0.0], [0.0, 0.0]]).share()
    # Before training there is one model, however many seeds: its tasks have one outcome each.
    base = CheckpointSeries(progress=(0.0,), totals=[[[1.0, 0.0]]] * 2, counts=[[[1.0, 1.0]]] * 2)
    assert success_levels(base)[0] == estimates.rate(1, 2)


def test_the_difference_of_successes_is_over_tasks_and_seeds() -> None:
    rng = np.random.default_rng(0)
    first, second = ((rng.random((5, 1, 40)) < chance).astype(float) for chance in (0.7, 0.5))
    ones = np.ones((5, 1, 40)).tolist()
    sides = [CheckpointSeries((1.0,), wins.tolist(), ones) for wins in (first, second)]
    found = final_success(*sides)
    by_hand = crossed_mean((first - second)[:, 0])
    assert found.p == pytest.approx(by_hand.p()) and found.estimate.low == pytest.approx(by_hand.estimate().low)
    one = final_success(*(CheckpointSeries((1.0,), side.totals[:1], side.counts[:1]) for side in sides))
    wins = [[bool(value) for value in side[0, 0]] for side in (second, first)]
    assert one.estimate == paired_rate_difference(*wins)
    only = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (wins, wins[::-1])]
    assert one.p == estimates.mcnemar(*only)


def _wilson(successes: int, n: int) -> tuple[float, float]:
    """By the formula."""
    z, p = 1.959963984540054, successes / n
    middle, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)
    return pytest.approx(max(0.0, low), abs=1e-9), pytest.approx(high)  # type: ignore[return-value]


def test_shares_stand_beside_their_second_form_and_the_null() -> None:
    text = STUDY + '[[probes]]\nprobe = "attention"\n[[probes]]\nprobe = "gradient"\n'
    config = parse_study(text, "made")
    plan = make_study_plan(config)
    sizes = {"prompt_tokens": 80, "trace_tokens": 15, "rest_tokens": 5}
    layers = {"prompt_layers": (0.6,), "trace_layers": (0.3,)}
    shares = {**sizes, **layers, "prompt": 0.6, "trace": 0.3, "rest": 0.1}
    direct = {"direct_prompt": 0.2, "direct_trace": 0.7, "direct_rest": 0.1}
    by_layer = {"direct_prompt_layers": (0.2,), "direct_trace_layers": (0.7,)}
    probed = []
    for stage in plan.of_kind("probe"):
        name = str(stage.place.probe)
        rows: list[ProbeRow] = [
            AttentionRow(task=f"t/{number}", step=0, **shares, first=0.5, first_layers=(0.5,))
            if name == "attention"
            else GradientRow(task=f"t/{number}", step=0, **shares, **direct, **by_layer)
            for number in range(5)
        ]
        manifest = ProbeManifest.model_construct(probe=name, options={}, elicitation_fingerprint="0" * 16, states_sha256=name)
        if name in ("attention", "gradient"):
            probed.append((stage.place, ProbeResult(Path(), manifest, rows)))
    section = report_probes.attribution_section(
        Scope(StudyData(Path("nowhere"), config, plan, (), tuple(probed), ()), "alfworld-gen", "tiny")
    )
    assert section is not None
    figures = {item.name: item for item in section.items if isinstance(item, Figure)}
    drawn = {
        (name, line.label): round(line.y[-1].mean or 0, 3)
        for name, figure in figures.items()
        for line in figure.panels[0].lines
    }
    assert drawn["attention_progress", "sft"] == drawn["gradient_progress", "sft"] == 0.6
    assert drawn["attention_progress", "sft, without the first token"] == 0.2
    assert drawn["gradient_progress", "sft, direct path"] == 0.2
    assert drawn["attention_progress", "uniform per token"] == 0.8
    assert drawn["gradient_progress", "uniform per token"] == round(80 / 99, 3)
    assert drawn["attention_layers", "before training, without the first token"] == 0.2
    assert drawn["gradient_layers", "after 100%, direct path"] == 0.2
    tables = {item.name: item for item in section.items if isinstance(item, Table)}
    for name, columns in (
        ("attention", ("prompt share", "prompt share, uniform per token", "prompt share without the first token")),
        ("gradient", ("prompt share", "prompt share, uniform per token", "direct path: prompt share")),
    ):
        row = dict(zip(tables[name].columns, tables[name].rows[0], strict=True))
        null = 0.8 if name == "attention" else 80 / 99
        assert [row[column].mean for column in columns] == pytest.approx([0.6, null, 0.2])  # type: ignore[union-attr]


def test_no_revision_at_all_is_no_preference_and_no_failure() -> None:
    text = STUDY + '[[probes]]\nprobe = "preference"\noptions = { judge = "random" }\n'
    config = parse_study(text, "made")
    manifest = ProbeManifest.model_construct(
        probe="preference", options={"judge": "random"}, elicitation_fingerprint="0" * 16, states_sha256="0"
    )
    rows: list[ProbeRow] = [PreferenceRow(task=f"t/{number}", step=0, left_out="same action") for number in range(5)]
    plan = make_study_plan(config)
    probed = tuple(
        (one.place, ProbeResult(Path(), manifest, rows)) for one in plan.of_kind("probe") if one.place.probe == "preference"
    )
    data = StudyData(Path("nowhere"), config, plan, (), probed, ())
    section = report_probes.preference_section(Scope(data, "alfworld-gen", "tiny"))
    assert section is not None
    table = section.items[0]
    assert isinstance(table, Table)
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        assert cells["states"] == 0
        assert cells["win rate of the cot action"].mean is None  # type: ignore[union-attr]
