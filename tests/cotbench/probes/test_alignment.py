"""Probe `alignment`: three actions a state, their revision table, and the log-probability of the reference action."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cotbench.envs.registry import env_entry
from cotbench.probes.alignment import answers
from cotbench.probes.alignment_row import REVISIONS
from cotbench.probes.asking import answers_for, state_query
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.replay import admissible_at, shortening_at
from cotbench.probes.states import StateAnswer, read_states
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query, derive_seed
from cotbench.stats import estimates
from tests.conftest import needs_hf
from tests.cotbench.probes.conftest import Reference
from tests.probing import Scripted, means, measured, numbers, setting, state, states

RIGHT = {0: (True, True), 1: (True, False), 2: (False, True), 3: (False, False), 4: (False, False)}
"""Step -> whether the prompt action and the CoT action are right; at step 3 they are the same wrong one."""


def _by_step(query: Query, trace: str | None) -> str:
    prompt, cot = RIGHT[query.step]
    right = prompt if trace is None else cot
    return (
        f"take mug {query.task[2:]} from desk {query.step}" if right else "look" if query.step == 3 else f"wait {trace is None}"
    )


def test_each_step_is_one_cell_of_the_revision_table() -> None:
    # Task 0 has all five steps, task 1 the first two, task 2 the first three.
    some = [state(task, step) for task, count in ((0, 5), (1, 2), (2, 3)) for step in range(count)]
    rows = measured("alignment", Scripted(_by_step), some)
    found = numbers("alignment", rows)
    assert [row.key for row in rows] == sorted((one.key for one in some), key=lambda key: (key[1], key[0]))
    assert {cell: found.counts[cell] for cell in REVISIONS} == dict(zip(REVISIONS, (3, 3, 2, 1, 1), strict=True))
    mean = means(found)
    assert (found.states, found.tasks, found.errors, found.left_out) == (10, 3, 0, {})
    assert (mean["prompt exact"], mean["cot exact"]) == (0.6, 0.5)
    assert mean["gap exact"] == pytest.approx(-0.1)
    assert (mean["consistency"], mean["revision rate"]) == (0.4, 0.6)
    assert mean["net benefit of revisions"] == pytest.approx((2 - 3) / 6)
    # The interval is over tasks: sums of the gap and numbers of states, task by task.
    assert found.estimates["gap exact"] == estimates.ratio([0.0, -1.0, 0.0], [5.0, 2.0, 3.0])
    assert mean["prompt exact, type 1"] == 1.0
    assert mean["prompt exact, type 0"] == 0.5


def test_the_numbers_of_any_agent_are_those_of_the_definitions() -> None:
    def drawn(query: Query, trace: str | None) -> str:
        kind = derive_seed(query.task, query.step, trace is None) % 3
        return f"take mug {query.task[2:]} from desk {query.step}" if kind == 0 else f"wait {kind}"

    some = states(7, 6)
    found = numbers("alignment", measured("alignment", Scripted(drawn), some))
    pairs = []
    for one in some:
        query = Query(one.task, "", one.task, one.step, "cot", one.dialogue, Elicitation())
        pairs.append((drawn(query, None), drawn(query, ""), one.action))
    n = len(pairs)
    mean = means(found)
    assert mean["prompt exact"] == pytest.approx(sum(p == r for p, _, r in pairs) / n)
    assert mean["cot exact"] == pytest.approx(sum(c == r for _, c, r in pairs) / n)
    assert mean["consistency"] == pytest.approx(sum(p == c for p, c, _ in pairs) / n)
    assert mean["gap exact"] == pytest.approx((mean["cot exact"] or 0) - (mean["prompt exact"] or 0))
    assert mean["gap exact"] == pytest.approx((mean["net benefit of revisions"] or 0) * (mean["revision rate"] or 0))
    assert sum(found.counts[cell] for cell in REVISIONS) == n
    cells = Counter((p == r, c == r, p == c) for p, c, r in pairs)
    assert found.counts["wrong -> wrong, other"] == cells[(False, False, False)] > 0


def test_equivalent_actions_are_counted_beside_equal_ones() -> None:
    agent = Scripted(lambda query, trace: f"take mug 9 from desk {query.step}" if trace is None else "look")
    within = setting(states(), equivalent=env_entry("alfworld").equivalent())
    mean = means(numbers("alignment", measured("alignment", agent, within.states.states, within)))
    assert (mean["prompt exact"], mean["prompt equivalent"]) == (0.0, 1.0)
    assert (mean["cot exact"], mean["cot equivalent"], mean["gap equivalent"]) == (0.0, 0.0, -1.0)
    assert mean["consistency equivalent"] == 0.0


def test_the_reference_is_scored_in_both_modes_and_nothing_is_written_twice() -> None:
    agent = Scripted(_by_step, score=lambda query, trace: -2.0 if trace is None else -1.5 - 0.5 * query.step)
    some = [state(task, step) for task in (0, 1) for step in (0, 1)]
    found = numbers("alignment", measured("alignment", agent, some))
    mean = means(found)
    assert (mean["prompt log-probability"], mean["cot log-probability"]) == (-2.0, -1.75)
    assert mean["log-probability gap"] == 0.25
    assert found.counts["scored"] == 4
    scores = [query for query in agent.asked if query.given_action is not None]
    assert len(agent.asked) - len(scores) == 3 * len(some)  # Bare, CoT, and after an empty trace.
    assert Counter((query.task, query.step, query.mode) for query in scores) == Counter(
        (one.task, one.step, mode) for one in some for mode in ("prompt", "cot")
    )
    for query in scores:
        assert query.given_action == f"take mug {query.task[2:]} from desk {query.step}"
        # The trace as it was written, blanks included.
        assert query.given_trace == (f" I will {query.step}.\n" if query.mode == "cot" else None)


def test_an_agent_that_tells_no_log_probability_is_measured_all_the_same() -> None:
    class Server(Scripted):
        def _decide(self, query: Query) -> Decision:
            return Decision("", error="cannot be scored there") if query.given_action else super()._decide(query)

    refusing = measured("alignment", Server(_by_step), states())
    assert {row.unscored for row in refusing} == {"cannot be scored there"}
    # One that heeds no given action speaks of its own: that is a score only where it is the same.
    deaf = measured("alignment", Scripted(_by_step), states())
    assert [(row.prompt_logprob, row.cot_logprob) for row in sorted(deaf, key=lambda row: row.step)[::3]] == [
        (-0.5, -0.5),
        (-0.5, None),
        (None, -0.5),
    ]
    agent = Scripted(_by_step, score=lambda query, trace: -1.0)
    template = setting(states(), elicitation=Elicitation(style="template"))
    unasked = measured("alignment", agent, template.states.states, template)
    assert not any(query.given_action for query in agent.asked)
    assert not any(query.given_action for query in _asked(scores=False))
    for rows in (refusing, unasked):
        found = numbers("alignment", rows)
        assert (found.errors, found.states, found.counts["scored"]) == (0, 9, 0)
        assert found.estimates["log-probability gap"].mean is None
        assert {row.prompt_logprob for row in rows} == {None}


def _asked(**options: Any) -> list[Query]:
    agent = Scripted(_by_step, score=lambda query, trace: -1.0)
    measured("alignment", agent, states(), **options)
    return agent.asked


def test_a_state_that_fails_is_an_error_and_in_no_figure() -> None:
    rows = measured("alignment", Scripted(_by_step, failing={("t/1", 1)}), states())
    found = numbers("alignment", rows)
    assert (found.states, found.errors) == (8, 1)
    assert [row.key for row in rows if row.error] == [("t/1", 1)]
    without = measured("alignment", Scripted(_by_step), [one for one in states() if one.key != ("t/1", 1)])
    assert found.estimates == numbers("alignment", without).estimates
    assert ("t/1", 1) not in answers(rows)


def test_no_state_and_one_task() -> None:
    nothing = numbers("alignment", measured("alignment", Scripted(_by_step), []))
    assert (nothing.states, nothing.tasks, nothing.errors) == (0, 0, 0)
    assert all(estimate.mean is None for estimate in nothing.estimates.values())
    single = numbers("alignment", measured("alignment", Scripted(_by_step), [state(0, step) for step in range(5)]))
    assert (single.estimates["prompt exact"].mean, single.estimates["prompt exact"].low) == (0.4, None)


def test_answers_of_rows_are_the_answers_asked_for() -> None:
    within = setting(states())
    rows = measured("alignment", Scripted(_by_step), within.states.states, within)
    assert answers(rows) == answers_for(Scripted(_by_step), within.states.states, within)
    assert answers(rows)["t/2", 1] == StateAnswer("take mug 2 from desk 1", "wait False", " I will 1.\n")
    known = Scripted(_by_step)
    answers_for(known, within.states.states, replace(within, answers=answers(rows)))
    assert known.asked == []


class Recorded:
    """An agent, and all that it decided."""

    def __init__(self, agent: Any) -> None:
        self.agent, self.name, self.batch = agent, agent.name, agent.batch
        self.said: list[tuple[Query, Decision]] = []

    def decide(self, queries: Any) -> Any:
        decisions = self.agent.decide(queries)
        self.said += zip(queries, decisions, strict=True)
        return decisions

    def close(self) -> None: ...


@needs_hf
def test_the_log_probability_is_the_models(reference: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from cotbench.agents import make_agent
    from cotbench.agents.hf.bundled import tiny_folder

    drawn = read_states(reference.folder, 10)
    entry = env_entry(drawn.env)
    within = ProbeSetting(drawn, Elicitation(trace_tokens=24), entry.canonical(), entry.equivalent())
    made: Any = make_agent("hf:tiny?threads=1&device=cpu")
    agent = Recorded(made)
    rows = measured("alignment", agent, drawn.states, within, prompt_elicitations=("bare",))
    assert numbers("alignment", rows).counts["scored"] == len(rows) == 10
    model = AutoModelForCausalLM.from_pretrained(tiny_folder(), dtype=torch.float32).eval()
    chat = made._chat
    by_key = {one.key: one for one in drawn.states}
    for row in rows[:4]:
        one = by_key[row.key]
        prompt = chat.prompt_ids(within.elicitation.messages(one.dialogue, "prompt"))
        action = chat.encode(f"{one.action}</action>")
        trace = [*chat.encode("<think>"), *chat.encode(row.trace), *chat.encode("</think>\n")]
        for before, told in (([], row.prompt_logprob), (trace, row.cot_logprob)):
            ids = [*prompt, *before, *chat.encode("<action>"), *action]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
            by_hand = sum(float(logits[place - 1, ids[place]]) for place in range(len(ids) - len(action), len(ids)))
            assert told == pytest.approx(by_hand, abs=2e-3), row.key
    # The score after the trace is asked for second, and finds its whole prompt computed.
    after = [decision for query, decision in agent.said if query.mode == "cot" and query.given_action]
    assert len(after) == len(rows)
    assert all(decision.reused_tokens == decision.prompt_tokens > 0 for decision in after)
    made.close()


def _real(reference: Reference, states: int = 6, **more: Any) -> ProbeSetting:
    found = read_states(reference.folder, states)
    entry = env_entry(found.env)
    return ProbeSetting(found, Elicitation(**more), entry.canonical(), entry.equivalent())


def test_ranked_is_the_most_probable_admissible_action(reference: Reference) -> None:
    def score(query: Query, trace: str | None) -> float:
        return -float(derive_seed(query.task, query.step, query.given_action) % 1000)

    within = _real(reference)
    agent = Scripted(lambda query, trace: "look", score=score)
    rows = measured("alignment", agent, within.states.states, within)
    listed = admissible_at(within, within.states.states)
    for row in rows:
        query = Query("", "", row.task, row.step, "prompt", within.states.states[0].dialogue, within.elicitation)
        best = max(listed[row.key].actions or (), key=lambda action: score(replace(query, given_action=action), None))
        assert (row.elicited["ranked"].action, row.not_elicited) == (best, {})
        assert row.elicited["bare"].action == row.elicited["empty"].action == row.prompt_action == "look"
    ranked = [query for query in agent.asked if query.given_action and query.elicitation.prompt_action == "ranked"]
    assert len(ranked) == sum(len(one.actions or ()) for one in listed.values())
    found = numbers("alignment", rows)
    assert found.estimates["ranked exact"].n == len({row.task for row in rows})
    assert means(found)["bare exact"] == means(found)["prompt exact"] == means(found)["empty exact"]
    assert means(found)["bare gap"] == means(found)["gap exact"]
    assert not any(name.startswith("no ranked") for name in found.counts)


def test_an_elicitation_that_cannot_be_measured_has_a_reason(reference: Reference) -> None:
    within = _real(reference)
    mute = measured("alignment", Scripted(_by_step_or_look), within.states.states, within)
    assert {row.not_elicited["ranked"] for row in mute} == {"the agent tells no log-probability of a given action"}
    assert all(set(row.elicited) == {"bare", "empty"} for row in mute)
    found = numbers("alignment", mute)
    assert found.counts["no ranked prompt action: the agent tells no log-probability of a given action"] == len(mute)
    assert "ranked exact" not in found.estimates and "empty exact" in found.estimates
    # An environment that lists examples alone, one whose states cannot be reached, and style template.
    scores: dict[str, Any] = {"score": lambda query, trace: -1.0}
    bfcl = replace(within, states=replace(within.states, env="bfcl", dialect=""))
    rows = measured("alignment", Scripted(_by_step_or_look, **scores), bfcl.states.states, bfcl)
    assert {row.not_elicited["ranked"] for row in rows} == {"bfcl does not list all of its admissible actions"}
    assert all(row.prompt_shortens is None for row in rows)
    unreachable = measured("alignment", Scripted(_by_step, **scores), states())
    assert all(row.error is None and "ranked" in row.not_elicited and "empty" in row.elicited for row in unreachable)
    template = _real(reference, style="template")
    rows = measured("alignment", Scripted(_by_step_or_look), template.states.states, template)
    assert all(set(row.elicited) == {"bare"} and set(row.not_elicited) == {"empty", "ranked"} for row in rows)
    only = measured("alignment", Scripted(_by_step_or_look), within.states.states, within, prompt_elicitations=("empty",))
    assert all(set(row.elicited) == {"empty"} and not row.not_elicited for row in only)


def _by_step_or_look(query: Query, trace: str | None) -> str:
    return "look" if trace is None else f"go to desk {query.step}"


def test_an_action_that_makes_progress_counts_beside_the_references(reference: Reference) -> None:
    within = _real(reference)
    right = {state.key: state.action for state in within.states.states}
    agent = Scripted(lambda query, trace: "look" if trace is None else right[query.task, query.step])
    found = numbers("alignment", measured("alignment", agent, within.states.states, within))
    mean = means(found)
    assert (mean["prompt shortens"], mean["bare shortens"], mean["empty shortens"]) == (0.0, 0.0, 0.0)
    assert mean["cot shortens"] == mean["reference shortens"] == mean["gap shortens"]
    assert (mean["reference shortens"] or 0.0) > 0.0
    # At a state the best actions are those that leave the fewest steps, whoever names them.
    state = within.states.states[0]
    listed = admissible_at(within, [state])[state.key].actions or ()
    shortens = shortening_at(within, {state.key: listed}, [state])[state.key]
    assert set(shortens) == set(listed) and any(shortens.values()) and not shortens["look"]


@needs_hf
def test_empty_is_the_empty_trace_of_probe_conflict(reference: Reference, tmp_path: Path) -> None:
    from tests.hf_agents import hf_agent

    agent = hf_agent(tmp_path)
    within = _real(reference, 2, trace_tokens=4, action_tokens=4)
    aligned = {row.key: row for row in measured("alignment", agent, within.states.states, within)}
    assert all(row.error is None and set(row.elicited) == {"bare", "empty", "ranked"} for row in aligned.values())
    for row in measured("conflict", agent, within.states.states, within, truncations=(1.0,)):
        if row.left_out is None:
            assert row.empty == aligned[row.key].elicited["empty"].action
    # Where a study elicits so, the usual prompt action is that one.
    for way in ("empty", "ranked"):
        usual = _real(reference, 2, trace_tokens=4, action_tokens=4, prompt_action=way)
        for row in measured("alignment", agent, usual.states.states, usual):
            assert row.prompt_action == row.elicited[way].action == aligned[row.key].elicited[way].action
            assert row.elicited["bare"] == aligned[row.key].elicited["bare"]


@needs_hf
def test_what_is_shown_of_a_state_is_what_a_run_shows(reference: Reference, tmp_path: Path) -> None:
    from tests.hf_agents import hf_agent

    agent = hf_agent(tmp_path)
    plain = _real(reference, 2, trace_tokens=4, action_tokens=4)
    shown = replace(plain, elicitation=plain.elicitation.model_copy(update={"show_admissible": True, "history": "traces"}))
    state = max(plain.states.states, key=lambda state: state.step)
    query = state_query(state, "prompt", shown, agent)
    assert query.admissible_actions == admissible_at(shown, [state])[state.key].actions
    last = query.elicitation.messages(query.dialogue, "prompt", query.admissible_actions)[-1].content
    assert last.endswith("\n".join(("Admissible actions:", *(query.admissible_actions or ()))))
    rows = measured("alignment", agent, [state], shown)
    assert rows[0].error is None and set(rows[0].elicited) == {"bare", "empty", "ranked"}
    assert rows[0].prompt_tokens > measured("alignment", agent, [state], plain)[0].prompt_tokens
    attention = measured("attention", agent, [state], shown)
    assert attention[0].error is None
