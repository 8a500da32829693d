"""The agent on a GPU, from end to end: two dialogues, both modes, the answers that the CPU gives."""

from __future__ import annotations

import copy
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
            rounds[turn] += [Query(f"e{episode}", "", "t", turn, mode, state, ASKED, return_tokens=True) for mode in MODES]
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
def test_bfloat16_answers_are_probable_in_float32(cuda: Any, kind: str) -> None:
    """Rounding may turn a near tie, and with it all that follows: so each token is judged by those before it.

    Its distances from the best token and from its own log-probability are in standard deviations of the logits there. Wide
    weights make much of rounding: on a CPU a llama's means were 0.04, its largest 0.8; random tokens are some 3 from the best.
    """
    import torch

    model, tokenizer = _model(kind)
    exact = _answers(model, tokenizer)
    rounded = _answers(copy.deepcopy(model).to(cuda, torch.bfloat16), tokenizer)
    from_best, from_own = [], []
    for one, other in zip(rounded, exact, strict=True):
        assert (one.prompt_tokens, one.reused_tokens) == (other.prompt_tokens, other.reused_tokens)
        if one.raw == other.raw:
            assert (one.trace_tokens, one.action_tokens) == (other.trace_tokens, other.action_tokens)
        tokens = one.tokens
        assert tokens is not None
        with torch.inference_mode():
            ids = torch.tensor([[*tokens.prompt_ids, *tokens.completion_ids]])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(tokens.prompt_ids) - 1 : -1]
        for row, id_, logprob, harness in zip(logits, tokens.completion_ids, tokens.logprobs, tokens.harness, strict=True):
            if not harness:
                from_best.append(float((row.max() - row[id_]) / row.std()))
                from_own.append(abs(float(row.log_softmax(-1)[id_]) - logprob) / float(row.std()))
    alike = sum(one.raw == other.raw for one, other in zip(rounded, exact, strict=True))
    means = [sum(distances) / len(distances) for distances in (from_best, from_own)]
    print(f"{kind}: {alike} of {len(exact)} answers in bfloat16 are those in float32; {len(from_best)} tokens;", end=" ")
    print(f"from the best {means[0]:.3f} (at most {max(from_best):.3f}), from their own {means[1]:.3f} ({max(from_own):.3f})")
    assert len(from_best) > 100 and max(means) < 0.2 and max(*from_best, *from_own) < 2.0


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
