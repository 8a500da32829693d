"""The hf: engine: batches, caches and guesses change no answer, to the last bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.attention import TokenSpan, forward, install_attention
from cotbench.agents.hf.kv_cache import KVCache
from cotbench.envs import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.parsing import ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Query
from tests import tiny_models
from tests.hf_agents import answers_of, hf_agent, plain_answer, state


def test_what_does_not_fit_into_the_cache_is_computed_again(tmp_path: Path) -> None:
    roomy, tight = hf_agent(tmp_path), hf_agent(tmp_path, options="cache_gb=0.000001")
    queries = [state(turns, mode, episode=name) for turns in (1, 2, 3) for name in "abc" for mode in ("prompt", "cot")]  # type: ignore[arg-type]
    plenty, little = roomy.decide(queries), tight.decide(queries)
    assert answers_of(plenty) == answers_of(little)
    assert sum(each.reused_tokens for each in little) < sum(each.reused_tokens for each in plenty)


def test_the_least_recently_used_episode_is_forgotten(tmp_path: Path) -> None:
    agent = hf_agent(tmp_path)
    agent.decide([state(2, "cot", episode=name) for name in "abc"])
    engine: Any = agent._engine
    lane = engine._lanes[("b", 0, "")].nbytes
    engine._memory.cache_bytes = int(5.5 * lane)
    agent.decide([state(2, "prompt", episode="a"), state(2, "prompt", episode="d"), state(2, "prompt", episode="e")])
    assert [name for name, *_ in engine._lanes] == ["a", "d", "e"]


def test_every_running_episode_keeps_its_cache(tmp_path: Path) -> None:
    agent = hf_agent(tmp_path)
    names = [str(number) for number in range(20)]
    agent.decide([state(1, "cot", episode=name) for name in names])
    assert all(decision.reused_tokens > 0 for decision in agent.decide([state(2, "cot", episode=name) for name in names]))


def test_one_failing_query_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.agents.hf import engine

    agent = hf_agent(tmp_path)
    good = agent.decide([state(1, "cot", episode="a")])[0]
    agent._engine.close()

    def fails(model: Any, spans: list[TokenSpan]) -> Any:
        if any(span.position + len(span.ids) > 1_000 for span in spans):
            raise RuntimeError("out of memory")
        return forward(model, spans)

    monkeypatch.setattr(engine, "forward", fails)
    one, two = agent.decide([state(40, "cot", episode="b"), state(1, "cot", episode="a")])
    assert one.error == "RuntimeError: out of memory"
    assert (two.error, two.raw) == (None, good.raw)
    assert agent.decide([state(2, "cot", episode="b")])[0].error is None


_WORDS = st.text(alphabet="abc \n<>/|é{}", max_size=40)


@pytest.mark.parametrize("company", [pytest.param(3, id="some"), pytest.param(60, id="many", marks=pytest.mark.slow)])
def test_any_dialogue_in_any_company(llama: HFAgent, tight: HFAgent, batched: HFAgent, company: int) -> None:
    # Shrinking takes minutes and makes these no clearer.
    drawn = settings(max_examples=company, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
    drawn(_any_dialogue_in_any_company)(llama, tight, batched)


@given(
    turns=st.lists(st.tuples(_WORDS, st.none() | _WORDS, _WORDS), max_size=4),
    history=st.sampled_from(["actions", "traces"]),
    style=st.sampled_from(["prefill", "template"]),
    warm=st.booleans(),
    data=st.data(),
)
def _any_dialogue_in_any_company(
    llama: HFAgent, tight: HFAgent, batched: HFAgent, turns: list[Any], history: str, style: str, warm: bool, data: Any
) -> None:
    asked = Elicitation(trace_tokens=6, action_tokens=5, history=history, style=style, temperature=1.0 if warm else 0.0)  # type: ignore[arg-type]
    states = [Dialogue(Instructions("You act."), ("Your task is to: look.",))]
    for action, trace, observation in turns:
        states.append(states[-1].extended(action, trace, observation))
    queries = [
        Query("e", "", "t", n, mode, state, asked, seed=n) for n, state in enumerate(states) for mode in ("prompt", "cot")
    ]  # type: ignore[arg-type]
    plain = {}
    for query in queries:
        llama._engine.close()
        plain[query] = answers_of(llama.decide([query]))[0]
    if not warm and style == "prefill":
        trace, action = plain_answer(llama, queries[-1])
        assert plain[queries[-1]][0].startswith(f"{THINK_OPEN}{trace}{THINK_CLOSE}\n{ACTION_OPEN}{action}")
    order = data.draw(st.permutations(queries))
    names = [replace(query, episode=data.draw(st.sampled_from("ef"))) for query in order]
    for agent in (llama, tight):
        assert answers_of(agent.decide(names)) == [plain[query] for query in order]
    for (*answer, logprob), query in zip(answers_of(batched.decide(names)), order, strict=True):
        assert (*answer, pytest.approx(logprob, abs=5e-4)) == plain[query]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> HFAgent:
    return hf_agent(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> HFAgent:
    return hf_agent(tmp_path_factory.mktemp("tight"), options="cache_gb=0.0005")


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> HFAgent:
    """All sequences at once, in a pool from which episodes are dropped."""
    return hf_agent(tmp_path_factory.mktemp("batched"), options="attn=batched&cache_gb=0.0005")


@pytest.mark.parametrize("kind", ["llama", "qwen", "gemma", "gemma3", "smollm2"])
def test_a_token_does_not_feel_its_neighbours(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from cotbench.agents.hf.bundled import smollm2_folder

    folder = smollm2_folder() if kind == "smollm2" else tiny_models.save_model(tmp_path / "model", kind)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    install_attention(model)

    def played(companions: int) -> list[Any]:
        trunk, branches = KVCache(), [KVCache(), KVCache()]
        others = [KVCache() for _ in range(companions)]
        rows = forward(
            model,
            [
                *(TokenSpan(range(9, 40 + n), one) for n, one in enumerate(others)),
                TokenSpan(range(5, 80), trunk, logits_from_end=[1]),
            ],
        )
        seen = [rows[-1]]
        for step in range(3):
            spans = [TokenSpan([step + 7] * (n + 1), one, logits_from_end=[1]) for n, one in enumerate(others)]
            spans += [
                TokenSpan([step + 3, step], one, trunk, logits_from_end=[1, 2]) for one in branches[: 1 + (companions > 0)]
            ]
            seen.append(forward(model, spans)[companions])
        return seen

    alone = played(0)
    for companions in (1, 2, 6) if kind != "smollm2" else (2,):
        together = played(companions)
        assert all(torch.equal(one, two) for one, two in zip(alone, together, strict=True))


@pytest.mark.parametrize("threads", [3, 5])
@pytest.mark.parametrize("name", ["silu", "gelu_pytorch_tanh", "gelu", "quick_gelu", "gelu_new", "mish", "relu2"])
def test_an_activation_does_not_feel_how_many_rows_and_threads_there_are(name: str, threads: int) -> None:
    import torch
    from transformers.activations import ACT2FN

    from cotbench.agents.hf.activations import activations_in_pieces

    rows = 3 * torch.randn(1_000, 176, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([ACT2FN[name](four) for four in rows.split(4)])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for count in range(4, 1_000, 60):
            with activations_in_pieces(rows.device):
                assert torch.equal(ACT2FN[name](rows[:count]), alone[:count]), count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["llama", "qwen", "gemma", "gemma3", pytest.param("smollm2", marks=pytest.mark.slow)])
def test_a_token_does_not_feel_how_its_sequence_is_cut_into_passes(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from cotbench.agents.hf.bundled import smollm2_folder

    folder = smollm2_folder() if kind == "smollm2" else tiny_models.save_model(tmp_path / "model", kind)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    install_attention(model)
    ids = [(7 * index + 3) % 300 for index in range(230)]
    length = 30 if kind == "smollm2" else 70  # Of the continuation.

    def played(trunk_sizes: list[int], own_sizes: list[int], merged: bool) -> Any:
        trunk, own, rows = KVCache(), KVCache(), []
        sizes = iter(trunk_sizes)
        while trunk.length < 101:
            size = min(next(sizes), 101 - trunk.length)
            spans = [TokenSpan(ids[trunk.length : trunk.length + size], trunk, logits_from_end=[1])]
            if merged and trunk.length + size == 101:  # The first tokens of the continuation come in the same pass.
                spans.append(TokenSpan(ids[101:104], own, trunk, size, logits_from_end=range(3, 0, -1)))
            rows += forward(model, spans)[-1:]
        rows = rows[-1:] if merged else []
        sizes = iter(own_sizes)
        while own.length < length:
            size = min(next(sizes), length - own.length)
            rows += forward(
                model,
                [TokenSpan(ids[101 + own.length : 101 + own.length + size], own, trunk, logits_from_end=range(size, 0, -1))],
            )
        return torch.cat(rows)

    plain = played([101], [1] * length, False)
    for own_sizes in ([4, 1, 7] * 50, [length - 6] * 2, [length]):
        assert torch.equal(plain, played([101], own_sizes, False))
        assert torch.equal(plain, played([40, 24, 1, 30, 90], own_sizes, True))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_change_the_number_of_passes_alone(tmp_path: Path, temperature: float) -> None:
    asked = Elicitation(trace_tokens=60, action_tokens=20, temperature=temperature, top_p=0.5)
    answers, passes = [], []
    for drafts in ("true", "false"):
        agent = hf_agent(tmp_path, options=f"drafts={drafts}")
        counted: list[int] = []
        agent._model.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        decisions = [
            each for turns in range(4) for mode in ("cot", "prompt") for each in agent.decide([state(turns, mode, asked)])
        ]  # type: ignore[arg-type]
        answers.append([(*each[:3], each[3]) for each in answers_of(decisions)])
        passes.append(len(counted))
    assert answers[0] == answers[1]
    assert passes[0] < passes[1]


def test_an_n_gram_drafts_what_followed_it_last() -> None:
    from cotbench.agents.hf.prompt_lookup import NgramIndex, PromptLookup

    memory = NgramIndex()
    memory.extend([1, 2, 3, 4, 9, 2, 3, 5, 6])
    assert memory.after([2, 3], 2) == [5, 6]
    assert memory.after([1, 2, 3], 1) == [4], "the longer match counts more"
    assert memory.after([7, 7], 3) == [] and memory.after([3], 3) == []
    drafts = PromptLookup(memory, [2, 3])
    assert drafts.draft(1) == [5] and drafts.draft(0) == []
    drafts.update([5, 6, 8], 2)
    assert drafts.draft(9) == [], "nothing followed there"
    drafts.update([5, 6], 1)
    assert drafts.draft(1) == [8], "what it wrote itself comes first"


def test_each_token_goes_through_the_model_once(tmp_path: Path) -> None:
    agent = hf_agent(tmp_path, options="drafts=false")
    computed: list[int] = []
    agent._model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(sum(len(span.ids) for span in kwargs["cotbench_spans"])), with_kwargs=True
    )
    modes: tuple[Mode, ...] = ("cot", "prompt")
    decisions = [each for turns in range(5) for each in agent.decide([state(turns, mode) for mode in modes])]
    # The last token of a continuation is chosen and goes nowhere, unless a tag has to follow it: then it counts as prefilled.
    written = sum(each.generated_tokens - 1 - (each.trace is not None) for each in decisions)
    prefilled = sum(each.prefilled_tokens for each in decisions)
    assert sum(computed) == prefilled + written
    tags = len(agent._chat.encode(f"{THINK_OPEN}{THINK_CLOSE}{ACTION_OPEN}{ACTION_OPEN}")) + 8
    assert prefilled <= decisions[-1].prompt_tokens + 5 * tags, "the last prompt holds all that was ever prefilled"
    assert all(each.prompt_tokens == each.reused_tokens for each in decisions[1::2]), "the prompt action prefills no prompt"
