"""Steps to go where nobody but the demonstration's own path takes over: BFCL and ScienceWorld, played for real."""

from __future__ import annotations

import pytest

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.steps_to_go import Place, steps_to_go
from cotbench.envs.registry import env_entry
from tests.baselines.expert_play import played_by_expert
from tests.conftest import needs_bfcl, needs_scienceworld


def joined(one: Demonstration, step: int) -> str:
    """Two calls of the ground truth in one response."""
    return f"{one.actions[step].rstrip(']')}, {one.actions[step + 1].lstrip('[')}"


@needs_bfcl
@pytest.mark.parametrize(("task", "step"), [("bfcl/multi_turn_base_103", 4), ("bfcl/multi_turn_base_121", 2)])
def test_an_action_that_does_two_steps_at_once_is_better(task: str, step: int) -> None:
    one = played_by_expert("bfcl", task, expert="call")
    both = joined(one, step)
    found = steps_to_go([one], {(0, step): [one.actions[step], both]}).steps[0, step]
    rest = len(one.actions) - step
    assert found == {one.actions[step]: rest - 1, env_entry("bfcl").canonical()(both): rest - 2}


@needs_bfcl
def test_an_action_is_lost_where_the_environment_says_so_and_else_unknown() -> None:
    one = played_by_expert("bfcl", "bfcl/multi_turn_base_103", expert="call")
    step = 4
    own, order = one.actions[step], one.actions[step + 1]
    assert order.startswith("[place_order(")
    twice = f"{joined(one, step).rstrip(']')}, {order.lstrip('[')}"
    place: Place = (0, step)
    found = steps_to_go([one], {place: ["[]", twice, "[get_account_info()]", "[no_such_call()]"]}).steps[place]
    rest = len(one.actions) - step
    # A turn that ends too early has failed for good; an order too many may yet be cancelled; looking loses a step.
    assert found == {"[]": None, "[get_account_info()]": rest, "[no_such_call()]": rest}, own


@needs_scienceworld
@pytest.mark.slow
@pytest.mark.ci
def test_in_scienceworld_the_wrong_focus_loses() -> None:
    one = played_by_expert("scienceworld", "scienceworld/find-plant/30")
    step = next(step for step, action in enumerate(one.actions) if action.startswith("focus on"))
    found = steps_to_go([one], {(0, step): [one.actions[step], "inventory", "focus on agent"]}).steps[0, step]
    rest = len(one.actions) - step
    assert found == {one.actions[step]: rest - 1, "inventory": rest, "focus on agent": None}
