"""States are reached again in their environment: its lists there are those of the recorded episode's own states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cotbench.envs.registry import env_entry
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.replay import admissible_at
from cotbench.probes.states import StateSet, read_states
from cotbench.prompting.elicitation import Elicitation
from tests.cotbench.probes.conftest import Reference
from tests.probing import setting, states


def _within(found: StateSet) -> ProbeSetting:
    return ProbeSetting(found, Elicitation(), env_entry(found.env).canonical())


def test_lists_are_those_of_the_environment_played_step_by_step(reference: Reference) -> None:
    found = read_states(reference.folder)
    listed = admissible_at(_within(found), found.states[::-1])
    assert listed.keys() == {state.key for state in found.states}
    env = env_entry(found.env).make(request=["admissible_actions"])
    for state in found.states[:12]:
        _, info = env.reset(options={"task": state.task})
        for action in state.dialogue.actions:
            *_, info = env.step(action)
        assert listed[state.key].actions == tuple(info["admissible_actions"])
        assert state.action in (listed[state.key].actions or ())


def test_a_state_that_cannot_be_reached_again_has_a_reason(reference: Reference) -> None:
    found = read_states(reference.folder)
    (first, *others) = [state for state in found.states if state.step == 2]
    texts = (*first.dialogue.observations[:-1], "You see a dragon.")
    odd = replace(first, dialogue=replace(first.dialogue, observations=texts))
    listed = admissible_at(_within(found), [odd, *others])
    assert listed[odd.key].actions is None
    assert "another text" in (listed[odd.key].reason or "")
    assert all(listed[state.key].actions for state in others)
    # Tasks that do not exist, and an environment whose lists are examples.
    assert all(one.actions is None and one.reason for one in admissible_at(setting(states()), states()).values())
    bfcl = _within(replace(found, env="bfcl", dialect=""))
    assert {one.reason for one in admissible_at(bfcl, found.states).values()} == {
        "bfcl does not list all of its admissible actions"
    }


def test_an_environment_without_data_has_a_reason(reference: Reference, tmp_path: Path) -> None:
    found = read_states(reference.folder)
    task = "alfworld/valid_seen/nothing/here"
    within = replace(_within(replace(found, env="alfworld")), data=tmp_path)
    (one,) = admissible_at(within, [replace(found.states[0], task=task)]).values()
    assert one.actions is None and one.reason
