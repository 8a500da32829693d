"""The sections on elicitations and wordings show what is in the rows, arm by arm."""

from __future__ import annotations

from pathlib import Path

from cotbench.probes.alignment_row import AlignmentRow
from cotbench.probes.folder import ProbeManifest, ProbeResult
from cotbench.probes.prompt_actions import ElicitedAction
from cotbench.probes.wording import WordedAnswer, WordingRow
from cotbench.prompting.wordings import WORDINGS
from cotbench.report.page import Figure, Table
from cotbench.stats.estimates import Estimate
from cotbench.study.config import parse_study
from cotbench.study.data import StudyData
from cotbench.study.plan import make_study_plan
from cotbench.study.report_elicitation import elicitation_section, wording_section
from cotbench.study.scope import Scope

STUDY = """
name = "made"
models = ["tiny"]
seeds = [0]
checkpoints = [0.0, 1.0]
[envs]
alfworld-gen = ["id"]
[[arms]]
name = "sft"
[[probes]]
probe = "alignment"
[[probes]]
probe = "wording"
"""
RATES = {"bare": 0.25, "empty": 0.5, "ranked": 0.75}
TASKS = 40


def _aligned(ranked: bool, shortens: bool) -> list[AlignmentRow]:
    rows = []
    for number in range(TASKS):
        right = {way: number < rate * TASKS for way, rate in RATES.items() if ranked or way != "ranked"}
        known = {way: one if shortens else None for way, one in right.items()}
        elicited = {
            way: ElicitedAction(action="right" if one else "wrong", equivalent=one, shortens=known[way])
            for way, one in right.items()
        }
        rows.append(
            AlignmentRow(
                task=f"t/{number}",
                step=0,
                reference="right",
                prompt_action=elicited["bare"].action,
                cot_action="right",
                elicited=elicited,
                not_elicited={} if ranked else {"ranked": "toy does not list all"},
                prompt_shortens=known["bare"],
                cot_shortens=True if shortens else None,
                reference_shortens=True if shortens else None,
            )
        )
    return rows


def _worded() -> list[WordingRow]:
    def answer(wording: str, number: int) -> WordedAnswer:
        right = wording != "brief" and number % 2 == 0
        return WordedAnswer(
            prompt_action="right" if right else "wrong", cot_action="right", prompt_format_ok=True, cot_format_ok=right
        )

    return [
        WordingRow(
            task=f"t/{number}", step=0, reference="right", worded={wording: answer(wording, number) for wording in WORDINGS}
        )
        for number in range(TASKS)
    ]


def _scope(ranked: bool = True, shortens: bool = True, more: str = "") -> Scope:
    config = parse_study(STUDY + more, "made")
    plan = make_study_plan(config)
    probed = []
    for stage in plan.of_kind("probe"):
        rows = _aligned(ranked, shortens) if stage.place.probe == "alignment" else _worded()
        manifest = ProbeManifest.model_construct(
            probe=str(stage.place.probe), options={}, elicitation_fingerprint="0" * 16, states_sha256="0"
        )
        probed.append((stage.place, ProbeResult(Path(), manifest, list(rows))))
    return Scope(StudyData(Path("nowhere"), config, plan, (), tuple(probed), ()), "alfworld-gen", "tiny")


def _means(table: Table, row: int) -> dict[str, float | None]:
    cells = zip(table.columns, table.rows[row], strict=True)
    return {name: cell.mean for name, cell in cells if isinstance(cell, Estimate)}


def test_three_curves_and_their_tables() -> None:
    section = elicitation_section(_scope())
    assert section is not None
    figures = {item.name: item for item in section.items if isinstance(item, Figure)}
    lines = {line.label: line.y[-1].mean for line in figures["elicitations_sft"].panels[0].lines}
    assert lines == {"bare tag": 0.25, "empty trace": 0.5, "ranked": 0.75, "CoT action": 1.0}
    assert {line.label for line in figures["shortens"].panels[0].lines} == {*lines, "the reference"}
    tables = {item.name: item for item in section.items if isinstance(item, Table)}
    ways, gaps = _means(tables["elicitations"], -1), _means(tables["elicitation_gaps"], -1)
    assert {way: ways[way] for way in RATES} == RATES and ways["CoT"] == 1.0
    assert (gaps["CoT - bare"], gaps["CoT - empty"], gaps["CoT - ranked"]) == (0.75, 0.5, 0.25)
    assert gaps["ranked = CoT"] == 0.75
    assert _means(tables["shortening"], -1)["CoT - prompt"] == 0.75
    assert [row[0] for row in tables["elicitations"].rows] == ["before training", "sft"]


def test_what_was_not_measured_is_left_out_with_its_reason() -> None:
    section = elicitation_section(_scope(ranked=False, shortens=False))
    assert section is not None
    tables = {item.name: item for item in section.items if isinstance(item, Table)}
    assert "no ranked prompt action: toy does not list all" in tables["elicitations"].caption
    assert tables["elicitations"].rows[-1][5] is None
    assert not any(item.name == "shortens" for item in section.items) and "shortening" not in tables
    assert "shorten" not in (section.text or "")


def test_the_model_before_training_stands_once_beside_arms_that_were_not_measured() -> None:
    arm = '[[arms]]\nname = "sft{0}"\noptions = {{ mask_fraction = 0.{0} }}\n'
    others = "".join(map(arm.format, (1, 2)))
    section = wording_section(_scope(more='arms = ["sft"]\n' + others))
    assert section is not None
    (table,) = section.items
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["sft"] * len(WORDINGS)


def test_the_wording_table_has_a_row_for_each_wording() -> None:
    section = wording_section(_scope())
    assert section is not None
    (table,) = section.items
    assert isinstance(table, Table)
    by_wording = {str(row[2]): _means(table, place) for place, row in enumerate(table.rows) if row[0] == "sft"}
    assert set(by_wording) == set(WORDINGS)
    assert {name: row["prompt"] for name, row in by_wording.items()} == {
        name: 0.0 if name == "brief" else 0.5 for name in WORDINGS
    }
    assert by_wording["brief"]["CoT: format kept"] == 0.0
