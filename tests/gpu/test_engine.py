"""Batched attention and the engine on a GPU: the kernel computes what float64 does, and batching, CUDA graphs and eviction change no
answer."""

from __future__ import annotations

from typing import Any

import pytest

from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.attention import TokenSpan, forward, install_attention
from cotbench.agents.hf.kv_cache import KVCache
from cotbench.agents.hf.pass_runner import PassRunner
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query
from tests import tiny_models
from tests.hf_agents import state

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
        "gemma2": lambda: transformers.Gemma2Config(**shape, sliding_window=64, query_pre_attn_scalar=64),
        "mistral": lambda: transformers.MistralConfig(**shape, sliding_window=50),
    }[kind]()
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation="eager")
    return model.to(device).eval(), words


def _queries(episodes: int = 6) -> list[Query]:
    """States of some episodes as they grow, in both modes, with given traces, and with candidates that are scored."""
    modes = ("cot", "prompt")
    queries = [state(turn, mode, ASKED, str(name)) for turn in range(4) for name in range(episodes) for mode in modes]  # type: ignore[arg-type]
    queries += [state(1, "cot", ASKED, str(name), given_trace="look at the desk") for name in range(episodes)]
    return queries + [state(2, "prompt", ASKED, "c", given_action=f"go to desk {number}") for number in range(40)]


def _decided(agent: HFAgent, queries: list[Query]) -> list[Decision]:
    decisions = agent.decide(queries)
    assert not [decision.error for decision in decisions if decision.error]
    return decisions


def _same(ours: list[Decision], theirs: list[Decision]) -> None:
    assert [(one.raw, one.trace, one.action_tokens) for one in ours] == [(one.raw, one.trace, one.action_tokens) for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.action_logprob == pytest.approx(other.action_logprob, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_answers_are_those_of_the_plain_loop(cuda: Any, kind: str) -> None:
    model, words = _model(kind, cuda)
    queries = _queries()
    plain = _decided(HFAgent.from_model(model, words, attn="rows", cache_gb=1), queries)
    for options in ({"cache_gb": 1}, {"cache_gb": 1e-6}, {"cache_gb": 1, "drafts": True}):
        agent = HFAgent.from_model(model, words, attn="batched", **options)
        _same(_decided(agent, queries), plain)
        _same(_decided(agent, queries[::-1])[::-1], plain)
        agent.close()


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_change_no_answer(cuda: Any, kind: str) -> None:
    model, words = _model(kind, cuda)
    graphed, eager = (HFAgent.from_model(model, words, attn="batched", cache_gb=1) for _ in range(2))
    eager._engine.runner = PassRunner(model, eager._engine._pool, graphs=False)  # type: ignore[union-attr, arg-type]
    queries = _queries()
    for _ in range(2):  # A shape is captured when it comes the second time.
        _same(_decided(graphed, queries), _decided(eager, queries))
    runner = graphed._engine.runner  # type: ignore[union-attr]
    assert runner is not None
    if cuda.type == "cuda":
        assert runner.eager_reason is None and runner._graphs


def test_bfloat16_tokens_agree_with_one_sequence_at_a_time(cuda: Any) -> None:
    model, words = _model("qwen", cuda, "bfloat16")
    agent = HFAgent.from_model(model, words, attn="batched", cache_gb=1)
    queries = [state(turn, "cot", ASKED, str(name), return_tokens=True) for turn in range(4) for name in range(24)]
    decisions = _decided(agent, queries)
    agent.close()
    install_attention(model)
    agree = total = 0
    for decision in decisions:
        assert decision.tokens is not None
        prompt, completion = list(decision.tokens.prompt_ids), list(decision.tokens.completion_ids)
        ids = prompt + completion
        rows = range(len(completion) + 1, 1, -1)
        logits = forward(model, [TokenSpan(ids, KVCache(), logits_from_end=rows)])[0]
        for token, best, harness in zip(completion, logits.argmax(-1).tolist(), decision.tokens.harness, strict=True):
            if not harness:
                agree, total = agree + (token == best), total + 1
    print(f"\nbfloat16: {agree} of {total} tokens are the greedy ones of one sequence at a time")
    assert agree >= 0.99 * total and total > 500


@pytest.mark.parametrize(
    "size, query, key, softcap, window",
    [(64, 6, 2, None, None), (80, 4, 4, 30.0, None), (128, 8, 2, None, 100), (256, 4, 1, None, None), (16, 4, 2, 20.0, 70)],
)
@pytest.mark.parametrize("dtype, bound", [("float32", 1e-5), ("bfloat16", 1e-2), ("float16", 2e-3)])
def test_the_kernel_computes_what_float64_does(
    cuda: Any, dtype: str, bound: float, size: int, query: int, key: int, softcap: float | None, window: int | None
) -> None:
    import torch

    from cotbench.agents.hf.batched_attention import AttentionRule, gather_attention
    from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, count_tiles, pack_pass, tile_rows_for
    from cotbench.agents.hf.block_pool import BlockPool, LayerShape, PagedCache
    from cotbench.agents.hf.triton_attention import paged_attention, write_blocks

    pool = BlockPool({0: LayerShape(key, size, size)}, getattr(torch, dtype), cuda, 10**7)
    torch.manual_seed(size)
    lane, short, own, other = (PagedCache(pool) for _ in range(4))
    rule = AttentionRule(size**-0.5, softcap, window)
    passes = (
        [TokenSpan([1] * 150, lane), TokenSpan([1] * 9, own, lane, 150), TokenSpan([1] * 70, short)],
        [TokenSpan([1], own, lane), TokenSpan([1], short), TokenSpan([1] * 3, other, lane)],
    )
    for spans, splits in zip(passes, (1, 4), strict=True):
        tile_rows = tile_rows_for(max(len(span.ids) for span in spans), query // key, pool.dtype.itemsize)
        count = sum(len(span.ids) for span in spans)
        shape = PassShape(count + 3, 1, count_tiles(spans, tile_rows) + 2, tile_rows)
        packed, longest = pack_pass(spans, shape)
        meta = BatchedPass(pool, shape, torch.from_numpy(packed).to(cuda), longest, splits)
        rows = torch.randn(count + 3, query, size, device=cuda).to(pool.dtype)
        keys, values = (torch.randn(key, count + 3, size, device=cuda).to(pool.dtype).transpose(0, 1) for _ in range(2))
        layer = pool.layer(0)
        write_blocks(keys, values, layer, meta.slots)
        assert all(torch.equal(part[meta.slots[:count].long()], new[:count]) for part, new in zip(layer, (keys, values), strict=True))
        expected = gather_attention(rows.double(), *(part.double() for part in layer), meta, rule)[:count]
        found = paged_attention(rows, *layer, meta, rule)[:count].double()
        assert (found - expected).norm() <= bound * expected.norm()
        for span in spans:
            span.cache.length += len(span.ids)
