"""Probe `preference`: judges by rule, whose preferences are known."""

from __future__ import annotations

from typing import Any

import pytest

import cotbench
from cotbench.errors import UnknownNameError, UsageError
from cotbench.probes.probe import probe_named
from cotbench.prompting.query import Decision, Query
from tests.judges import shown
from tests.probing import Scripted, means, measured, numbers, setting, state, states


class Judge:
    """Names a letter by the rule of the spec: the longer action, the first one, or none; or it cannot be reached."""

    name = "probe-judge"
    made: list[Judge] = []

    def __init__(self, rule: str) -> None:
        self.rule, self.closed = rule, False
        self.asked: list[Query] = []
        self.made.append(self)

    def decide(self, queries: Any) -> list[Decision]:
        self.asked += queries
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Decision:
        first, second = shown(query)
        if self.rule == "down" and query.step == 1:
            return Decision("", error="503 from the server")
        return Decision({"longer": "A" if len(first) > len(second) else "B", "first": "A"}.get(self.rule, "neither"))

    def close(self) -> None:
        self.closed = True


cotbench.register_agent("probe-judge")(Judge)


def player(query: Query, trace: str | None) -> str:
    """The trace leads to the reference, the prompt alone to less; at step 0 both are the same."""
    return f"take mug {query.task[2:]} from desk {query.step}" if trace is not None or query.step == 0 else "look"


def _measured(rule: str, some: Any = None, within: Any = None, **options: Any) -> list[Any]:
    Judge.made.clear()
    some = states() if some is None else some
    return measured("preference", Scripted(player), some, within, judge=f"probe-judge:{rule}", **options)


def test_a_judge_who_prefers_the_cot_action() -> None:
    rows = _measured("longer")
    found = numbers("preference", rows)
    assert (found.states, found.tasks, found.left_out, found.errors) == (6, 3, {"same action": 3}, 0)
    assert (found.counts["cot"], found.counts["prompt"], found.counts["verdicts"]) == (6, 0, 12)
    mean = means(found)
    assert (mean["win rate of the cot action"], mean["net preference"], mean["position bias"]) == (1.0, 1.0, 0.5)
    assert (mean["agreement with the reference"], found.counts["with the reference"]) == (1.0, 6)
    (judge,) = Judge.made
    assert judge.closed
    assert len(judge.asked) == 12


def test_a_judge_who_names_the_first() -> None:
    found = numbers("preference", _measured("first"))
    mean = means(found)
    assert (mean["win rate of the cot action"], mean["net preference"], mean["position bias"]) == (0.5, 0.0, 1.0)
    assert found.counts["split"] == 6
    once = numbers("preference", _measured("first", both_orders=False))
    assert (once.counts["verdicts"], once.counts["split"], once.estimates["position bias"].mean) == (6, 0, 1.0)
    none = numbers("preference", _measured("mute"))
    assert (none.counts["no verdict"], none.counts["verdicts"], none.estimates["position bias"].mean) == (6, 0, None)


def test_the_judge_sees_no_trace_and_not_the_reference() -> None:
    _measured("longer", [state(0, 1, action="open secret 1")])
    (judge,) = Judge.made
    for query in judge.asked:
        (text,) = query.dialogue.observations
        assert "I will" not in text
        assert "secret" not in text
        assert set(shown(query)) == {"look", "take mug 0 from desk 1"}


def test_a_limit_draws_the_same_states_whichever_are_still_missing() -> None:
    some = states(4, 4)
    chosen: set[Any] = set()
    for limit in (1, 3, 5, 12, 99):
        rows = _measured("longer", some, limit=limit)
        judged = {row.key for row in rows if row.verdicts}
        assert len(judged) == min(limit, 12)
        assert chosen <= judged
        chosen = judged
        assert {row.left_out for row in rows if not row.verdicts} == {"same action"} | ({"not drawn"} if limit < 12 else set())
    whole = {row.key: row for row in _measured("longer", some, limit=3)}
    for part in (some[:6], some[6:], some[1::3]):
        rest = _measured("longer", part, setting(some), limit=3)
        assert {row.key: row for row in rest} == {one.key: whole[one.key] for one in part}
    assert {row.key for row in _measured("longer", some, limit=3, seed=1) if row.verdicts} != {
        key for key, row in whole.items() if row.verdicts
    }


def test_errors_of_either_side() -> None:
    found = numbers("preference", _measured("down"))
    assert (found.states, found.errors, found.left_out) == (3, 3, {"same action": 3})
    agent = Scripted(player, failing={("t/0", 2)})
    rows = measured("preference", agent, states(), judge="probe-judge:longer")
    found = numbers("preference", rows)
    assert (found.states, found.errors) == (5, 1)
    assert {row.key for row in rows if row.error} == {("t/0", 2)}


def test_no_judge_and_a_wrong_one_are_told_before_anything_is_asked() -> None:
    probe, agent = probe_named("preference"), Scripted(player)
    with pytest.raises(UsageError, match="needs a judge: name one"):
        probe.measure(agent, states(), setting(states()), probe.options())
    with pytest.raises(UnknownNameError, match="did you mean 'probe-judge'"):
        probe.measure(agent, states(), setting(states()), probe.options(judge="prob-judge:x"))
    assert agent.asked == []
    with pytest.raises(UsageError, match="cannot judge"):
        measured("preference", agent, states(), judge="expert")


def test_nothing_to_judge_loads_no_judge() -> None:
    rows = _measured("longer", [state(0, 0), state(1, 0)])
    assert Judge.made == []
    found = numbers("preference", rows)
    assert (found.states, found.left_out) == (0, {"same action": 2})
    assert numbers("preference", _measured("longer", [])).states == 0
    one_task = numbers("preference", _measured("longer", [state(0, 1), state(0, 2)]))
    assert one_task.estimates["net preference"].low is None
