"""Probe `sensitivity`: agents that act by the task, by the last observation, or by their trace alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cotbench.envs import Instructions
from cotbench.envs.registry import env_entry
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.states import read_states
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Query
from tests.conftest import needs_hf
from tests.probing import Scripted, means, measured, numbers, setting, state, states


def by_task(query: Query, trace: str | None = None) -> str:
    """Names the mug of the task's sentence."""
    return query.dialogue.observations[0].rpartition(" is to: ")[2]


def by_observation(query: Query, trace: str | None = None) -> str:
    """Another action in either mode."""
    return f"{query.mode} {query.dialogue.observations[-1]}" if query.step else "look"


def by_trace(query: Query, trace: str | None) -> str:
    """The prompt leads to one and the same action; with a trace, the trace does."""
    return "look" if trace is None else trace


def test_an_agent_that_acts_by_its_task() -> None:
    rows = measured("sensitivity", Scripted(by_task), states())
    mean = means(numbers("sensitivity", rows))
    for what in ("prompt action changed", "cot action changed", "cot action changed under the old trace"):
        assert (mean[f"task: {what}"], mean[f"observation: {what}"]) == (1.0, 0.0)
    for row in rows:
        assert row.task_change.donor_task != row.task
        assert row.task_change.prompt_action == f"find mug {row.task_change.donor_task[2:]}."
    # One sentence for all states of a task: the changed prompts grow, too.
    assert len({(row.task, row.task_change.donor_task) for row in rows}) == 3


def test_an_agent_that_acts_by_the_last_observation() -> None:
    rows = measured("sensitivity", Scripted(by_observation), states())
    found = numbers("sensitivity", rows)
    mean = means(found)
    assert (mean["task: prompt action changed"], mean["task: cot action changed"]) == (0.0, 0.0)
    assert (mean["observation: prompt action changed"], mean["observation: cot action changed"]) == (1.0, 1.0)
    assert mean["observation: prompt action as the donor's own"] == mean["observation: cot action as the donor's own"] == 1.0
    assert mean["observation: prompt action as the donor's reference"] == 0.0
    assert (found.counts["task: states"], found.counts["observation: states"]) == (9, 6)
    assert found.counts["observation: first observation"] == 3
    for row in rows:
        assert (row.observation_change is None) == (row.step == 0)


def test_the_old_trace_tells_who_leads() -> None:
    # The trace is written out of the prompt, and then it alone decides.
    agent = Scripted(by_trace, think=lambda query: f"{by_task(query)} {by_observation(query)}")
    mean = means(numbers("sensitivity", measured("sensitivity", agent, states())))
    for variant in ("task", "observation"):
        assert mean[f"{variant}: prompt action changed"] == 0.0
        assert mean[f"{variant}: cot action changed"] == mean[f"{variant}: changed, cot - prompt"] == 1.0
        assert mean[f"{variant}: cot action changed under the old trace"] == 0.0


def test_one_thing_is_replaced_and_all_else_stays() -> None:
    some = states()
    by_key = {one.key: one for one in some}
    agent = Scripted(by_task)
    rows = measured("sensitivity", agent, some)
    changed = [query for query in agent.asked if "#" in query.episode]
    assert len(changed) == 3 * (9 + 6)
    for query in changed:
        one, variant = by_key[query.task, query.step], query.episode.rpartition("#")[2]
        row = next(row for row in rows if row.key == one.key)
        before, after = one.dialogue.observations, query.dialogue.observations
        assert (query.dialogue.actions, query.dialogue.instructions) == (one.dialogue.actions, one.dialogue.instructions)
        if variant == "task":
            assert after[1:] == before[1:]
            assert after[0] == before[0].replace(one.goal, f"find mug {row.task_change.donor_task[2:]}.")
        else:
            donor = by_key[row.observation_change.donor_task, row.observation_change.donor_step]
            assert after[:-1] == before[:-1]
            assert after[-1] == donor.dialogue.observations[-1] != before[-1]
            assert donor.action == row.observation_change.donor_reference != one.action
        assert query.given_trace in (None, f" I will {query.step}.\n")


def test_rows_do_not_depend_on_what_is_still_missing() -> None:
    some = states(3, 4)
    whole = {row.key: row for row in measured("sensitivity", Scripted(by_observation), some)}
    rest = measured("sensitivity", Scripted(by_observation), some[7:], setting(some))
    assert {row.key: row for row in rest} == {one.key: whole[one.key] for one in some[7:]}
    only = measured("sensitivity", Scripted(by_observation), some, variants=("observation",))
    assert {row.key for row in only if row.left_out == "first observation"} == {one.key for one in some if one.step == 0}
    assert [row.observation_change for row in only] == [whole[row.key].observation_change for row in only]


def test_what_is_left_out() -> None:
    lost = state(0, 0, goal="another wording")
    rows = measured("sensitivity", Scripted(by_task), [lost, state(0, 1, goal="another wording"), *states(3, 2)[2:]])
    assert rows[0].left_out == "goal not found, first observation"
    assert rows[1].missing == {"task": "goal not found"}
    found = numbers("sensitivity", rows)
    assert found.left_out == {"goal not found, first observation": 1}
    assert found.counts["task: goal not found"] == 1
    # Of another action, but the same text: nothing would change.
    told = [replace(state(task, 1), dialogue=state(0, 1).dialogue) for task in (0, 1)]
    assert not any(row.observation_change for row in measured("sensitivity", Scripted(by_task), told))
    alone = measured("sensitivity", Scripted(by_task), [state(0, 0), state(0, 1), state(0, 2)])
    assert [row.missing.get("task", row.left_out) for row in alone] == ["no donor, first observation", "no donor", "no donor"]
    assert numbers("sensitivity", alone).estimates["observation: prompt action changed"].low is None
    nothing = numbers("sensitivity", measured("sensitivity", Scripted(by_task), []))
    assert (nothing.states, nothing.estimates["task: prompt action changed"].mean) == (0, None)


