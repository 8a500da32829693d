"""What can be executed at recorded states: as the environment lists it, and asked for once."""

from dataclasses import replace
from typing import Any

import pytest

from cotbench.envs.registry import env_entry
from cotbench.probes import executable
from cotbench.probes.executable import executable_actions
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.states import read_states
from cotbench.prompting.elicitation import Elicitation
from tests.probing import setting, states


def test_an_action_is_executable_where_it_is_listed(reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = read_states(reference.folder, 6)
    entry = env_entry(drawn.env)
    within = ProbeSetting(drawn, Elicitation(), entry.canonical(), entry.equivalent())
    found = executable_actions(drawn.states, within)
    env = entry.make(request=["admissible_actions"])
    for one in drawn.states:
        _, info = env.reset(options={"task": one.task})
        for action in one.dialogue.actions:
            *_, info = env.step(action)
        assert found[one.key].listed == set(info["admissible_actions"])
        assert (found[one.key].allows(one.action), found[one.key].allows("fly to the moon")) == (True, False)

    def asked_again(*_: Any) -> None:
        raise AssertionError("the same states were played again")

    monkeypatch.setattr(executable, "admissible_at", asked_again)
    assert executable_actions(drawn.states, within) == found


def test_where_no_complete_list_is_known_there_is_a_reason() -> None:
    within = setting(states(1, 1))
    for some in (within, replace(within, states=replace(within.states, env="bfcl"))):
        (one,) = executable_actions(some.states.states, some).values()
        assert (one.listed, one.allows("[]")) == (frozenset(), None)
        assert one.unknown
