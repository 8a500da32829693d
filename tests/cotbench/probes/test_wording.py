"""Probe `wording`: the same states under every wording of the instruction, and nothing else changed."""

from __future__ import annotations

from cotbench.prompting.query import Query
from cotbench.prompting.wordings import WORDINGS
from tests.probing import Scripted, means, measured, numbers, states


def test_queries_differ_in_the_wording_alone_and_numbers_are_told_apart() -> None:
    def act(query: Query, trace: str | None) -> str:
        right = f"take mug {query.task[2:]} from desk {query.step}"
        # CoT is right under every wording, the prompt action under "brief", and at step 0 under "rules".
        wording = query.elicitation.wording
        knows = trace is not None or wording == "brief" or (wording == "rules" and query.step == 0)
        return right if knows else "look"

    agent, some = Scripted(act), states(3, 2)
    rows = measured("wording", agent, some)
    assert [row.key for row in rows] == [state.key for state in some]
    mean = means(numbers("wording", rows))
    prompt = {wording: mean[f"{wording}: prompt exact"] for wording in WORDINGS}
    assert prompt == {"default": 0.0, "brief": 1.0, "rules": 0.5, "question": 0.0}
    assert {mean[f"{wording}: cot exact"] for wording in WORDINGS} == {1.0}
    assert (mean["default: gap"], mean["brief: gap"], mean["rules: consistency"]) == (1.0, 0.0, 0.5)
    assert mean["default: prompt format ok"] == 1.0
    assert (mean["prompt right under some wordings only"], mean["cot right under some wordings only"]) == (1.0, 0.0)
    texts = {query.elicitation.messages(query.dialogue, query.mode)[0].content for query in agent.asked if query.step == 0}
    assert len(texts) == len(WORDINGS)
    assert len({query.elicitation.fingerprint for query in agent.asked}) == len(WORDINGS)
    assert len(agent.asked) == 2 * len(some) * len(WORDINGS)


def test_a_failure_under_one_wording_is_an_error_of_the_state_and_wordings_can_be_chosen() -> None:
    rows = measured("wording", Scripted(lambda query, trace: "look", failing=[("t/1", 0)]), states(2, 1))
    assert [row.error for row in rows] == [None, "503 from the server"]
    agent = Scripted(lambda query, trace: "look")
    rows = measured("wording", agent, states(1, 1), wordings=("rules", "rules"))
    assert set(rows[0].worded) == {"rules"} and len(agent.asked) == 2
