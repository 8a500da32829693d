"""Batched attention over a pool of blocks computes what the loop over sequences does, whatever goes through a pass together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.attention import TokenSpan, forward, install_attention
from cotbench.agents.hf.batched_forward import advance, batched_forward, open_pool, run_pass
from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, count_tiles, pack_pass
from cotbench.agents.hf.block_pool import SPARE_BLOCK, BlockPool, LayerShape, PagedCache, PoolFullError
from cotbench.agents.hf.kv_cache import BLOCK, KVCache
from cotbench.agents.hf.pass_runner import PassRunner, _rehearsal
from cotbench.agents.hf.top_rows import TopRows
from cotbench.envs import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.query import Query
from tests import tiny_models
from tests.attention_kinds import KINDS, save_kind
from tests.hf_agents import answers_of, hf_agent, state


def _model(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    install_attention(model)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: _model(tiny_models.save_model(folder / kind, kind)) for kind in ("llama", "gemma", "gemma3")}


class _Both:
    """A sequence, its tokens held twice: as a plain cache, and in blocks."""

    def __init__(self, pool: BlockPool, prompt: _Both | None = None) -> None:
        self.plain, self.paged, self.prompt = KVCache(), PagedCache(pool), prompt

    def spans(self, ids: list[int], pending: int) -> tuple[TokenSpan, TokenSpan]:
        rows = range(len(ids), 0, -1)
        prompt = self.prompt
        return (
            TokenSpan(ids, self.plain, None if prompt is None else prompt.plain, pending, rows),
            TokenSpan(ids, self.paged, None if prompt is None else prompt.paged, pending, rows),
        )

    def shorten(self, length: int) -> None:
        self.plain.length = self.paged.length = length


@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_any_passes(models: dict[str, Any], data: Any) -> None:
    """Prompts in chunks, continuations that begin in the pass that ends their prompt, drafts that are taken back."""
    import torch

    model = models[data.draw(st.sampled_from(sorted(models)))]
    pool = open_pool(model, data.draw(st.sampled_from([1, 10**6])))
    lanes = [_Both(pool) for _ in range(3)]
    branches = [_Both(pool, lane) for lane in lanes[:2] for _ in range(2)]
    token = st.integers(3, 300)
    sizes = st.sampled_from([1, 2, 5, 30, BLOCK, 70])
    for begins in range(data.draw(st.integers(2, 5))):
        spans: list[tuple[TokenSpan, TokenSpan]] = []
        for lane in lanes:
            added = data.draw(sizes) if begins == 0 or lane is lanes[2] else 0
            if added:
                spans.append(lane.spans(data.draw(st.lists(token, min_size=added, max_size=added)), 0))
            for branch in branches:
                if branch.prompt is lane and data.draw(st.booleans()):
                    count = data.draw(sizes)
                    spans.append(branch.spans(data.draw(st.lists(token, min_size=count, max_size=count)), added))
        if not spans:
            continue
        plain = torch.cat(forward(model, [one for one, _ in spans]))
        batched = torch.cat(batched_forward(model, [other for _, other in spans], pool))
        assert torch.allclose(plain, batched, rtol=1e-4, atol=1e-4)
        for branch in branches:
            if branch.plain.length and data.draw(st.booleans()):
                branch.shorten(data.draw(st.integers(0, branch.plain.length)))
    _no_block_is_lost(pool, [each.paged for each in (*lanes, *branches)])


def _no_block_is_lost(pool: BlockPool, caches: list[PagedCache]) -> None:
    held = [block for cache in caches for block in cache.blocks]
    assert sorted([*held, *pool._free, SPARE_BLOCK]) == list(range(pool._blocks))


_BATCHED_KINDS = sorted(name for name, kind in KINDS.items() if not kind.reason and not kind.slow)
_DEFAULT_KINDS = {"windows and softcaps", "head sizes by layer", "windows, shared keys and values", "partial rope"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _DEFAULT_KINDS else pytest.mark.slow) for name in _BATCHED_KINDS]
)
def test_every_kind_of_attention_that_the_loop_knows(tmp_path: Path, name: str) -> None:
    import torch

    model = _model(save_kind(tmp_path / "model", KINDS[name]))
    pool = open_pool(model, 10**6)
    ids = [(7 * index + 3) % 300 for index in range(150)]
    lane, other = _Both(pool), _Both(pool)
    branch = _Both(pool, lane)
    for spans in (
        [lane.spans(ids[:97], 0), branch.spans(ids[97:100], 97), other.spans(ids[:20], 0)],
        [branch.spans(ids[100:101], 0), other.spans(ids[20:90], 0)],
        [branch.spans(ids[101:102], 0), other.spans(ids[90:91], 0)],
    ):
        plain = torch.cat(forward(model, [one for one, _ in spans]))
        batched = torch.cat(batched_forward(model, [two for _, two in spans], pool))
        assert torch.allclose(plain, batched, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind, temperature", [("llama", 0.0), ("llama", 1.0), ("gemma", 0.0), ("qwen", 0.0)])
def test_answers_are_those_of_the_loop(tmp_path: Path, kind: str, temperature: float) -> None:
    elicitation = Elicitation(trace_tokens=12, action_tokens=8, temperature=temperature)
    queries = _queries(elicitation)
    plain = hf_agent(tmp_path, kind).decide(queries)
    assert not [decision.error for decision in plain if decision.error]
    for options in ("attn=batched&drafts=false", "attn=batched&cache_gb=0.000001")[kind != "llama" :]:
        agent = hf_agent(tmp_path, kind, options=options)
        batched = agent.decide(queries[::-1])[::-1]
        for one, other in zip(plain, batched, strict=True):
            assert (one.raw, one.trace, one.action_tokens) == (other.raw, other.trace, other.action_tokens)
            assert one.action_logprob == pytest.approx(other.action_logprob, abs=5e-4)
        engine: Any = agent._engine
        caches = [each.cache for lane in engine._lanes.values() for each in (lane, *lane.running)]
        _no_block_is_lost(engine._pool, caches)
        assert agent.describe()["batched_attention"] == "gather: a model on cpu"


def _queries(elicitation: Elicitation) -> list[Query]:
    queries = [state(turns, mode, elicitation, name) for turns in (1, 2) for name in "ab" for mode in ("prompt", "cot")]  # type: ignore[arg-type]
    queries.append(state(1, "cot", elicitation, "a", given_trace="look"))
    return queries + [state(2, "prompt", elicitation, "c", given_action=f"go to desk {number}") for number in range(3)]


def test_each_turn_goes_on_from_the_blocks_of_the_last(tmp_path: Path) -> None:
    plain, batched = hf_agent(tmp_path), hf_agent(tmp_path, options="attn=batched")
    for turns in range(4):
        one, other = (agent.decide([state(turns, "cot"), state(turns, "prompt")]) for agent in (plain, batched))
        assert [(each.reused_tokens, each.prefilled_tokens) for each in one] == [
            (each.reused_tokens, each.prefilled_tokens) for each in other
        ]


def test_a_pool_grows_without_losing_what_it_holds() -> None:
    import torch

    pool = BlockPool({0: LayerShape(2, 4, 3), 3: LayerShape(1, 4, 4)}, torch.float32, torch.device("cpu"), 100 * 10**3)
    first = pool.take(3)
    assert SPARE_BLOCK not in first and pool.version == 1
    for number in pool.shapes:
        for tensor in pool.layer(number):
            tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))
    before = {number: [tensor.clone() for tensor in pool.layer(number)] for number in pool.shapes}
    more = pool.take(40)
    assert pool.version == 2 and len({*first, *more}) == 43
    for number, tensors in before.items():
        for old, new in zip(tensors, pool.layer(number), strict=True):
            assert torch.equal(old, new[: len(old)]) and not new[len(old) :].any()
    pool.give_back(more)
    assert sorted(pool.take(40)) == sorted(more) and pool.version == 2


@pytest.mark.parametrize("kind", ["llama", "qwen"])
@pytest.mark.parametrize("cast", [False, True])
def test_a_model_in_mixed_precision_plays_too(tmp_path: Path, kind: str, cast: bool) -> None:
    """A training in mixed precision wraps the forward pass of the very model that plays: `cast` as behind its embeddings."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny_models.save_model(tmp_path / "model", kind)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    agents = [HFAgent.from_model(model, tiny_models.tokenizer(), attn=attn, cache_gb=0.01) for attn in ("rows", "batched")]
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    if cast:
        model.get_input_embeddings().register_forward_hook(lambda *given: given[-1].to(torch.bfloat16))
    with agents[0].expose_model():
        install_attention(model)
        pool, ids = open_pool(model, 10**6), [(7 * index + 3) % 300 for index in range(100)]
        lane = _Both(pool)
        branch = _Both(pool, lane)
        for spans in ([lane.spans(ids[:70], 0)], [branch.spans(ids[70:99], 0)], [branch.spans(ids[99:], 0)]):
            plain = torch.cat(forward(model, [one for one, _ in spans]))
            batched = torch.cat(batched_forward(model, [two for _, two in spans], pool))
            assert (plain - batched).norm() < 0.1 * plain.norm()
    for agent in agents:
        decisions = agent.decide(_queries(Elicitation(trace_tokens=12, action_tokens=8)))
        assert not [decision.error for decision in decisions if decision.error]


