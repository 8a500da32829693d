"""Advantages: the numbers that can be computed by hand, and what they may not depend on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.baselines.recipes.grpo.advantages import group_advantages, normalised
from cotbench.baselines.recipes.grpo.rewards import EpisodeReward


def _rewards(outcomes: Sequence[float], malformed: Sequence[Sequence[bool]] | None = None) -> list[EpisodeReward]:
    return [EpisodeReward(one, tuple(bad)) for one, bad in zip(outcomes, malformed or [(False,)] * len(outcomes), strict=True)]


def test_one_success_in_eight() -> None:
    found = group_advantages(_rewards([1.0] + [0.0] * 7))
    assert found.variance == "outcome"
    assert [turns[0] for turns in found.turns] == pytest.approx([2.4749] + [-0.3536] * 7, abs=5e-5)


def test_an_episode_has_one_advantage_for_all_its_turns() -> None:
    found = group_advantages(_rewards([1.0, 0.0], [(False,) * 3, (False,) * 5]))
    assert [len(turns) for turns in found.turns] == [3, 5]
    assert all(len(set(turns)) == 1 for turns in found.turns)
    assert found.turns[0][0] == pytest.approx(0.7071, abs=5e-5)


def test_equal_rewards_teach_nothing() -> None:
    for outcome in (0.0, 1.0):
        found = group_advantages(_rewards([outcome] * 4))
        assert found.variance == "none" and {value for turns in found.turns for value in turns} == {0.0}


def test_penalties_alone_are_not_divided_by_their_deviation() -> None:
    found = group_advantages(_rewards([0.0] * 4, [(True,), (False,), (False,), (False,)]))
    assert found.variance == "penalty"
    assert [turns[0] for turns in found.turns] == pytest.approx([-0.075, 0.025, 0.025, 0.025])


def test_penalties_beside_outcomes_are_part_of_the_reward() -> None:
    found = group_advantages(_rewards([1.0, 1.0, 0.0], [(True,), (False,), (False,)]))
    assert [turns[0] for turns in found.turns] == pytest.approx(normalised([0.9, 1.0, 0.0]))


def test_all_penalties_together_leave_a_success_above_a_failure() -> None:
    won, lost = _rewards([1.0, 0.0], [(True,) * 30, (False,) * 30])
    assert won.total == pytest.approx(0.5) and won.total > lost.total


def test_step_wise_mean_and_deviation_are_over_all_turns() -> None:
    group = _rewards([1.0, 0.0], [(False, True), (False, False, False)])
    found = group_advantages(group, "step")
    expected = normalised([1.0, 0.9, 0.0, 0.0, 0.0])
    assert [value for turns in found.turns for value in turns] == pytest.approx(expected)
    assert [len(turns) for turns in found.turns] == [2, 3]


def test_step_wise_a_group_has_variance_where_its_turns_have() -> None:
    equal_totals = _rewards([0.0, 0.0], [(True, False), (False, False, True)])
    assert group_advantages(equal_totals).variance == "none"
    found = group_advantages(equal_totals, "step")
    assert found.variance == "penalty"
    assert found.turns == (pytest.approx((-0.06, 0.04)), pytest.approx((0.04, 0.04, -0.06)))
    capped = group_advantages(_rewards([1.0, 1.0], [(True,) * 5 + (False,), (True,) * 9]), "step")
    assert capped.variance == "penalty" and capped.turns[0][-1] > 0 > capped.turns[0][0] == capped.turns[1][0]
    every_turn = _rewards([0.0, 0.0], [(True,), (True, True)])
    assert group_advantages(every_turn).variance == "penalty"
    assert group_advantages(every_turn, "step").variance == "none", "no turn is worse than another"


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        group_advantages(_rewards([1.0]))


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=12))
def test_advantages_have_mean_0_and_deviation_1_or_are_all_0(rewards: list[float]) -> None:
    found = normalised(rewards)
    assert sum(found) == pytest.approx(0, abs=1e-9)
    squares = sum(value**2 for value in found) / (len(found) - 1)
    assert squares == pytest.approx(1 if len(set(rewards)) > 1 else 0)
    assert normalised(rewards[::-1]) == pytest.approx(found[::-1])
