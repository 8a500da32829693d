"""Counterfactual traces: another goal, another decision; what they are never; the same ones again."""

import json
from pathlib import Path

import pytest

from cotbench.baselines.data import counterfactuals
from cotbench.baselines.data.counterfactuals import make_counterfactuals
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import example_id
from cotbench.baselines.teachers.alfworld import expert_of, with_goal_of
from cotbench.envs.bfcl import calls
from cotbench.envs.registry import env_entry
from cotbench.errors import UsageError
from tests.baselines.expert_play import played_by_expert
from tests.conftest import needs_bfcl


def decisions(played: list[Demonstration]) -> dict[str, tuple[Demonstration, int]]:
    return {example_id(one.task, step): (one, step) for one in played for step, trace in enumerate(one.traces) if trace}


def test_another_goal_at_the_same_state(some_played: list[Demonstration]) -> None:
    found = make_counterfactuals(some_played, "goal", seed=1)
    places, tasks = decisions(some_played), {one.task: one for one in some_played}
    assert set(found.by_id) <= set(places) and found.by_id
    assert len(found.by_id) + sum(found.left_out.values()) == len(places)
    for id_, other in found.by_id.items():
        one, step = places[id_]
        assert other.source == "goal" and other.action != one.actions[step] and other.trace != one.traces[step]
        # The same history, another goal: what the expert would do next.
        assert other.origin != one.task
        state = with_goal_of(one.dialogue(step), tasks[other.origin].dialogue(0))
        assert state.actions == one.actions[:step] and state.observations[1:] == one.observations[1 : step + 1]
        assert other.action == expert_of(state).mind().action
    assert found.card == {
        "decisions": len(found.by_id),
        **{"goal": len(found.by_id), "donor": 0, "unchecked": 0, "left_out": dict(found.left_out)},
    }


def test_a_goal_is_swapped_and_nothing_else(some_played: list[Demonstration]) -> None:
    one, two = some_played[0].dialogue(2), some_played[1].dialogue(0)
    swapped = with_goal_of(one, two)
    room, _, goal = swapped.observations[0].partition("Your task is to: ")
    assert room == one.observations[0].partition("Your task is to: ")[0]
    assert goal == two.observations[0].partition("Your task is to: ")[2]
    assert with_goal_of(swapped, one) == one


def test_a_donors_action_is_admissible(some_played: list[Demonstration]) -> None:
    from cotbench.baselines.data.admissible import admissible_of

    found = make_counterfactuals(some_played, "donor", seed=1)
    places, lists = decisions(some_played), dict(zip(map(id, some_played), admissible_of(some_played), strict=True))
    canonical = env_entry(some_played[0].env).canonical()
    assert found.by_id
    for id_, other in found.by_id.items():
        one, step = places[id_]
        donor, at = places[other.origin]
        assert (other.trace, other.action, other.source) == (donor.traces[at], donor.actions[at], "donor")
        assert canonical(other.action) != canonical(one.actions[step]) and other.trace != one.traces[step]
        assert canonical(other.action) in map(canonical, lists[id(one)][step]) and not other.unchecked


def test_where_the_environment_is_not_known_donors_are_unchecked(some_played: list[Demonstration]) -> None:
    nowhere = [one.model_copy(update={"env": "", "teacher": "someone"}) for one in some_played]
    found = make_counterfactuals(nowhere)
    assert found.by_id and all(one.source == "donor" and one.unchecked for one in found.by_id.values())
    assert found.card["unchecked"] == found.card["donor"] == len(found.by_id)


@needs_bfcl
def test_where_an_environment_lists_examples_alone_a_donor_may_be_any_call_of_what_is_offered() -> None:
    """BFCL lists a call of each function with plain values: no call of a user's request is among them."""
    played = [played_by_expert("bfcl", f"bfcl/multi_turn_base_{number}", expert="call") for number in (1, 33, 103, 121)]
    found, places = make_counterfactuals(played, seed=1), decisions(played)
    assert found.card["unchecked"] == found.card["donor"] == len(found.by_id) > len(places) / 2
    with_values = [one for one in found.by_id.values() if "=" in one.action]
    assert len(with_values) > len(found.by_id) / 2
    functions = {one.task: {json.loads(line)["name"] for line in one.functions.splitlines()} for one in played}
    assert len({frozenset(names) for names in functions.values()}) > 1
    for id_, other in found.by_id.items():
        called = {name for call in calls.read(other.action).calls for name in call}
        assert called <= functions[places[id_][0].task], other.action


def test_auto_sets_the_teachers_wording_against_its_own_alone(some_played: list[Demonstration]) -> None:
    foreign = [some_played[0].model_copy(update={"teacher": "hf:some/model"}), *some_played[1:]]
    found = make_counterfactuals(foreign, "auto").by_id
    for id_, (one, _) in decisions(foreign).items():
        if id_ in found:
            assert found[id_].source == ("donor" if one is foreign[0] else "goal")
    with pytest.raises(UsageError, match=r"counterfactuals=goal.*hf:some/model"):
        make_counterfactuals(foreign, "goal")


def test_the_seed_alone_decides(some_played: list[Demonstration]) -> None:
    again = make_counterfactuals(some_played, seed=3)
    assert make_counterfactuals(some_played, seed=3) == again
    assert make_counterfactuals(some_played, seed=4) != again
    # One decision's choice does not depend on what was drawn for others.
    fewer = [some_played[0].model_copy(update={"traces": (None, *some_played[0].traces[1:])}), *some_played[1:]]
    assert all(again.by_id[id_] == one for id_, one in make_counterfactuals(fewer, seed=3).by_id.items())


def test_no_decision_has_a_counterfactual(some_played: list[Demonstration]) -> None:
    alone = some_played[0].model_copy(
        update={
            "env": "",
            "observations": some_played[0].observations[:1],
            "actions": some_played[0].actions[:1],
            "traces": ("I look.",),
        }
    )
    with pytest.raises(UsageError, match=r"none of the 1 decisions.*no donor"):
        make_counterfactuals([alone])


def test_rows_are_the_counterfactuals(some_played: list[Demonstration], tmp_path: Path) -> None:
    found = make_counterfactuals(some_played)
    rows = list(found.rows())
    assert [row["id"] for row in rows] == list(found.by_id)
    assert all(set(row) == {"id", "trace", "action", "source", "origin", "unchecked"} for row in rows)
    assert (
        counterfactuals.Counterfactual(**{name: one for name, one in rows[0].items() if name != "id"})
        == found.by_id[rows[0]["id"]]
    )
