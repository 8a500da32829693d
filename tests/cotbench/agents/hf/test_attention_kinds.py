"""Every kind of attention of transformers: what is answered is what its own full forward pass says, token by token."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.sequential_engine import SequentialEngine
from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query
from tests import tiny_models
from tests.attention_kinds import EARLY, KINDS, LATE, save_kind
from tests.hf_agents import reference, state

SHORT = Elicitation(trace_tokens=6, action_tokens=4)


def open_agent(folder: Path, options: str = "") -> HFAgent:
    made = make_agent(f"hf:{folder}?threads=1&device=cpu{options}")
    assert isinstance(made, HFAgent)
    return made


def check_greedy(agent: HFAgent, query: Query, decision: Decision, by_length: bool) -> int:
    """Compare each token that was generated with the whole sequence's forward pass; return how long the sequence is.

    Args:
        by_length: what the pass says at a place depends on the sequence's length, so that each token takes a pass of its own.
    """
    import torch

    tokens = decision.tokens
    assert decision.error is None and tokens is not None
    ids = list(tokens.prompt_ids)
    assert ids == agent._chat.prompt_ids(query.elicitation.messages(query.dialogue, query.mode))

    def full_pass(some: list[int]) -> Any:
        with torch.inference_mode():
            return reference(agent)(input_ids=torch.tensor([some]), use_cache=False).logits[0].float()

    rows = None if by_length else full_pass([*ids, *tokens.completion_ids])
    generated = 0
    for token, logprob, harness in zip(tokens.completion_ids, tokens.logprobs, tokens.harness, strict=True):
        if not harness:
            logits = full_pass(ids)[-1] if rows is None else rows[len(ids) - 1]
            assert token == int(logits.argmax()), (query.episode, query.step, query.mode, len(ids))
            assert logprob == pytest.approx(float(torch.log_softmax(logits, -1)[token]), abs=2e-3)
            generated += 1
        ids.append(token)
    assert generated >= 2
    return len(ids)


def play(agent: HFAgent, by_length: bool, turns: int = 3) -> list[int]:
    """Two episodes side by side in both modes, one growing and one shrinking; return the lengths of their sequences."""
    lengths = []
    for turn in range(turns):
        queries = [
            state(count, mode, SHORT, episode=episode, return_tokens=True)  # type: ignore[arg-type]
            for episode, count in (("grows", turn), ("shrinks", turns - 1 - turn))
            for mode in ("cot", "prompt")
        ]
        for query, decision in zip(queries, agent.decide(queries), strict=True):
            lengths.append(check_greedy(agent, query, decision, by_length))
    return lengths


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * kind.slow) for name, kind in KINDS.items()])
def test_answers_are_those_of_the_full_forward_pass(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    agent = open_agent(save_kind(tmp_path / "model", kind))
    description = agent.describe()
    assert isinstance(agent._engine, SequentialEngine) == bool(kind.reason) == ("attention_reason" in description)
    assert kind.reason in description.get("attention_reason", "")
    lengths = play(agent, by_length=any(word in name for word in ("dynamic", "longrope", "chosen")))
    assert min(lengths) < LATE < max(lengths) and min(lengths) - SHORT.action_tokens <= EARLY


def test_a_soft_cap_is_computed_where_transformers_would_choose_sdpa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Gemma2PreTrainedModel

    monkeypatch.setattr(Gemma2PreTrainedModel, "_supports_sdpa", True)  # As before transformers 5.21.
    folder = save_kind(tmp_path / "model", KINDS["windows and softcaps"])
    agent = open_agent(folder)
    assert agent.describe()["attention"] == "cotbench"
    play(agent, by_length=False)
    with agent.expose_model() as handle:
        assert handle.model.config._attn_implementation == "eager"
    with pytest.raises(AgentError, match=r"soft cap of this model's attention scores: \?attn=eager$"):
        open_agent(folder, "&attn=sdpa")


def test_a_model_of_8_bit_answers_one_query_after_the_other(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_models.save_model(tmp_path / "model"))
    model.is_loaded_in_8bit = True
    agent = HFAgent.from_model(model, tiny_models.tokenizer())
    assert isinstance(agent._engine, SequentialEngine) and agent.batch == 1
    assert agent.describe()["attention_reason"] == "8-bit products depend on what is computed beside them"


@pytest.mark.parametrize("native, dtype", [(True, "bfloat16"), (False, "float16")])
def test_a_card_that_emulates_bfloat16_gets_float16(monkeypatch: pytest.MonkeyPatch, native: bool, dtype: str) -> None:
    import torch

    from cotbench.agents.hf import loading

    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert loading._usual_dtype("cuda") == dtype and loading._usual_dtype("cpu") == "float32"


@pytest.mark.parametrize("name", ["longrope", "chunks and temperature", "windows and softcaps"])
def test_an_action_scores_what_generating_it_scores(name: str, tmp_path: Path) -> None:
    agent = open_agent(save_kind(tmp_path / "model", KINDS[name]))
    action = "go to desk 1 you are in a room"
    for turns in (1, 0, 1):
        decision = agent.decide([state(turns, "prompt", SHORT, given_action=action)])[0]
        assert decision.action_logprob == pytest.approx(
            textbook_logprob(agent, state(turns, "prompt", SHORT), action), abs=1e-3
        )


def textbook_logprob(agent: HFAgent, query: Query, action: str) -> float:
    """The textbook: a forward pass over the sequence so far, for each token."""
    import torch

    chat, total = agent._chat, 0.0
    ids = chat.prompt_ids(query.elicitation.messages(query.dialogue, query.mode)) + chat.encode("<action>")
    for token in chat.encode(f"{action}</action>"):
        with torch.inference_mode():
            logits = reference(agent)(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()
        total += float(torch.log_softmax(logits, -1)[token])
        ids.append(token)
    return total


def test_one_query_after_the_other_gives_up_the_caches_of_others_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    agent = open_agent(save_kind(tmp_path / "model", KINDS["rope in a layer of its own"]))
    engine: Any = agent._engine
    assert isinstance(engine, SequentialEngine)
    queries = [state(1, "cot", SHORT, episode=name) for name in "ab"]
    expected = agent.decide(queries)
    engine.close()
    answer = engine._answer

    def limited(query: Query) -> Decision:
        if len(engine._sequences) == 1 and query.episode not in {episode for episode, _ in engine._sequences}:
            engine._sequence(query)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(query)

    monkeypatch.setattr(engine, "_answer", limited)
    assert agent.decide(queries) == expected and len(engine._sequences) == 1
    monkeypatch.setattr(engine, "_answer", lambda query: answer(None))
    assert agent.decide(queries)[0].error is not None
