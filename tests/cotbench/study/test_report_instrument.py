"""The control arms' section: agents that obey the trace, obey it sometimes, or ignore it, in the order that they must have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.registry import spec_option
from cotbench.probes.folder import ProbeManifest, ProbeResult
from cotbench.prompting.query import Query
from cotbench.report.page import Figure, Table
from cotbench.study.config import parse_study
from cotbench.study.data import StudyData
from cotbench.study.plan import make_study_plan
from cotbench.study.report_instrument import control_roles, instrument_checks, instrument_section
from cotbench.study.scope import Scope
from tests.probing import Scripted, measured, states

STUDY = """
name = "controls"
models = ["tiny"]
seeds = [0, 1]
checkpoints = [0.0, 1.0]
[envs]
alfworld-gen = ["id"]
[[arms]]
name = "sft"
[[arms]]
name = "sft+"
options = { mask_fraction = 0.3 }
[[arms]]
name = "spelled"
traces = { teacher = "scripted?names=full" }
[[arms]]
name = "mixed"
options = { traces = "shuffled" }
[[arms]]
name = "dots"
options = { traces = "filler" }
[[arms]]
name = "bare"
options = { traces = "none" }
[[probes]]
probe = "alignment"
[[probes]]
probe = "conflict"
"""
ROLES = {"full": "spelled", "state": "sft", "shuffled": "mixed", "filler": "dots", "none": "bare"}


def agent(obeys: Callable[[Query], bool], right_alone: int) -> Scripted:
    """Writes the right action into its trace, and does what a trace says where it obeys; alone it is sometimes right."""

    def act(query: Query, trace: str | None) -> str:
        task = int(query.task.partition("/")[2])
        if trace is not None and obeys(query) and " take " in f" {trace}":
            return f"take {trace.rpartition('take ')[2]}".strip()
        return _right(query) if (7 * task + query.step) % 10 < right_alone else f"look {task}"

    return Scripted(act, lambda query: f"I know what to do. Now {_right(query)}")


def _right(query: Query) -> str:
    return f"take mug {query.task.partition('/')[2]} from desk {query.step}"


AGENTS = {
    None: agent(lambda query: False, 2),
    "spelled": agent(lambda query: True, 1),
    "sft": agent(lambda query: query.step == 0, 3),
    "sft+": agent(lambda query: query.step == 0, 3),
    "mixed": agent(lambda query: False, 4),
    "dots": agent(lambda query: False, 4),
    "bare": agent(lambda query: False, 9),
}


ROWS: dict[tuple[int, str], list[Any]] = {}


def study_of(rows: Callable[[Any, str], list[Any]], text: str = STUDY) -> Scope:
    """A study whose probes have these rows, by arm (None: before the training) and probe."""
    config = parse_study(text, "controls")
    plan = make_study_plan(config)
    probed = []
    for stage in plan.of_kind("probe"):
        manifest = ProbeManifest.model_construct(
            probe=str(stage.place.probe), options={}, elicitation_fingerprint="0" * 16, states_sha256="0"
        )
        probed.append((stage.place, ProbeResult(Path(), manifest, rows(stage.place.arm, str(stage.place.probe)))))
    return Scope(StudyData(Path("nowhere"), config, plan, (), tuple(probed), ()), "alfworld-gen", "tiny")


def study(agents: dict[Any, Scripted], text: str = STUDY) -> Scope:
    some = states(60, 2)

    def rows(arm: Any, probe: str) -> list[Any]:
        key = id(agents[arm]), probe
        if key not in ROWS:
            ROWS[key] = measured(probe, agents[arm], some)
        return ROWS[key]

    return study_of(rows, text)


@pytest.fixture(scope="module")
def built() -> Scope:
    return study(AGENTS)


def test_an_arms_role_follows_from_how_it_is_trained(built: Scope) -> None:
    assert control_roles(built) == ROLES
    assert spec_option("scripted", "names") == "state"
    assert spec_option("scripted?names=full", "names") == "full"
    assert spec_option("hf:tiny", "names") is None


def test_agents_that_are_as_constructed_come_out_in_order(built: Scope) -> None:
    checks = instrument_checks(built, "id")
    assert len(checks) == 7 + 7 + 4 + 1
    assert {check.verdict for check in checks} == {"as constructed"}
    found = {(check.quantity, check.higher, check.lower): check.difference for check in checks}
    # Of the two steps, sft obeys at one; there it follows the donors that do what their trace says.
    assert 0.5 <= (found["following", "spelled", "sft"].mean or 0) < 1
    assert found["following", "spelled", "bare"].mean == pytest.approx(1.0)
    assert found["gap", "bare", None].mean == pytest.approx(0.0)
    section = instrument_section(built)
    assert section is not None and section.title == "Do the probes measure what they should?"
    assert "Of 19 expected orders, 19 come out as constructed, 0 are reversed, and 0 are undecided" in section.text
    figure, table = section.items
    assert isinstance(figure, Figure) and isinstance(table, Table)
    assert [panel.labels for panel in figure.panels] == [tuple(ROLES.values())] * 3
    levels = [one.mean for one in figure.panels[0].lines[0].y]
    assert (levels[0], levels[2:]) == (1.0, [0.0, 0.0, 0.0])
    assert len(table.rows) == 19


def test_agents_that_are_not_as_constructed_are_told(built: Scope) -> None:
    swapped = AGENTS | {"spelled": AGENTS["dots"], "dots": AGENTS["spelled"]}
    verdicts = {(check.quantity, check.higher, check.lower): check.verdict for check in instrument_checks(study(swapped), "id")}
    assert verdicts["following", "spelled", "dots"] == verdicts["following", "sft", "dots"] == "reversed"
    assert verdicts["following", "spelled", "mixed"] == "cannot tell", "both ignore the trace"
    talking = AGENTS | {"bare": AGENTS["spelled"]}
    verdicts = {(check.quantity, check.higher, check.lower): check.verdict for check in instrument_checks(study(talking), "id")}
    assert verdicts["gap", "bare", None] == "reversed", "a model of actions alone profits from no trace"
    assert verdicts["prompt alignment", "bare", "sft"] == "reversed"


def test_without_control_arms_there_is_no_section() -> None:
    text = STUDY[: STUDY.index('[[arms]]\nname = "spelled"')] + STUDY[STUDY.index("[[probes]]") :]
    assert instrument_section(study(AGENTS, text)) is None
