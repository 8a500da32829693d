"""Batched attention and the engine on a GPU: the kernel computes what float64 does, and batching, CUDA graphs and eviction
change no answer."""

from __future__ import annotations

from typing import Any

import pytest

from cotbench.agents import make_agent
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.pass_runner import PassRunner
from cotbench.envs.registry import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import Decision, Query
from tests import tiny_models
from tests.gpu.shapes import SHAPES, random_model, sized_tokenizer
from tests.hf_agents import state
from tests.kernel_cases import BOUNDS, CASES, KernelCase, check_kernel

ASKED = Elicitation(trace_tokens=24, action_tokens=8)
KINDS = ("llama", "qwen", "gemma2", "mistral")


def _model(kind: str, device: Any, dtype: str = "float32") -> tuple[Any, Any]:
    import torch
    import transformers

    words = tiny_models.tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 256,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "initializer_range": 0.4,  # Wide, so that the greedy token is far from a tie.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    config: Any = {
        "llama": lambda: transformers.LlamaConfig(**shape),
        "qwen": lambda: transformers.Qwen3Config(**shape),
        "gemma2": lambda: transformers.Gemma2Config(**shape, sliding_window=64, query_pre_attn_scalar=16),
        "mistral": lambda: transformers.MistralConfig(**shape, sliding_window=50),
    }[kind]()
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation="eager")
    return model.to(device).eval(), words


def _queries() -> list[Query]:
    """States of some episodes as they grow, in both modes, with given traces, and with candidates that are scored."""
    modes: tuple[Mode, ...] = ("cot", "prompt")
    queries = [state(turn, mode, ASKED, name) for turn in range(3) for name in "abc" for mode in modes]
    queries += [state(1, "cot", ASKED, name, given_trace="look at the desk") for name in "ab"]
    return queries + [state(2, "prompt", ASKED, "c", given_action=f"go to desk {number}") for number in range(12)]


def _decided(agent: HFAgent, queries: list[Query]) -> list[Decision]:
    decisions = agent.decide(queries)
    assert not [decision.error for decision in decisions if decision.error]
    return decisions


