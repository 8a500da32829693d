"""Ranked and empty prompt actions of an hf: agent, against the textbook loop over the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.decisions import decide_all
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.ranking import candidate_queries
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN
from cotbench.prompting.query import Query
from tests.hf_agents import SHORT, hf_agent, reference, state

RANKED = SHORT.model_copy(update={"prompt_action": "ranked"})
EMPTY = SHORT.model_copy(update={"prompt_action": "empty"})
ACTIONS = ("close fridge 1", "go to desk 1", "go to desk 12", "look", "open fridge 1", "take mug 1 from desk 1")


def _brute_force(agent: HFAgent, query: Query) -> list[float]:
    """The log-probability of each candidate: one pass over the whole sequence, no cache."""
    import torch

    chat = agent._chat
    before = chat.prompt_ids(query.elicitation.messages(query.dialogue, query.mode)) + chat.encode(ACTION_OPEN)
    scores = []
    for action in ACTIONS:
        ids = chat.encode(f"{action}{ACTION_CLOSE}")
        with torch.inference_mode():
            logits = reference(agent)(input_ids=torch.tensor([before + ids]), use_cache=False).logits[0].float()
        rows = torch.log_softmax(logits[len(before) - 1 : -1], dim=-1)
        scores.append(float(rows[range(len(ids)), ids].sum()))
    return scores


@pytest.mark.parametrize("kind", ["llama", "llama?attn=eager"])
def test_ranking_is_brute_force_scoring(tmp_path: Path, kind: str) -> None:
    agent = hf_agent(tmp_path, kind)
    queries = [
        state(turns, "prompt", RANKED, episode, admissible_actions=ACTIONS) for turns in (0, 2) for episode in ("a", "b")
    ]
    scores = [_brute_force(agent, query) for query in queries]
    answers = decide_all(agent, [*queries, state(1, "cot")])
    for query, known, decision in zip(queries, scores, answers, strict=False):
        assert [one.action_logprob for one in agent.decide(candidate_queries(query))] == pytest.approx(known, abs=2e-3)
        assert decision.action == ACTIONS[known.index(max(known))]
        assert decision.action_logprob == pytest.approx(max(known), abs=2e-3)
    assert answers[-1].trace is not None


def test_the_prompt_is_computed_once_and_a_pass_is_bounded(tmp_path: Path) -> None:
    agent = hf_agent(tmp_path)
    query = state(3, "prompt", RANKED, admissible_actions=ACTIONS)
    (decision,) = decide_all(agent, [query])
    texts = sum(len(agent._chat.encode(f"{ACTION_OPEN}{action}{ACTION_CLOSE}")) - 1 for action in ACTIONS)
    assert decision.prefilled_tokens == decision.prompt_tokens + texts
    longest = max(len(agent._chat.encode(f"{action}{ACTION_CLOSE}")) for action in ACTIONS)
    for limits in ({"max_tokens_per_forward": 8}, {"max_logit_rows": 8}):
        few = hf_agent(tmp_path)
        few._engine._limits = replace(few._engine._limits, **limits)  # type: ignore[union-attr]
        rows: list[int] = []
        few._model.register_forward_hook(lambda *given, rows=rows: rows.append(given[-1].logits.shape[1]))
        (held_back,) = decide_all(few, [query])
        assert replace(held_back, action_logprob=None) == replace(decision, action_logprob=None)
        assert held_back.action_logprob == pytest.approx(decision.action_logprob, abs=1e-3)
        assert max(rows) <= 8 + longest + 3, "rows of logits are filled up to a multiple of four"


def test_an_empty_prompt_action_follows_an_empty_trace(tmp_path: Path) -> None:
    agent = hf_agent(tmp_path)
    for turns in (0, 2):
        (empty,) = agent.decide([state(turns, "prompt", EMPTY, return_tokens=True)])
        (given,) = agent.decide([state(turns, "cot", given_trace="", return_tokens=True)])
        assert (empty.raw, empty.action, empty.tokens) == (given.raw, given.action, given.tokens)
        assert empty.raw.startswith("<think></think>\n<action>")
        assert empty.trace is None
        assert empty.format_ok == given.format_ok
        bare = agent.decide([state(turns, "prompt")])[0]
        assert bare.raw.startswith("<action>")
        scored = [
            agent.decide([state(turns, "prompt", elicitation, given_action="look")])[0] for elicitation in (SHORT, RANKED)
        ]
        assert scored[0] == scored[1]
