"""The environment at recorded states: the same texts, the same lists, and reasons where it cannot be had."""

from dataclasses import replace
from typing import Any

from cotbench.envs.registry import env_entry
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.replay import admissible_actions, replay
from cotbench.probes.states import ProbeState, StateSet, read_states
from cotbench.prompting.elicitation import Elicitation
from tests.probing import setting, states


def _setting(drawn: StateSet) -> ProbeSetting:
    entry = env_entry(drawn.env)
    return ProbeSetting(drawn, Elicitation(), entry.canonical(), entry.equivalent())


def test_each_state_has_its_own_list_and_environment(reference: Any) -> None:
    drawn = read_states(reference.folder, 15)
    within = _setting(drawn)
    listed = admissible_actions(drawn.states[::-1], within)
    assert sorted(listed) == sorted(one.key for one in drawn.states)
    found = 0
    for replayed in replay(drawn.states, within, ("admissible_actions", "expert_action")):
        one, env = replayed.state, replayed.env
        assert env is not None and replayed.failure is None
        assert replayed.info["steps"] == one.step
        assert listed[one.key].actions == tuple(replayed.info["admissible_actions"])
        # The reference followed the plan of the game, which the environment goes on with here.
        found += replayed.info["expert_action"] == one.action
        assert listed[one.key].allows("fly to the moon") is False
    assert found == len(drawn.states)


def test_another_text_or_task_is_a_reason(reference: Any) -> None:
    drawn = read_states(reference.folder)
    late = max(drawn.states, key=lambda one: one.step)
    texts = list(late.dialogue.observations)
    texts[2] = "Something else happened."
    other = replace(late, dialogue=replace(late.dialogue, observations=tuple(texts)))
    early = next(one for one in drawn.states if one.task == late.task and one.step == 1)
    unknown = replace(next(one for one in drawn.states if one.task != late.task), task="alfworld/gen/none/1")

    def listed(*some: ProbeState) -> list[str | None]:
        whole = replace(drawn, states=some)
        return [admissible_actions(some, _setting(whole))[one.key].unknown for one in some]

    assert listed(early, other) == [None, "played again, the episode went another way"]
    first, second = listed(early, unknown)
    assert first is None and second is not None and "alfworld/gen/none/1" in second
    assert admissible_actions([], _setting(drawn)) == {}


def test_an_environment_that_lists_examples_lists_nothing_here() -> None:
    within = setting(states(1, 1))
    bfcl = replace(within, states=replace(within.states, env="bfcl"))
    (one,) = admissible_actions(bfcl.states.states, bfcl).values()
    assert (one.actions, one.unknown) == ((), "bfcl lists examples of admissible actions, not all")
    assert one.allows("[]") is None