def _same(ours: list[Decision], theirs: list[Decision]) -> None:
    assert [_answer(decision) for decision in ours] == [_answer(decision) for decision in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.action_logprob == pytest.approx(other.action_logprob, abs=2e-3)


def _answer(decision: Decision) -> tuple[Any, ...]:
    return decision.raw, decision.trace, decision.trace_tokens, decision.action_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_float32_answers_are_those_of_the_plain_loop(cuda: Any, kind: str) -> None:
    model, words = _model(kind, cuda)
    queries = _queries()
    plain = _decided(HFAgent.from_model(model, words, attn="rows", cache_gb=1), queries)
    agent = HFAgent.from_model(model, words, attn="batched", cache_gb=1)
    _same(_decided(agent, queries), plain)
    _same(_decided(agent, queries[::-1])[::-1], plain)  # By now many shapes come again: as graphs.
    runner = agent._engine.runner  # type: ignore[union-attr]
    assert runner is not None
    if cuda.type == "cuda":
        assert runner.eager_reason is None and runner._graphs
    agent.close()
    _same(_decided(HFAgent.from_model(model, words, attn="batched", cache_gb=1e-6, drafts=True), queries), plain)


def test_sampled_answers_depend_on_query_and_seed_alone(cuda: Any) -> None:
    model, words = _model("llama", cuda)
    warm = Elicitation(trace_tokens=24, action_tokens=8, temperature=1.0, top_p=0.9)
    queries = [state(turn, "cot", warm, str(name), seed=4 * turn + name) for turn in range(3) for name in range(4)]
    answers = []
    for order in (queries, queries[::-1]):
        agent = HFAgent.from_model(model, words, attn="batched", cache_gb=1)
        agent._engine.runner.samples_candidates = True  # type: ignore[union-attr]
        decided = dict(zip(order, _decided(agent, order), strict=True))
        answers.append([_answer(decided[query]) for query in queries])
        agent.close()
    assert answers[0] == answers[1] and len(set(answers[0])) > 3


def test_compiled_layers_change_float32_answers_by_rounding_alone(cuda: Any) -> None:
    model, words = _model("qwen", cuda)
    queries = [state(turn, "cot", ASKED, name) for turn in range(3) for name in "abc"]
    eager = HFAgent.from_model(model, words, attn="batched", cache_gb=1)
    eager._engine.runner = PassRunner(model, eager._engine._pool, graphs=False)  # type: ignore[union-attr, arg-type]
    expected = _decided(eager, queries)
    compiled = HFAgent.from_model(model, words, attn="batched", cache_gb=1)
    runner = compiled._engine.runner  # type: ignore[union-attr]
    assert runner is not None
    runner.compile_after = 0
    for _ in range(2):
        _same(_decided(compiled, queries), expected)
    _require_compiled(compiled, cuda)


@pytest.mark.parametrize("always", [True, False])
def test_a_layer_that_waits_for_the_gpu_is_not_captured(cuda: Any, always: bool) -> None:
    import torch

    model, words = _model("llama", cuda)
    queries = [state(turn, "cot", ASKED, name) for turn in range(3) for name in "abc"]
    expected = _decided(HFAgent.from_model(model, words, attn="rows", cache_gb=1), queries)

    def wait(layer: Any, inputs: Any) -> None:
        if always or cuda.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            float(inputs[0].sum())

    model.model.layers[1].register_forward_pre_hook(wait)
    agent = HFAgent.from_model(model, words, attn="batched", cache_gb=0.05)
    for _ in range(3):
        _same(_decided(agent, queries), expected)
    runner = agent._engine.runner  # type: ignore[union-attr]
    assert runner is not None
    if cuda.type == "cuda":
        assert (runner.eager_reason is not None) == always and bool(runner._graphs) != always
        assert torch.cuda.get_sync_debug_mode() == 0
        torch.cuda.empty_cache()  # What fails for good after a capture that did.
    agent.close()


def _require_compiled(agent: HFAgent, device: Any) -> None:
    """Fail where an agent on a GPU answered without compiled layers, or without graphs."""
    runner: Any = agent._engine.runner  # type: ignore[union-attr]
    if device.type == "cuda":
        assert runner.compile_error is None and runner.eager_reason is None, (runner.compile_error, runner.eager_reason)
        assert runner._compiled is not None and runner._graphs


@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_tokens_agree_with_one_sequence_at_a_time(cuda: Any, compiled: bool) -> None:
    """Given the tokens before it, each token of a trained model is the greedy one of the model by itself, but for near ties."""
    agent = make_agent(f"hf:tiny-cot?device={cuda.type}&dtype=bfloat16&attn=batched&cache_gb=1")
    assert isinstance(agent, HFAgent)
    total, apart = _differing(agent, cuda, compiled)
    print(f"\nbfloat16, compiled {compiled}: {total - len(apart)} of {total} tokens agree; margins of the others: {apart}")
    assert len(apart) <= 0.01 * total and total > 100


@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_tokens_of_a_real_shape_differ_at_near_ties_alone(cuda: Any, compiled: bool) -> None:
    """Random weights in the shape of a known model: its two best tokens are often close, so how close is what counts."""
    import torch

    name = "0.6B" if cuda.type == "cuda" else "tiny"
    words = sized_tokenizer(SHAPES[name].vocabulary, [" ".join(tiny_models.WORDS)])
    model = random_model(SHAPES[name], cuda.type, torch.bfloat16)
    agent = HFAgent.from_model(model, words, attn="batched", cache_gb=2 if cuda.type == "cuda" else 0.1)
    total, apart = _differing(agent, cuda, compiled, episodes=4)
    print(f"\n{name}, bfloat16, compiled {compiled}: {total - len(apart)} of {total} tokens agree; margins of the others:")
    print(f"{[round(margin, 4) for margin in apart]} standard deviations of the logits")
    assert max(apart, default=0.0) < 0.5 and total > 100


def _task(thing: str) -> Dialogue:
    return Dialogue(Instructions("You act."), (f"You are in a room. Your task is to: put a {thing} in the fridge.",))


def _differing(agent: HFAgent, device: Any, compiled: bool, episodes: int = 12) -> tuple[int, list[float]]:
    """Let an agent answer some episodes; return how many tokens it wrote, and a margin for each that differs.

    A token differs where the model by itself, given all tokens before it, prefers another one. Its margin is by how much, in
    standard deviations of the logits there.
    """
    import torch

    things = ("mug", "apple", "plate", "knife", "book", "lamp", "cup", "egg", "pan", "fork", "bowl", "pen")[:episodes]
    long = Elicitation(trace_tokens=48, action_tokens=16)
    queries = []
    for name, thing in enumerate(things):
        dialogue = _task(thing)
        for turn in range(4):
            queries.append(Query(str(name), "", "t", turn, "cot", dialogue, long, return_tokens=True))
            dialogue = dialogue.extended(f"go to desk {turn}", None, f"On the desk {turn} you see a {thing} {turn}.")
    if compiled:
        runner: Any = agent._engine.runner  # type: ignore[union-attr]
        runner.compile_after = 0
    decisions = _decided(agent, queries)
    if compiled:
        _require_compiled(agent, device)
    apart: list[float] = []
    total = 0
    with agent.expose_model() as handle, torch.inference_mode():
        for decision in decisions:
            assert decision.tokens is not None
            ids = [*decision.tokens.prompt_ids, *decision.tokens.completion_ids]
            logits = handle.model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0].float()
            for place, harness in enumerate(decision.tokens.harness, len(decision.tokens.prompt_ids)):
                if not harness:
                    total += 1
                    row = logits[place - 1]
                    if (margin := float((row.max() - row[ids[place]]) / row.std())) > 0:
                        apart.append(margin)
    return total, sorted(apart)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_kernel_computes_what_float64_does(cuda: Any, dtype: str, case: KernelCase) -> None:
    check_kernel(cuda, dtype, case)