def test_a_failing_pass_leaves_the_caches_as_they_were(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["llama"]
    pool = open_pool(model, 10**6)
    runner, cache = PassRunner(model, pool), PagedCache(pool)
    runner.compute([TokenSpan([5, 6, 7], cache, logits_from_end=[1])])
    monkeypatch.setattr("cotbench.agents.hf.pass_runner.run_pass", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.compute([TokenSpan([8], cache, logits_from_end=[1])])
    assert cache.length == 3


def test_episodes_with_long_prompts_share_a_pool_that_they_fit_into(tmp_path: Path) -> None:
    """A prompt is held once for both modes: room for it is reserved once."""
    episodes, elicitation = "abcdef", Elicitation(trace_tokens=12, action_tokens=8)
    agent = hf_agent(tmp_path, options="attn=batched&drafts=false")
    engine: Any = agent._engine
    queries = [state(20, mode, elicitation, name) for name in episodes for mode in MODES]
    prompt = agent.decide(queries[:1])[0].prompt_tokens
    agent.clear_cache()
    assert prompt > 6 * BLOCK
    blocks = len(episodes) * (-(-prompt // BLOCK) + 2 * 2)
    engine.limit_caches(blocks * engine._pool.block_bytes)
    for query in queries:
        agent.submit(query, query)
    done = agent.collect(0.0)
    assert not engine._waiting and len(engine._lanes) == len(episodes)
    while not engine.idle:
        done += agent.collect(0.0)
    assert not [decision.error for _, decision in done if decision.error] and len(done) == len(queries)
    assert engine._pool._blocks <= blocks


@pytest.mark.parametrize("cache_gb", [None, 0.01])
def test_a_live_model_has_the_memory_that_is_free_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_gb: float | None
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_models.save_model(tmp_path / "model"))
    free = iter([800 * 10**6, 80 * 10**6])
    monkeypatch.setattr("cotbench.agents.hf.agent._free_memory", lambda: next(free))
    agent = HFAgent.from_model(model, tiny_models.tokenizer(), attn="batched", cache_gb=cache_gb)
    engine: Any = agent._engine
    for budget in (200 * 10**6, 20 * 10**6) if cache_gb is None else (10**7, 10**7):
        assert engine._memory.cache_bytes == budget
        assert engine._pool._budget == budget // engine._pool.block_bytes + 1  # The spare block.
        if engine._memory.cache_bytes != 20 * 10**6:
            agent.clear_cache()


@pytest.mark.parametrize("left", [float("nan"), float("inf")])
def test_what_a_block_held_before_reaches_nobody(models: dict[str, Any], left: float) -> None:
    import torch

    for model in models.values():
        pool = open_pool(model, 10**6)
        pool.give_back(pool.take(40))
        for number in pool.shapes:
            for tensor in pool.layer(number):
                tensor.fill_(left)
        ids = [(7 * index + 3) % 300 for index in range(150)]
        lane, other = _Both(pool), _Both(pool)
        branch = _Both(pool, lane)
        for spans in (
            [lane.spans(ids[:97], 0), branch.spans(ids[97:100], 97), other.spans(ids[:20], 0)],
            [branch.spans(ids[100:101], 0), other.spans(ids[20:90], 0)],
        ):
            plain = torch.cat(forward(model, [one for one, _ in spans]))
            batched = torch.cat(batched_forward(model, [two for _, two in spans], pool))
            assert torch.allclose(plain, batched, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", ["", "attn=batched&cache_gb=0.000001"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_numbers_that_overflow_are_an_error_of_their_own_query(tmp_path: Path, options: str, temperature: float) -> None:
    import torch

    elicitation = Elicitation(trace_tokens=6, action_tokens=5, temperature=temperature)
    task = Dialogue(Instructions("You act."), ("Your task is to: look at Z.",))
    broken = [Query("z", "", "t", 0, mode, task, elicitation) for mode in MODES]
    broken.append(replace(broken[0], given_action="look"))
    sound = [state(1, mode, elicitation, name) for name in "ab" for mode in MODES]
    agent = hf_agent(tmp_path, options=options)
    expected = agent.decide(sound)
    (number,) = agent._chat.encode("Z")
    with torch.no_grad():
        agent._model.get_input_embeddings().weight[number] = float("nan")
    for queries in ([*broken, *sound], [*sound, *broken]):
        agent.clear_cache()
        decisions = dict(zip(queries, agent.decide(queries), strict=True))
        assert all(decisions[query].error for query in broken)
        assert [decisions[query].raw for query in sound] == [decision.raw for decision in expected]
        assert agent._engine.idle


def test_a_kernel_that_cannot_be_launched_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def launch(*_: Any) -> None:
        raise RuntimeError("Failed to find C compiler.\nSet CC.")

    queries = _queries(Elicitation(trace_tokens=6, action_tokens=5))
    plain = hf_agent(tmp_path).decide(queries)
    monkeypatch.setattr(BlockPool, "kernel_error", None)
    name = "cotbench.agents.hf.triton_attention"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(paged_attention=launch, write_blocks=launch))
    agent = hf_agent(tmp_path, options="attn=batched")
    assert agent.describe()["batched_attention"] == "gather: RuntimeError: Failed to find C compiler."
    assert "Failed to find C compiler" in caplog.text
    decisions = agent.decide(queries)
    assert [(one.error, one.raw) for one in decisions] == [(None, one.raw) for one in plain]


def test_a_pass_is_computed_on_the_device_of_its_pool(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, wherever the tensors lie: of `cuda:1` it must be that one."""
    import torch

    entered: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(entered.append(device)))
    second = BlockPool({0: LayerShape(1, 16, 16)}, torch.float32, torch.device("cuda:1"), 1)
    with second.on_device():
        assert entered == [torch.device("cuda:1")]
    pool = open_pool(models["llama"], 10**6)
    with pool.on_device():
        assert len(entered) == 1
    current: list[bool] = []

    @contextmanager
    def on_device(_: BlockPool) -> Iterator[None]:
        current.append(True)
        yield
        current.pop()

    def run(model: Any, meta: Any) -> Any:
        assert current
        return run_pass(model, meta)

    monkeypatch.setattr(BlockPool, "on_device", on_device)
    for name in ("pass_runner", "batched_forward"):
        monkeypatch.setattr(f"cotbench.agents.hf.{name}.run_pass", run)
    PassRunner(models["llama"], pool).compute([TokenSpan([5, 6], PagedCache(pool), logits_from_end=[1])])
    batched_forward(models["llama"], [TokenSpan([5, 6], PagedCache(pool), logits_from_end=[1])], pool)


def _capturing(model: Any, pool: BlockPool, monkeypatch: pytest.MonkeyPatch, error: str = "") -> tuple[PassRunner, list[Any]]:
    """A runner that captures passes as on a GPU, and what it captured: `error` where that fails with compiled layers."""
    runner, captured = PassRunner(model, pool), []
    runner.eager_reason = None

    def capture(shape: PassShape, longest: int) -> Any:
        if error and runner._compiled is not None:
            raise RuntimeError(error)
        captured.append(shape)
        return object()

    monkeypatch.setattr(runner, "_capture", capture)
    monkeypatch.setattr(runner, "_send", lambda packed: None)
    return runner, captured


def test_a_pool_that_grows_costs_no_eager_pass(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pool = open_pool(models["llama"], 10**6)
    runner, captured = _capturing(models["llama"], pool, monkeypatch)
    spans = [TokenSpan([5], PagedCache(pool), logits_from_end=[1])]
    assert runner._graph_for(spans, 1) is None, "a shape that comes once is not captured"
    graph = runner._graph_for(spans, 1)
    assert graph is not None and runner._graph_for(spans, 1) is graph and len(captured) == 1
    pool.take(2 * pool._blocks)
    again = runner._graph_for(spans, 1)
    assert again is not None and again is not graph and len(captured) == 2


def test_layers_that_do_not_compile_are_reported(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = open_pool(models["llama"], 10**6)
    runner, captured = _capturing(models["llama"], pool, monkeypatch, "no compiler")
    runner.compile_after = 0
    spans = [TokenSpan([5], PagedCache(pool), logits_from_end=[1])]
    assert [runner._graph_for(spans, 1) is None for _ in range(3)] == [True, True, False] and len(captured) == 1
    assert runner.compile_error == "RuntimeError: no compiler" and runner.eager_reason is None
    assert "the layers are not compiled: RuntimeError: no compiler" in caplog.text


def test_a_growth_that_fails_leaves_the_pool_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    pool = BlockPool({0: LayerShape(1, 16, 16), 1: LayerShape(1, 16, 8)}, torch.float32, torch.device("cpu"), 10**6)
    held = pool.take(3)
    for part in pool.layer(0):
        part[:] = torch.arange(len(part))[:, None, None]
    size, nbytes = len(pool.layer(0)[0]), pool.nbytes
    second, resize = [], pool._resize
    monkeypatch.setattr(
        pool, "_resize", lambda number, blocks: (number == 0 or second.append(0) or False) and resize(number, blocks)
    )
    with pytest.raises(PoolFullError, match="no memory for"):
        pool.take(500)
    assert second and len(pool.layer(0)[0]) == size and pool.nbytes == nbytes
    assert torch.equal(pool.layer(0)[1][:, 0, 0], torch.arange(size, dtype=torch.float32))
    monkeypatch.setattr(pool, "_resize", resize)
    assert not set(pool.take(500)) & {SPARE_BLOCK, *held}


def test_a_capture_that_lacks_memory_is_tried_again(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    pool = open_pool(models["llama"], 10**6)
    runner, captured = _capturing(models["llama"], pool, monkeypatch)
    capture, failures = runner._capture, [True, True, False]

    def lacking(shape: PassShape, longest: int) -> Any:
        if failures.pop(0):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return capture(shape, longest)

    monkeypatch.setattr(runner, "_capture", lacking)
    spans = [TokenSpan([5], PagedCache(pool), logits_from_end=[1])]
    assert [runner._graph_for(spans, 1) is None for _ in range(4)] == [True, True, True, False]
    assert runner.eager_reason is None and len(captured) == 1
    failures[:] = [True]
    runner.close()
    assert [runner._graph_for(spans, 1) is None for _ in range(2)] == [True, True]
    assert runner.eager_reason == "capturing a CUDA graph failed: OutOfMemoryError: CUDA out of memory"


def test_before_a_capture_whatever_waits_for_the_gpu_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    modes = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with pytest.raises(RuntimeError, match="a synchronizing operation"), _rehearsal():
        assert torch.cuda.is_current_stream_capturing()
        raise RuntimeError("a synchronizing operation")
    assert modes == [0, "error", 0] and not torch.cuda.is_current_stream_capturing()


def test_the_logits_of_all_graphs_lie_in_one_place(models: dict[str, Any]) -> None:
    import torch

    runner = PassRunner(models["llama"], open_pool(models["llama"], 10**6))
    few, more, many = (torch.randn(rows, 7) for rows in (3, 128, 129))
    copies = [runner._shared_logits(logits) for logits in (few, more, many)]
    assert [torch.equal(one, other) for one, other in zip(copies, (few, more, many), strict=True)] == [False, True, True]
    assert copies[0].data_ptr() == copies[1].data_ptr() != copies[2].data_ptr() and torch.equal(copies[0], more[:3])


def test_a_model_on_several_devices_has_no_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [state(1, mode) for mode in MODES]
    expected = answers_of(hf_agent(tmp_path).decide(queries))
    monkeypatch.setattr("cotbench.agents.hf.agent._device_count", lambda model: 2)
    agent = hf_agent(tmp_path, options="attn=batched")
    assert agent._engine._pool is None and answers_of(agent.decide(queries)) == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("options", ["attn=batched", "attn=rows", "attn=sdpa"])
def test_a_closed_agent_lets_go_of_its_model(tmp_path: Path, options: str) -> None:
    import gc
    import weakref

    agent = hf_agent(tmp_path, options=options)
    agent.decide([state(1, "cot")])
    model = weakref.ref(agent._model)
    agent.close()
    gc.collect()
    assert model() is None
    agent.close()


@pytest.mark.parametrize("kind", ["llama", "gemma", "gemma3"])
def test_a_pass_that_is_filled_up_computes_the_same(models: dict[str, Any], kind: str) -> None:
    """What a CUDA graph replays: room for more tokens, rows of logits and tiles than there are."""
    import torch

    model, logits = models[kind], []
    for size in (None, 64):
        pool = open_pool(model, 10**6)
        lane, other = PagedCache(pool), PagedCache(pool)
        branch = PagedCache(pool)
        for spans in (
            [TokenSpan(range(3, 60), lane, logits_from_end=[1]), TokenSpan([5, 6], branch, lane, 57, [2, 1])],
            [TokenSpan([7], branch, lane, 0, [1]), TokenSpan([8] * 9, other, logits_from_end=[1])],
        ):
            tile_rows = 8
            rows = sum(len(span.logits_from_end) for span in spans)
            count = sum(len(span.ids) for span in spans)
            shape = PassShape(count, rows, count_tiles(spans, tile_rows), tile_rows)
            shape = shape if size is None else PassShape(size, size, size, tile_rows)
            packed, longest = pack_pass(spans, shape)
            meta = BatchedPass(pool, shape, torch.from_numpy(packed), longest)
            with torch.inference_mode():
                logits.append(run_pass(model, meta)[:rows])
            advance(spans)
    for tight, filled in zip(logits[:2], logits[2:], strict=True):
        assert tight.isfinite().all() and torch.allclose(tight, filled, rtol=1e-4, atol=1e-4)


def test_the_reason_for_the_plain_way_is_named() -> None:
    import torch

    pool = BlockPool({0: LayerShape(1, 512, 512)}, torch.float32, torch.device("cpu"), 1)
    assert pool.kernel_error == "heads of 512 numbers (the kernel: at most 256)"


def test_a_token_is_drawn_from_the_nucleus_whatever_reaches_the_host() -> None:
    import torch

    logits = 3 * torch.randn(6, 500, generator=torch.Generator().manual_seed(1))
    logits[2, 100:105] = 9.0  # A tie.
    temperatures = [0.5, 1.0, 1.0, 2.0, 1.0, 0.7]
    few, all_of_them = TopRows(logits, temperatures, 4), TopRows(logits, temperatures, 500)
    for row, temperature in enumerate(temperatures):
        probabilities, order = torch.sort(torch.softmax(logits[row].double() / temperature, -1), descending=True, stable=True)
        for top_p in (0.3, 0.9, 1.0):
            inside = torch.cumsum(probabilities, -1) - probabilities < top_p
            mass = torch.cumsum(torch.where(inside, probabilities, 0.0), -1)
            for uniform in (0.0, 0.2, 0.55, 0.9, 0.999):
                expected = int(order[int(torch.searchsorted(mass / mass[-1], uniform, right=True))])
                token, logprob = few.choose(row, top_p, uniform)
                assert (token, logprob) == all_of_them.choose(row, top_p, uniform)
                assert token == expected
                assert logprob == pytest.approx(float(torch.log_softmax(logits[row], -1)[token]), abs=1e-5)


def test_sampling_from_candidates_depends_on_query_and_seed_alone(tmp_path: Path) -> None:
    elicitation = Elicitation(trace_tokens=12, action_tokens=8, temperature=1.0, top_p=0.9)
    queries = [state(turns, "cot", elicitation, name, seed=turns) for turns in (1, 2) for name in "abc"]
    answers = []
    for order in (queries, queries[::-1]):
        agent = hf_agent(tmp_path, options="attn=batched")
        agent._engine.runner.samples_candidates = True  # type: ignore[union-attr]
        decided = dict(zip(order, agent.decide(order), strict=True))
        answers.append([(decided[query].error, decided[query].raw) for query in queries])
    assert answers[0] == answers[1]
    assert len({raw for _, raw in answers[0]}) > 1 and not any(error for error, _ in answers[0])
