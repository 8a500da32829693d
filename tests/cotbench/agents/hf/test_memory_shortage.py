"""Where memory lacks, caches are dropped, and queries wait or are computed in parts: their answers stay the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.decisions import decide_or_errors
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.block_pool import SPARE_BLOCK, PoolFullError
from cotbench.agents.hf.kv_cache import BLOCK
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.query import Decision, Query
from tests import tiny_models
from tests.hf_agents import state

Pass = Callable[[Any], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def agent(folder: Path) -> Iterator[HFAgent]:
    opened = _open(folder)
    yield opened
    opened.close()


def _open(folder: Path, attn: str = "batched") -> HFAgent:
    return HFAgent(str(folder), attn=attn, device="cpu", threads=1, cache_gb=0.1)


def _answer(decision: Decision) -> tuple[Any, ...]:
    return decision.error, decision.raw, decision.trace, decision.prompt_tokens, decision.action_logprob


def _near(answers: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same answers, their log-probabilities to rounding."""
    return [(*rest, None if logprob is None else pytest.approx(logprob, abs=2e-3)) for *rest, logprob in answers]


def _answers(agent: HFAgent, queries: list[Query]) -> list[tuple[Any, ...]]:
    return [_answer(decision) for decision in agent.decide(queries)]


def _has_blocks(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """Let a device have memory for so many blocks of a pool alone."""
    import torch

    zeros = torch.zeros

    def limited(size: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(size, tuple) and len(size) == 3 and size[0] > blocks * BLOCK:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return zeros(size, *rest, **options)

    monkeypatch.setattr(torch, "zeros", limited)


def _with_pass(agent: HFAgent, monkeypatch: pytest.MonkeyPatch, make: Callable[[Pass], Pass]) -> None:
    """Put something before each pass of an agent."""
    import cotbench.agents.hf.engine as module

    engine: Any = agent._engine
    if engine.runner is None:
        forward = module.forward
        replacement = make(lambda spans: forward(engine._model, spans))
        monkeypatch.setattr(
            module, "forward", lambda model, spans: replacement(spans) if model is engine._model else forward(model, spans)
        )
    else:
        monkeypatch.setattr(engine.runner, "compute", make(engine.runner.compute))


def _limit_tokens(agent: HFAgent, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Let passes of more tokens than these have no memory."""
    import torch

    def make(compute: Pass) -> Pass:
        def limited(spans: Any) -> Any:
            if sum(len(span.ids) for span in spans) > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return compute(spans)

        return limited

    _with_pass(agent, monkeypatch, make)


def _check_blocks(engine: Any) -> None:
    """Each block is free, spare, or of one cache; and a cache holds the tokens beside it."""
    for lane in engine._lanes.values():
        for each in (lane, *lane.running):
            assert each.cache.length == len(each.ids)
    if (pool := engine._pool) is not None and pool._blocks:
        caches = [each.cache for lane in engine._lanes.values() for each in (lane, *lane.running)]
        held = [block for cache in caches for block in cache.blocks]
        assert sorted([*held, *pool._free, SPARE_BLOCK]) == list(range(pool._blocks))


@pytest.mark.parametrize("attn", ["batched", "rows"])
@pytest.mark.parametrize("tokens", [40, 80, 150])
def test_a_prompt_too_large_for_a_pass_is_computed_in_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, attn: str, tokens: int
) -> None:
    agent = _open(folder, attn)
    queries = [state(2, mode, episode="a") for mode in MODES]
    expected = _near(_answers(agent, queries))
    agent.clear_cache()
    _limit_tokens(agent, monkeypatch, tokens)
    found = _answers(agent, queries)
    if tokens < 64:  # Fewer than a pass has at least.
        assert all("out of memory" in str(error) for error, *_ in found)
    else:
        assert found == expected
    agent.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_where_the_memory_of_the_budget_is_not_there(
    agent: HFAgent, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    elicitation = Elicitation(trace_tokens=24, action_tokens=8, temperature=temperature)
    rounds = [[state(turn, mode, elicitation, str(name)) for name in range(6) for mode in MODES] for turn in range(4)]
    expected = [_near(_answers(agent, queries)) for queries in rounds]
    agent.clear_cache()
    engine: Any = agent._engine
    blocks = 30  # Fewer than six lanes need, more than one.
    _has_blocks(monkeypatch, blocks)
    begun_again = []
    begin_again = engine._begin_some_again
    monkeypatch.setattr(engine, "_begin_some_again", lambda: begun_again.append(1) or begin_again())
    assert [_answers(agent, queries) for queries in rounds] == expected
    assert begun_again and engine._pool.nbytes <= blocks * engine._pool.block_bytes
    assert engine._memory.cache_bytes <= engine._pool.nbytes


def test_a_query_that_fits_nowhere_fails_alone(agent: HFAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = agent.decide([state(1, "cot", episode="a")])[0]
    agent.clear_cache()
    _has_blocks(monkeypatch, 16)
    large, small = agent.decide([state(40, "cot", episode="b"), state(1, "cot", episode="a")])
    assert large.error is not None and "no memory for" in large.error
    assert (small.error, small.raw) == (None, expected.raw)


def test_a_pass_that_is_too_large_for_memory_is_computed_in_parts(agent: HFAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    import torch

    queries = [state(6, mode, episode=name) for name in "abc" for mode in MODES]
    expected = _near(_answers(agent, queries))
    agent.clear_cache()
    engine: Any = agent._engine
    compute, held, sizes = engine.runner.compute, [], []

    def limited(spans: Any) -> Any:
        sizes.append(sum(len(span.ids) for span in spans))
        assert all(reference() is None for reference in held), "what the failed pass held is still there"
        if sizes[-1] > 100:
            activations = torch.zeros(8)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(spans)

    gc.disable()
    monkeypatch.setattr(engine.runner, "compute", limited)
    try:
        assert _answers(agent, queries) == expected
    finally:
        gc.enable()
    assert 0 < len(held) < 12 and max(sizes[len(sizes) // 2 :]) <= 100, "passes became smaller for good"


def test_candidates_wait_where_the_budget_has_no_room_for_all(folder: Path) -> None:
    agent = HFAgent(str(folder), attn="batched", device="cpu", threads=1, cache_gb=0.002)
    engine: Any = agent._engine
    budget = engine._pool._budget
    queries = [state(1, "prompt", episode=name, given_action=f"go to desk {number}") for name in "ab" for number in range(80)]
    assert budget < 100 and not [decision for decision in agent.decide(queries) if decision.error]
    assert engine._pool._blocks <= budget
    agent.close()


def test_queries_of_one_prompt_wait_for_each_other(agent: HFAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    warm = Elicitation(trace_tokens=12, action_tokens=8, temperature=1.0)
    queries = [state(1, "cot", warm, name, seed=seed) for seed in range(40) for name in "ab"]
    expected = _near(_answers(agent, queries))
    agent.clear_cache()
    _has_blocks(monkeypatch, 30)
    assert _answers(agent, queries) == expected
    _check_blocks(agent._engine)


@pytest.mark.ci
def test_a_thousand_episodes_in_little_memory(agent: HFAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Elicitation(trace_tokens=2, action_tokens=3)
    expected = _answers(agent, [state(1, "prompt", short, str(number)) for number in (0, 1)])
    agent.clear_cache()
    engine: Any = agent._engine
    engine._memory.cache_bytes = 4 * 10**9
    engine._pool.limit(4 * 10**9)
    _has_blocks(monkeypatch, 16)
    found = _answers(agent, [state(1, "prompt", short, str(number)) for number in range(1100)])
    assert found == _near(expected[:1]) * 1100 and expected[0] == expected[1]


def test_what_an_exception_interrupts_is_not_left_for_the_next_call(agent: HFAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [state(1, "cot", episode=name) for name in "ab"]
    expected = _near(_answers(agent, queries))
    engine: Any = agent._engine
    step, steps = engine.step, []

    def interrupted() -> Any:
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        agent.decide([state(0, "prompt", episode="c"), state(3, "cot", episode="d")])
    assert _answers(agent, queries) == expected and engine.idle
    steps.clear()
    monkeypatch.setattr("cotbench.agents.hf.engine.next_spans", lambda lanes, limits: 1 / 0)
    assert all(decision.error for decision in decide_or_errors(agent, queries))


@pytest.mark.parametrize("attn", ["batched", "rows"])
def test_one_shortage_does_not_bound_the_caches_for_good(folder: Path, monkeypatch: pytest.MonkeyPatch, attn: str) -> None:
    import torch

    agent = _open(folder, attn)
    engine: Any = agent._engine
    queries = [state(1, mode, episode=name) for name in "abcd" for mode in MODES]
    expected = _near(_answers(agent, queries))
    held = sum(lane.nbytes for lane in engine._lanes.values())
    failures = [True]

    def make(compute: Pass) -> Pass:
        def fails_once(spans: Any) -> Any:
            if failures:
                failures.clear()
                raise PoolFullError("no memory") if engine._pool else torch.OutOfMemoryError("CUDA out of memory")
            return compute(spans)

        return fails_once

    _with_pass(agent, monkeypatch, make)
    assert _answers(agent, queries) == expected and not failures
    assert engine._memory.cache_bytes >= held
    agent.clear_cache()
    failures.append(True)
    assert _answers(agent, queries) == expected and engine._memory.cache_bytes >= held
    agent.close()


@pytest.mark.parametrize("attn", ["batched", "rows"])
@pytest.mark.parametrize("shared", ["a given trace", "the way of the prompt action"])
def test_queries_that_continue_a_prompt_from_different_tokens_do_not_share_it(folder: Path, attn: str, shared: str) -> None:
    style = Elicitation(trace_tokens=6, action_tokens=4, style="template")
    if shared == "a given trace":
        queries = [state(1, "cot", style, given_trace="look"), state(1, "cot", style)]
    else:
        empty = style.model_copy(update={"prompt_action": "empty"})
        queries = [state(1, "prompt", style), state(1, "prompt", empty)]
    expected = _near([_answers(_open(folder, attn), [query])[0] for query in queries])
    assert _answers(_open(folder, attn), queries) == expected
    assert _answers(_open(folder, attn), queries[::-1])[::-1] == expected


@pytest.mark.parametrize("attn", ["batched", "rows"])
@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))])
def test_random_shortages_change_no_answer(folder: Path, monkeypatch: pytest.MonkeyPatch, attn: str, seed: int) -> None:
    """Random queries join while passes and growths fail at random; answers that are no errors are those of plenty of memory."""
    import torch

    draw = random.Random(seed)
    plenty, agent = _open(folder, attn), _open(folder, attn)
    elicitation = Elicitation(trace_tokens=draw.choice([6, 12, 40]), action_tokens=8, temperature=draw.choice([0.0, 1.0]))
    engine: Any = agent._engine
    engine._memory.cache_bytes = draw.choice([10**8, 600_000, 1_500_000])
    if engine._pool is not None:
        engine._pool.limit(engine._memory.cache_bytes)
    rounds = [_random_queries(draw, turn, elicitation) for turn in range(2)]
    expected = [plenty.decide(queries) for queries in rounds]
    _has_blocks(monkeypatch, draw.choice([10**6, 12, 20, 45]))
    most, chance = draw.choice([10**6, 70, 120, 200]), draw.choice([0.0, 0.05, 0.2])

    def make(compute: Pass) -> Pass:
        def limited(spans: Any) -> Any:
            if sum(len(span.ids) for span in spans) > most or draw.random() < chance:
                raise draw.choice([torch.OutOfMemoryError, PoolFullError])("no memory")
            return compute(spans)

        return limited

    _with_pass(agent, monkeypatch, make)
    for queries, decisions in zip(rounds, expected, strict=True):
        found: dict[Any, Decision] = {}
        waiting = list(enumerate(queries))
        for _ in range(4000):
            if waiting and (not found or draw.random() < 0.5):
                agent.submit(*waiting.pop())
            for key, decision in agent.collect(0.0):
                assert key not in found
                found[key] = decision
            _check_blocks(engine)
            if len(found) == len(queries):
                break
        assert len(found) == len(queries) and engine.idle
        for key, decision in enumerate(decisions):
            if found[key].error is None:
                assert [_answer(found[key])] == _near([_answer(decision)])
            else:
                assert "no memory" in str(found[key].error)
    plenty.close()
    agent.close()


def _random_queries(draw: random.Random, turn: int, elicitation: Elicitation) -> list[Query]:
    queries = []
    for name in "abcde"[: draw.randint(1, 5)]:
        for _ in range(draw.randint(1, 3)):
            mode = draw.choice(MODES)
            given = {"given_action": "go to desk 1"} if draw.random() < 0.2 else {}
            trace = {"given_trace": "look at it"} if mode == "cot" and draw.random() < 0.2 else {}
            queries.append(state(turn + draw.randint(0, 2), mode, elicitation, name, seed=draw.randint(0, 3), **given, **trace))
    draw.shuffle(queries)
    return queries
