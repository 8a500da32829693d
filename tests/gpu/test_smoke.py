"""The agent on a GPU, from end to end: two dialogues, both modes, the answers that the CPU gives."""

from __future__ import annotations

from typing import Any

import pytest

from cotbench.agents.hf.agent import HFAgent
from cotbench.envs.registry import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.query import Decision, Query
from tests import tiny_models

ASKED = Elicitation(trace_tokens=24, action_tokens=8)


def _queries(episodes: int = 2, turns: int = 2) -> list[list[Query]]:
    """The queries of each turn, all episodes and both modes."""
    rounds: list[list[Query]] = [[] for _ in range(turns)]
    for episode in range(episodes):
        state = Dialogue(Instructions("You act."), (f"You are in room {episode}. Your task is to: look.",))
        for turn in range(turns):
            rounds[turn] += [Query(f"e{episode}", "", "t", turn, mode, state, ASKED) for mode in MODES]
            state = state.extended(f"go to desk {turn}", None, f"On the desk {turn} you see a mug {episode}.")
    return rounds


def _model(kind: str) -> tuple[Any, Any]:
    import torch
    import transformers

    tokenizer = tiny_models.tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 256,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "initializer_range": 0.4,  # Wide, so that the greedy token is far from a tie.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    config = {"llama": transformers.LlamaConfig, "qwen": transformers.Qwen3Config}[kind](**shape)
    torch.manual_seed(7)
    return transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa"
    ).eval(), tokenizer


def _answers(model: Any, tokenizer: Any) -> list[Decision]:
    agent = HFAgent.from_model(model, tokenizer, cache_gb=0.5)
    decisions = [decision for queries in _queries() for decision in agent.decide(queries)]
    agent.close()
    for decision in decisions:
        assert decision.error is None, f"{decision.error}\n{decision.traceback}"
    return decisions


@pytest.mark.parametrize("kind", ["llama", "qwen"])
def test_float32_answers_are_those_of_the_cpu(cuda: Any, kind: str) -> None:
    model, tokenizer = _model(kind)
    on_cpu = _answers(model, tokenizer)
    on_gpu = _answers(model.to(cuda), tokenizer)
    assert [decision.raw for decision in on_gpu] == [decision.raw for decision in on_cpu]
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert one.action_logprob == pytest.approx(other.action_logprob, abs=2e-3)
        assert (one.trace_tokens, one.action_tokens) == (other.trace_tokens, other.action_tokens)
        assert (one.prompt_tokens, one.reused_tokens) == (other.prompt_tokens, other.reused_tokens)


@pytest.mark.parametrize("kind", ["llama", "qwen"])
def test_bfloat16_answers_have_the_lengths_and_counts_of_float32(cuda: Any, kind: str) -> None:
    import torch

    model, tokenizer = _model(kind)
    exact = _answers(model, tokenizer)
    rounded = _answers(model.to(cuda, torch.bfloat16), tokenizer)
    for one, other in zip(rounded, exact, strict=True):
        assert (one.prompt_tokens, one.reused_tokens) == (other.prompt_tokens, other.reused_tokens)
        assert one.action_logprob is not None and one.action_logprob <= 0
    alike = sum(one.raw[:8] == other.raw[:8] for one, other in zip(rounded, exact, strict=True))
    print(f"{kind}: {alike} of {len(exact)} answers begin alike in bfloat16 on the GPU and float32 on the CPU")


def test_an_agent_made_by_its_name_takes_the_gpu(cuda: Any) -> None:
    import torch

    from cotbench.agents import make_agent

    agent = make_agent("hf:tiny-cot?cache_gb=0.5")
    description = agent.describe()
    assert agent._model.device.type == "cuda" and agent._model.dtype == torch.bfloat16, description
    decisions = agent.decide(_queries()[0])
    assert all(decision.error is None for decision in decisions), decisions
    print({"attention": description["attention"], "answers": [decision.raw for decision in decisions]})
    agent.close()
