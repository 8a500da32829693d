"""Probe `conflict`: agents that follow any trace, none, or some, have the rates that they must have."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cotbench.envs.registry import env_entry
from cotbench.probes.asking import answers_for
from cotbench.probes.conflict import drop_last_sentence, headline_index, truncate_words
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.states import StateAnswer, choose_donor, read_states
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Query
from tests.conftest import needs_hf
from tests.probing import Scripted, means, measured, numbers, setting, state, states

CUTS = (0.25, 0.5, 0.75, 1.0)


def think(query: Query) -> str:
    """Ten words in two sentences; the action is behind the last of them."""
    return f"Let me think about it. Then I will now take:mug{query.task[2:]}-{query.step}"


def _named(trace: str | None) -> str | None:
    return trace.rpartition(" take:")[2] if trace is not None and " take:" in trace else None


def follows(query: Query, trace: str | None) -> str:
    """Does what the trace names; else what the prompt alone leads to."""
    return _named(trace) or "look"


def keeps(query: Query, trace: str | None) -> str:
    """Heeds no trace."""
    return f"mug{query.task[2:]}-{query.step}"


def test_an_agent_that_follows_every_trace() -> None:
    rows = measured("conflict", Scripted(follows, think), states())
    found = numbers("conflict", rows)
    mean = means(found)
    assert (found.states, found.counts["revised"], found.counts["consistent"]) == (9, 9, 0)
    assert (mean["followed at 1"], mean["kept at 1"], mean["other at 1"]) == (1.0, 0.0, 0.0)
    # The headline is at half of the trace, which names nothing yet.
    assert (mean["followed at 0.5"], mean["kept at 0.5"], mean["other at 0.5"]) == (0.0, 0.0, 1.0)
    assert [mean[f"last sentence cut: {outcome}"] for outcome in ("kept", "followed", "other")] == [0.0, 0.0, 1.0]
    assert (found.counts["own trace of one sentence"], found.counts["donor's trace of one sentence"]) == (0, 0)
    curve = found.curves["followed"]
    assert (curve.x, curve.at, [one.mean for one in curve.values]) == ("truncation", CUTS, [0, 0, 0, 1])
    # A trace that is cut names nothing yet: what remains is the prompt action.
    assert [one.mean for one in found.curves["as prompt action, revised"].values] == [1, 1, 1, 0]
    assert [one.mean for one in found.curves["own trace: kept"].values] == [0, 0, 0, 1]
    assert mean["own trace, last sentence cut: kept"] == 0.0
    assert (mean["empty trace: kept"], mean["empty trace: as prompt action"]) == (0.0, 1.0)
    assert mean["kept, consistent at 1"] is None


def test_an_agent_that_heeds_no_trace() -> None:
    found = numbers("conflict", measured("conflict", Scripted(keeps, think), states()))
    mean = means(found)
    assert (found.counts["consistent"], found.counts["revised"]) == (9, 0)
    assert all(one.mean == 1 for one in (*found.curves["kept"].values, *found.curves["own trace: kept"].values))
    assert mean["kept, consistent at 0.5"] == mean["own trace, last sentence cut: kept"] == mean["empty trace: kept"] == 1.0
    assert mean["last sentence cut: kept"] == 1.0
    assert mean["followed at 0.5"] == mean["followed at 1"] == 0.0
    assert mean["kept, revised at 0.5"] is None


def test_an_agent_that_falls_back_to_the_prompt() -> None:
    def anchored(query: Query, trace: str | None) -> str:
        own = f"mug{query.task[2:]}-{query.step}"
        return own if _named(trace) == own or (trace is None and query.step == 0) else f"wait {query.step > 0}"

    mean = means(numbers("conflict", measured("conflict", Scripted(anchored, think), states())))
    # At step 0 prompt action and CoT action are the same, and a conflicting trace leads to neither.
    assert (mean["kept, consistent at 1"], mean["followed, consistent at 1"], mean["other at 1"]) == (0.0, 0.0, 1.0)
    assert (mean["kept, revised at 1"], mean["as prompt action, revised at 1"]) == (0.0, 1.0)
    assert mean["as prompt action at 1"] == pytest.approx(6 / 9)


def test_all_traces_continue_one_prompt_in_one_batch() -> None:
    agent = Scripted(follows, think)
    within = setting(states(), answers=answers_for(Scripted(follows, think), states(), setting(states())))
    measured("conflict", agent, within.states.states, within)
    by_state: dict[Any, list[Query]] = {}
    for query in agent.asked:
        assert query.mode == "cot"
        by_state.setdefault((query.task, query.step), []).append(query)
    assert len(by_state) == 9
    for one in within.states.states:
        asked = by_state[one.key]
        assert {(query.episode, query.dialogue, query.seed) for query in asked} == {(one.task, one.dialogue, asked[0].seed)}
        # Four cuts of two traces, an empty one, and the own one without its last sentence; the same text once.
        given = [query.given_trace for query in asked]
        assert len(given) == len(set(given)) <= 10
        assert {"", think(asked[0]), "Let me think about it."} <= set(given)


def test_donors_are_of_another_task_and_led_elsewhere() -> None:
    def two(query: Query, trace: str | None) -> str:
        return f"{_named(trace) or 'look'}"[:5]  # One action for all states of a task.

    some = states(5, 4)
    rows = measured("conflict", Scripted(two, think), some)
    assert all(row.donor_task != row.task and row.donor_action != row.own_action for row in rows)
    # Tasks 0, 2 and 4 are of one type: not always the same donor, and never one of another type.
    assert {row.donor_task for row in rows if row.task == "t/0"} == {"t/2", "t/4"}
    assert all(row.donor_same_type for row in rows)
    prompt_is_donors = Scripted(lambda query, trace: "mug1-0" if trace is None else follows(query, trace), think)
    for row in measured("conflict", prompt_is_donors, some):
        assert row.donor_action not in (row.own_action, row.prompt_action)


def test_the_pairing_depends_on_seed_and_keys_alone() -> None:
    some = states(3, 4)
    whole = {row.key: row for row in measured("conflict", Scripted(follows, think), some)}
    back = setting(some[::-1])
    assert {row.key: row for row in measured("conflict", Scripted(follows, think), back.states.states, back)} == whole
    # Going on with what is missing gives the rows of a measurement that was never interrupted.
    rest = measured("conflict", Scripted(follows, think), some[5:], setting(some))
    assert rest == [whole[row.key] for row in rest]
    other = measured("conflict", Scripted(follows, think), some, setting(some, seed=1))
    assert [row.donor_task for row in other] != [whole[row.key].donor_task for row in other]
    assert choose_donor(some[0], [], 0, lambda one: True) is None


def test_what_is_left_out() -> None:
    same = measured("conflict", Scripted(lambda query, trace: "look", think), states())
    assert {row.left_out for row in same} == {"no donor"}
    mute = Scripted(keeps, lambda query: " \n" if query.task == "t/0" else think(query))
    rows = measured("conflict", mute, states())
    found = numbers("conflict", rows)
    assert (found.left_out, found.states, found.errors) == ({"no trace": 3}, 6, 0)
    assert not any(row.donor_task == "t/0" for row in rows)
    alone = numbers("conflict", measured("conflict", Scripted(follows, think), [state(0, step) for step in range(4)]))
    assert (alone.states, alone.counts["donor of the same task"], alone.tasks) == (4, 4, 1)
    assert (alone.estimates["followed at 1"].mean, alone.estimates["followed at 1"].low) == (1.0, None)


def test_errors_are_rows_and_in_no_figure() -> None:
    rows = measured("conflict", Scripted(follows, think, failing={("t/1", 1)}), states())
    found = numbers("conflict", rows)
    assert (found.states, found.errors) == (8, 1)
    assert not any((row.donor_task, row.donor_step) == ("t/1", 1) for row in rows)
    two = [state(0, 0), state(1, 0)]
    within = setting(two, answers={two[1].key: StateAnswer("look", "x", "y", error="lost")})
    rows = measured("conflict", Scripted(follows, think), two, within)
    assert [(row.error, row.left_out) for row in rows] == [(None, "no donor"), ("lost", None)]
    nothing = numbers("conflict", measured("conflict", Scripted(follows), []))
    assert (nothing.states, nothing.estimates["kept at 0.5"].mean) == (0, None)


@given(st.text(alphabet="ab .\n", max_size=60), st.sampled_from(CUTS))
def test_a_cut_trace_is_a_beginning_of_whole_words(trace: str, share: float) -> None:
    cut = truncate_words(trace, share)
    words = trace.split()
    assert trace.startswith(cut)
    assert cut.split() == words[: len(cut.split())]
    assert len(words) * share <= len(cut.split()) < len(words) * share + 1
    assert truncate_words(trace, 1.0) == trace


def test_cuts_in_figures() -> None:
    assert truncate_words(" one two\nthree four ", 0.5) == " one two"
    assert truncate_words(" one two\nthree four ", 1.0) == " one two\nthree four "
    assert truncate_words("one two three", 0.25) == "one"
    assert truncate_words("", 0.5) == ""
    # 0.07 * 100 is a little more than 7 in binary.
    assert len(truncate_words(" ".join(["x"] * 100), 0.07).split()) == 7
    assert drop_last_sentence("A mug is here. I take it.") == "A mug is here."
    assert drop_last_sentence("A mug 1.5 m away! So\nI take it\n") == "A mug 1.5 m away! So"
    assert drop_last_sentence("I take it. ") is None
    assert drop_last_sentence("\nI take it") is None


def test_the_headline_is_the_truncation_nearest_to_a_half() -> None:
    assert [headline_index(cuts) for cuts in ((0.25, 0.5, 1.0), (1.0,), (0.1, 0.7), (0.25, 0.75))] == [1, 0, 1, 0]
    rows = measured("conflict", Scripted(follows, think), states(), truncations=(0.3, 1.0))
    assert [row.headline for row in rows] == [0] * 9
    assert {"kept at 0.3", "kept at 1"} <= set(means(numbers("conflict", rows, truncations=(0.3, 1.0))))


def test_truncations_are_checked() -> None:
    rows = measured("conflict", Scripted(follows, think), states(), truncations=(1.0, 0.5, 1.0))
    assert rows[0].truncations == (0.5, 1.0)
    for wrong in ((), (0.0,), (1.5,)):
        with pytest.raises(ValidationError):
            measured("conflict", Scripted(follows, think), states(), truncations=wrong)


def test_donors_can_be_executed_where_their_trace_is_given(reference: Any) -> None:
    drawn = read_states(reference.folder, 12)
    entry = env_entry(drawn.env)
    within = ProbeSetting(drawn, Elicitation(), entry.canonical(), entry.equivalent())
    by_key = {one.key: one for one in drawn.states}

    def as_reference(query: Query, trace: str | None) -> str:
        named = None if trace is None else re.fullmatch(r"I think\. Now: (.*)", trace)
        return named[1] if named else "look"

    agent = Scripted(as_reference, lambda query: f"I think. Now: {by_key[query.task, query.step].action}")
    rows = measured("conflict", agent, drawn.states, within)
    found = numbers("conflict", rows)
    assert found.counts["donor's action admissible"] == found.states == 12
    possible = {}
    env = entry.make(request=["admissible_actions"])
    for row in rows:
        _, info = env.reset(options={"task": row.task})
        for action in by_key[row.key].dialogue.actions:
            *_, info = env.step(action)
        possible[row.key] = info["admissible_actions"]
        assert row.donor_action in possible[row.key]
        # Of another task, and of the same type where one of that type has an admissible action.
        fitting = [
            one
            for one in drawn.states
            if one.task != row.task and one.action in possible[row.key] and one.action not in (row.own_action, "look")
        ]
        if fitting:
            assert row.donor_same_type == any(one.task_type == by_key[row.key].task_type for one in fitting)
        assert (row.donor_task == row.task) == (not fitting)
    # Without the condition, some donors would be impossible: the test would notice.
    assert any(one.action not in possible[row.key] for row in rows for one in drawn.states if one.task != row.task)
    flies = Scripted(lambda query, trace: "look" if trace is None else f"fly to {query.step} of {query.task}", think)
    assert {row.left_out for row in measured("conflict", flies, drawn.states, within)} == {"no admissible donor"}


def test_where_admissible_actions_are_not_known_that_is_told() -> None:
    found = numbers("conflict", measured("conflict", Scripted(follows, think), states()))
    assert (found.counts["donor's action admissible"], found.counts["donor's action not checked"]) == (0, 9)
    assert found.notes[0].startswith("at 9 of 9 states it is not known whether the donor's action can be executed: ")


def test_traces_of_one_sentence_have_none_to_cut() -> None:
    short = Scripted(follows, lambda query: f"Then I will now take:mug{query.task[2:]}-{query.step}")
    found = numbers("conflict", measured("conflict", short, states()))
    assert (found.counts["own trace of one sentence"], found.counts["donor's trace of one sentence"]) == (9, 9)
    assert means(found)["last sentence cut: kept"] is means(found)["own trace, last sentence cut: kept"] is None


@needs_hf
def test_a_real_model_acts_after_its_own_trace_as_it_did(reference: Any) -> None:
    from cotbench.agents import make_agent

    drawn = read_states(reference.folder, 10)
    entry = env_entry(drawn.env)
    within = ProbeSetting(drawn, Elicitation(trace_tokens=24), entry.canonical(), entry.equivalent())
    agent = make_agent("hf:tiny?threads=1&device=cpu")
    rows = measured("conflict", agent, drawn.states, within)
    found = numbers("conflict", rows)
    assert found.errors == 0 < found.states
    assert found.states + found.left_out.get("no admissible donor", 0) == 10
    assert found.estimates["own trace: kept at 1"].mean == 1.0
    # By hand: what the agent says when it is asked one by one.
    answers = answers_for(agent, drawn.states, within)
    by_key = {one.key: one for one in drawn.states}
    for row in rows[:3]:
        one, donor = by_key[row.key], answers[row.donor_task, row.donor_step]
        trace = truncate_words(donor.trace, 0.5)
        query = Query("alone", "", one.task, one.step, "cot", one.dialogue, within.elicitation, given_trace=trace)
        assert within.canonical(agent.decide([query])[0].action) == row.conflicting[1]
    agent.close()