def test_errors_and_empty_traces() -> None:
    rows = measured("sensitivity", Scripted(by_observation, failing={("t/1", 1)}), states())
    found = numbers("sensitivity", rows)
    assert (found.states, found.errors) == (8, 1)
    # Its observation can be given all the same; what it would do itself is not known.
    given = [row.observation_change for row in rows if row.observation_change and row.observation_change.donor_task == "t/1"]
    assert {change.donor_prompt_action is None for change in given if change.donor_step == 1} <= {True}
    mute = Scripted(by_task, think=lambda query: " ")
    rows = measured("sensitivity", mute, states())
    assert {row.task_change.old_trace_action for row in rows} == {None}
    assert numbers("sensitivity", rows).estimates["task: cot action changed under the old trace"].mean is None
    assert not any(query.given_trace is not None for query in mute.asked)


def test_what_is_inserted_is_possible_at_the_state(reference: Any) -> None:
    drawn = read_states(reference.folder)
    entry = env_entry(drawn.env)
    within = ProbeSetting(drawn, Elicitation(), entry.canonical(), entry.equivalent())
    some = drawn.states[:12]
    rows = measured("sensitivity", Scripted(by_observation), some, within)
    by_key = {one.key: one for one in drawn.states}
    env = entry.make(request=["admissible_actions"])
    changes = 0
    for row in rows:
        change = row.observation_change
        if change is None:
            continue
        one, donor = by_key[row.key], by_key[change.donor_task, change.donor_step]
        _, info = env.reset(options={"task": row.task})
        for action in one.dialogue.actions:
            *_, info = env.step(action)
        assert change.possible is True and change.donor_reference in info["admissible_actions"]
        changes += 1
        fitting = [
            other
            for other in drawn.states
            if other.step > 0
            and other.task != row.task
            and other.action in info["admissible_actions"]
            and other.action != one.action
            and other.dialogue.observations[-1] != one.dialogue.observations[-1]
        ]
        if any(other.dialogue.actions[-1] == one.dialogue.actions[-1] for other in fitting):
            assert donor.dialogue.actions[-1] == one.dialogue.actions[-1]
    found = numbers("sensitivity", rows)
    assert found.counts["observation: possible at the state"] == found.counts["observation: states"] == changes > 0


def test_a_goal_names_what_the_room_has() -> None:
    def room(task: int, furniture: str, place: str) -> Any:
        goal = f"put a mug in {place}."
        return state(
            task, 0, goal=goal, dialogue=Dialogue(Instructions(""), (f"You see a {furniture}. Your task is to: {goal}",))
        )

    kitchen, office, other = room(0, "fridge 1, a sink 1", "fridge"), room(1, "desk 1", "desk"), room(2, "fridge 2", "fridge 2")
    rows = measured("sensitivity", Scripted(by_task), [kitchen, office, other], variants=("task",))
    changes = [row.task_change for row in rows]
    assert [(change.donor_task, change.possible) for change in changes[::2]] == [("t/2", True), ("t/0", True)]
    assert changes[1].possible is False, "where none fits, the change is made all the same, and counted"
    counts = numbers("sensitivity", rows, variants=("task",)).counts
    assert (counts["task: states"], counts["task: possible at the state"]) == (3, 2)


@needs_hf
def test_a_real_model_on_real_states(reference: Any) -> None:
    from cotbench.agents import make_agent

    drawn = read_states(reference.folder, 8)
    entry = env_entry(drawn.env)
    within = ProbeSetting(drawn, Elicitation(trace_tokens=16), entry.canonical(), entry.equivalent())
    agent = make_agent("hf:tiny?threads=1&device=cpu")
    rows = measured("sensitivity", agent, drawn.states, within)
    found = numbers("sensitivity", rows)
    assert (found.states, found.errors, found.counts["task: states"]) == (8, 0, 8)
    missed = found.counts.get("observation: no admissible donor", 0)
    assert found.counts["observation: states"] + missed == sum(one.step > 0 for one in drawn.states)
    # By hand: the prompt action after the changed observation, asked for alone.
    by_key = {one.key: one for one in drawn.states}
    row = next(row for row in rows if row.observation_change is not None)
    donor = by_key[row.observation_change.donor_task, row.observation_change.donor_step]
    told = by_key[row.key].dialogue
    told = replace(told, observations=(*told.observations[:-1], donor.dialogue.observations[-1]))
    query = Query("alone", "", row.task, row.step, "prompt", told, within.elicitation)
    assert within.canonical(agent.decide([query])[0].action) == row.observation_change.prompt_action
    agent.close()
    assert found.estimates["observation: prompt action changed"].mean == pytest.approx(
        sum(row.observation_change.prompt_action != row.prompt_action for row in rows if row.observation_change)
        / found.counts["observation: states"]
    )
