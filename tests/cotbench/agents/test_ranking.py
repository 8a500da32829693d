"""A ranked prompt action is the admissible action of the highest log-probability, whatever order the scores come back in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import pytest

from cotbench.agents.base import check_elicitation
from cotbench.agents.decisions import decide_all
from cotbench.agents.ranking import NO_LOGPROB, RankedAnswers
from cotbench.envs import Instructions
from cotbench.errors import AgentError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query

LOGPROBS = {"look": -3.0, "open the very big drawer 1": -1.25, "wait": -1.25, "go": -2.0}
RANKED = Elicitation(prompt_action="ranked")


def query(*candidates: str, elicitation: Elicitation = RANKED) -> Query:
    return Query("e", "alfworld-gen", "t", 0, "prompt", Dialogue(Instructions("Act."), ("You see.",)), elicitation,
                 admissible_actions=candidates)  # fmt: skip


class Toy:
    """Knows the probability of each action exactly; answers a batch in reverse where it streams."""

    name = "toy"
    uses_elicitation = True
    scores_actions = True
    batch = 4

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.waiting: list[tuple[Hashable, Query]] = []

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        self.queries += queries
        return [
            Decision("mine")
            if one.given_action is None
            else Decision(one.given_action, action_logprob=LOGPROBS.get(one.given_action), prefilled_tokens=2)
            for one in queries
        ]

    def submit(self, key: Hashable, query: Query) -> None:
        self.waiting.append((key, query))

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        if not self.waiting:
            return []
        key, one = self.waiting.pop()
        return [(key, self.decide([one])[0])]

    def close(self) -> None: ...


def test_the_most_probable_action_wins_and_equal_ones_by_their_order() -> None:
    agent = Toy()
    cot = replace(query(), mode="cot")
    first, second, third, other = decide_all(
        agent, [query(*LOGPROBS), query("wait", "look", "go"), query("go", "look", "go"), cot]
    )
    assert (first.action, first.action_logprob) == ("open the very big drawer 1", -1.25)
    assert first.raw == "<action>open the very big drawer 1</action>" and first.format_ok
    assert (second.action, third.action, other.action) == ("wait", "go", "mine")
    assert (first.prefilled_tokens, third.prefilled_tokens) == (8, 4)
    # Its candidates are asked with the very same prompt.
    assert {(one.dialogue, one.elicitation, one.mode) for one in agent.queries[:9]} == {(cot.dialogue, RANKED, "prompt")}


def test_the_order_of_the_answers_does_not_matter() -> None:
    agent = Toy()
    answers = RankedAnswers(agent)
    wanted = {"a": query(*LOGPROBS), "b": replace(query(), mode="cot"), "c": query("look", "go"), "d": query()}
    for key, one in wanted.items():
        answers.submit(key, one)
    found: dict[Hashable, Decision] = {}
    while len(found) < len(wanted):
        found.update(answers.collect(0.0))
    assert [found[key] for key in wanted] == decide_all(agent, list(wanted.values()))
    assert found["d"].error == "no admissible actions to rank"


def test_what_cannot_be_scored_is_an_error() -> None:
    (unknown,) = decide_all(Toy(), [query("look", "dance")])
    assert unknown.error == NO_LOGPROB

    class Failing(Toy):
        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            return [Decision("", error="503")] * len(queries)

    assert decide_all(Failing(), [query("look", "go")])[0].error == "503"

    class Writer(Toy):
        scores_actions = False

    with pytest.raises(AgentError, match="cannot rank"):
        check_elicitation(Writer(), RANKED)
    check_elicitation(Writer(), Elicitation(prompt_action="empty"))
    # An agent without a model takes no elicitation: it answers as always.
    Writer.uses_elicitation = False
    check_elicitation(Writer(), RANKED)
    assert decide_all(Writer(), [query("look")])[0].action == "mine"
