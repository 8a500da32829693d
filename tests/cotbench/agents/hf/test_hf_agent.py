"""The hf: agent: cached answers equal plain ones, token by token."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.sequential_engine import CachedSequence, CachePolicy, SequentialEngine
from cotbench.agents.tokenization.token_ids import truncate_ids
from cotbench.errors import AgentError, CotbenchError
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Decision
from tests import tiny_models
from tests.hf_agents import SHORT, hf_agent, plain_answer, plain_greedy, reference, state

MODELS = [
    ("llama", "chatml"),
    ("qwen", "strips thinking"),
    ("gemma", "no system"),
    ("gemma3", "no system"),
    ("llama", "opens thinking"),
    ("qwen", "none"),
]

OTHERS = [("mamba", "chatml"), ("llama?attn=sdpa", "chatml"), ("gemma?attn=eager", "no system")]

"""Models that are answered for one query after the other."""


# It computes every sequence anew, a token at a time: by default in one test alone.
_RECURRENT = pytest.param(OTHERS[0], marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[*MODELS, _RECURRENT, *OTHERS[1:]], ids="-".join)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HFAgent:
    made = hf_agent(tmp_path_factory.mktemp("agent"), *request.param)
    assert isinstance(made._engine, SequentialEngine) == (request.param in OTHERS), "the fast engine takes what it can"
    return made


@pytest.fixture
def agent(opened: HFAgent) -> HFAgent:
    """It has answered nothing yet, as far as its caches know."""
    opened._engine.close()
    return opened


def test_cached_answers_equal_plain_ones(agent: HFAgent) -> None:
    modes: tuple[Mode, ...] = ("cot", "prompt")
    for turns in (0, 1, 2, 5):
        for mode in modes:
            query = state(turns, mode)
            trace, action = plain_answer(agent, query)
            raw = f"{THINK_OPEN}{trace}{THINK_CLOSE}\n" if trace is not None else ""
            assert agent.decide([query])[0].raw.startswith(f"{raw}{ACTION_OPEN}{action}"), (turns, mode)


def test_a_recurrent_models_answers_equal_plain_ones(tmp_path: Path) -> None:
    made = hf_agent(tmp_path, *OTHERS[0])
    for turns, mode in ((1, "cot"), (2, "prompt")):
        query = state(turns, mode)  # type: ignore[arg-type]
        trace, action = plain_answer(made, query)
        raw = f"{THINK_OPEN}{trace}{THINK_CLOSE}\n" if trace is not None else ""
        assert made.decide([query])[0].raw.startswith(f"{raw}{ACTION_OPEN}{action}"), (turns, mode)


def test_order_batch_and_neighbours_do_not_matter(agent: HFAgent) -> None:
    queries = [state(turns, mode, episode=str(turns)) for turns in (3, 1, 4) for mode in ("prompt", "cot")]  # type: ignore[arg-type]

    def answers(decisions: list[Decision]) -> list[tuple[str, str | None, int]]:
        return [(decision.raw, decision.trace, decision.action_tokens) for decision in decisions]

    together = answers(agent.decide(queries))
    alone = [answers(agent.decide([query]))[0] for query in reversed(queries)][::-1]
    assert together == alone


def test_tokens_are_counted_and_reused(agent: HFAgent) -> None:
    cot, prompt = agent.decide([state(2, "cot"), state(2, "prompt")])
    assert cot.prompt_tokens == prompt.prompt_tokens > 0
    assert cot.reused_tokens == 0
    forgets = isinstance(agent._engine, SequentialEngine) and agent._model.config.model_type != "llama"  # Windows, states.
    assert prompt.reused_tokens == (0 if forgets else prompt.prompt_tokens), "the second mode prefills nothing again"
    assert 0 < cot.trace_tokens <= SHORT.trace_tokens
    assert 0 < cot.action_tokens <= SHORT.action_tokens
    assert (prompt.trace_tokens, prompt.trace) == (0, None)
    later = agent.decide([state(3, "cot")])[0]
    if not forgets:
        assert later.reused_tokens > 0.5 * cot.prompt_tokens


def test_the_log_probability_is_the_models(agent: HFAgent) -> None:
    import torch

    decision = agent.decide([state(1, "prompt")])[0]
    chat = agent._chat
    prefix = chat.prompt_ids(SHORT.messages(state(1, "prompt").dialogue, "prompt")) + chat.encode(ACTION_OPEN)
    ids, _ = plain_greedy(agent, prefix, SHORT.action_tokens, (ACTION_CLOSE,), True)
    with torch.inference_mode():
        logits = reference(agent)(input_ids=torch.tensor([prefix + ids]), use_cache=False).logits[0].float()
    logprobs = torch.log_softmax(logits, -1)
    total = sum(float(logprobs[len(prefix) - 1 + index, token]) for index, token in enumerate(ids))
    if decision.action_tokens > len(ids):  # The turn's end was generated too.
        total += float(logprobs[-1].max())
    assert decision.action_logprob == pytest.approx(total, abs=1e-3)


def test_a_given_trace_is_answered_from(agent: HFAgent) -> None:
    decision = agent.decide([state(1, "cot", given_trace="I open the fridge")])[0]
    assert decision.trace == "I open the fridge"
    assert decision.trace_tokens == 0 and not decision.trace_truncated
    assert decision.raw.startswith(f"{THINK_OPEN}I open the fridge{THINK_CLOSE}\n{ACTION_OPEN}")
    chat = agent._chat
    ids = chat.prompt_ids(SHORT.messages(state(1, "cot").dialogue, "cot")) + chat.encode(THINK_OPEN)
    ids += chat.encode("I open the fridge") + chat.encode(f"{THINK_CLOSE}\n") + chat.encode(ACTION_OPEN)
    _, action = plain_greedy(agent, ids, SHORT.action_tokens, (ACTION_CLOSE,), True)
    assert decision.raw.removesuffix(ACTION_CLOSE).endswith(f"{ACTION_OPEN}{action}")


def test_sampling_is_seeded(agent: HFAgent) -> None:
    warm = SHORT.model_copy(update={"temperature": 1.5, "top_p": 0.95})
    raws = [agent.decide([state(1, "cot", warm, seed=seed)])[0].raw for seed in (1, 2, 1, 3)]
    assert raws[0] == raws[2]
    assert len(set(raws)) == 3
    nucleus = SHORT.model_copy(update={"temperature": 1.5, "top_p": 1e-9})
    assert agent.decide([state(1, "cot", nucleus, seed=4)])[0].raw == agent.decide([state(1, "cot")])[0].raw


def test_the_template_style_reads_free_answers(agent: HFAgent) -> None:
    template = SHORT.model_copy(update={"style": "template"})
    for mode in ("prompt", "cot"):
        decision = agent.decide([state(1, mode, template)])[0]  # type: ignore[arg-type]
        assert not decision.format_ok, "a random model knows no tags"
        assert decision.trace_tokens + decision.action_tokens > 0


def test_a_small_context_drops_the_oldest_observations(tmp_path: Path) -> None:
    folder = tiny_models.save_model(tmp_path / "model", context=1100)
    agent = make_agent(f"hf:{folder}?device=cpu")
    few, many = agent.decide([state(2, "cot")])[0], agent.decide([state(20, "cot")])[0]
    assert few.dropped_observations == 0
    assert many.dropped_observations > 0 and many.error is None
    assert many.prompt_tokens + SHORT.trace_tokens + SHORT.action_tokens <= 1100
    tight = make_agent(f"hf:{folder}?device=cpu&context=80")
    error = tight.decide([state(2, "cot")])[0].error
    assert error is not None and "--max-steps" in error


def test_an_actions_log_probability_can_be_asked_for(agent: HFAgent) -> None:
    import torch

    for query, opening in (
        (state(1, "prompt", given_action="take mug 1"), ""),
        (state(1, "cot", given_action="take mug 1", given_trace="hm"), f"{THINK_OPEN}hm{THINK_CLOSE}\n"),
    ):
        chat = agent._chat
        ids = chat.prompt_ids(SHORT.messages(query.dialogue, query.mode))
        if opening:
            ids = ids + chat.encode(THINK_OPEN) + chat.encode("hm") + chat.encode(f"{THINK_CLOSE}\n")
        ids = ids + chat.encode(ACTION_OPEN)
        target = chat.encode(f"take mug 1{ACTION_CLOSE}")
        with torch.inference_mode():
            logits = reference(agent)(input_ids=torch.tensor([ids + target]), use_cache=False).logits[0].float()
        expected = torch.log_softmax(logits, -1)[range(len(ids) - 1, len(ids) + len(target) - 1), target].sum()
        decision = agent.decide([query])[0]
        assert decision.action == "take mug 1" and decision.error is None
        assert decision.generated_tokens == 0
        assert decision.action_logprob == pytest.approx(float(expected), abs=1e-3)


def test_cutting_inside_a_token(tmp_path: Path) -> None:
    from cotbench.agents.tokenization.chat_template import Chat

    chat = Chat(tiny_models.tokenizer())
    ids = chat.encode("go to desk")
    for end in range(len("go to desk") + 1):
        text = "go to desk"[:end]
        assert chat.decode(truncate_ids(chat, ids, text)) == text


def test_a_lora_adapter_is_merged(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="pip install -e '.[adapter]'")
    import torch
    from transformers import AutoModelForCausalLM

    plain = hf_agent(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    torch.manual_seed(3)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    agent = hf_agent(tmp_path, options=f"adapter={tmp_path / 'adapter'}")
    agent._test_reference = adapted.merge_and_unload().eval()  # type: ignore[attr-defined]
    _, action = plain_answer(agent, state(1, "prompt"))
    said = agent.decide([state(1, "prompt")])[0]
    assert said.raw.startswith(f"{ACTION_OPEN}{action}")
    assert said.action_logprob != plain.decide([state(1, "prompt")])[0].action_logprob
    assert agent.describe()["adapter_sha256"] != agent.describe()["weights_sha256"]
    with pytest.raises(AgentError, match="cannot load the adapter"):
        hf_agent(tmp_path, options=f"adapter={tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("quantize=3bit", "unknown quantize '3bit'"),
        ("cache_gb=0", "above 0"),
        ("context=20", "no room for an answer"),
        ("dtype=float8", "unknown dtype"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(CotbenchError, match=message):
        hf_agent(tmp_path, options=options)


def test_a_sequence_computes_only_what_is_new(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_models.save_model(tmp_path / "model")).eval()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    sequence = CachedSequence(model, CachePolicy())
    long = list(range(10, 40))
    for target in (long[:20], long, [*long[:25], 5, 6], long[:10]):
        ours = sequence.logits_after(target)
        with torch.inference_mode():
            plain = model(input_ids=torch.tensor([target]), use_cache=False).logits[0, -1]
        assert torch.allclose(ours, plain, atol=1e-4)
    assert seen == [20, 20, 10, 30, 2, 27, 1, 10]


def test_describe_names_the_weights(tmp_path: Path) -> None:
    told = hf_agent(tmp_path).describe()
    assert told["dtype"] == "float32" and told["device"] == "cpu" and told["context"] == 4096
    assert told["attention"] == "cotbench" and hf_agent(tmp_path, options="attn=eager").describe()["attention"] == "eager"
    assert len(told["weights_sha256"]) == 64 and len(told["chat_template_sha256"]) == 64


@pytest.mark.slow
@pytest.mark.ci
def test_the_bundled_model_answers_the_same_with_and_without_cache() -> None:
    agent = make_agent("hf:smollm2?device=cpu")
    assert isinstance(agent, HFAgent)
    short = Elicitation(trace_tokens=2, action_tokens=2)  # The textbook loop computes the whole prompt for each.
    agent.decide([replace(state(1, "prompt"), elicitation=short)])  # So that the next one has something to reuse.
    query = replace(state(2, "cot"), elicitation=short)
    trace, action = plain_answer(agent, query)
    assert agent.decide([query])[0].raw.startswith(f"{THINK_OPEN}{trace}{THINK_CLOSE}\n{ACTION_OPEN}{action}")


def test_a_given_action_needs_an_opened_tag(agent: HFAgent) -> None:
    template = SHORT.model_copy(update={"style": "template"})
    error = agent.decide([state(1, "prompt", template, given_action="look")])[0].error
    assert error is not None and "ask with style prefill" in error


def test_a_model_that_is_not_answered_in_batches_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = hf_agent(tmp_path, "mamba")
    assert made.batch == 1 and "is answered one query after the other" in caplog.text


def test_the_memory_for_caches_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no /proc: a share of half of its memory is taken."""
    from cotbench.agents.hf.agent import _free_memory

    free = _free_memory()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert free > 0 and 0 < _free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    monkeypatch.delattr(os, "sysconf")
    with pytest.raises(AgentError, match=r"cannot determine the memory of this system: give \?cache_gb=4"):
        _free_memory()
