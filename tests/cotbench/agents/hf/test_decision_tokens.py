"""Decision tokens: what is trained on is what was generated, by both engines, and on live models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.attention import ATTENTION
from cotbench.agents.hf.continuation import Sampler
from cotbench.agents.hf.sequential_engine import SequentialEngine
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import decision_tokens
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.generation import Generation
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Decision, DecisionTokens, Query
from tests.hf_agents import answers_of, hf_agent, reference, state

WARM = Elicitation(trace_tokens=8, action_tokens=6, temperature=1.0)


@pytest.fixture(params=["llama", "llama?attn=sdpa", pytest.param("mamba", marks=pytest.mark.slow)])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> HFAgent:
    made = hf_agent(tmp_path, request.param)
    assert isinstance(made._engine, SequentialEngine) == (request.param != "llama")
    return made


def recomputed(agent: HFAgent, tokens: DecisionTokens) -> list[float]:
    """The completion's log-probabilities by transformers' own forward over the whole sequence."""
    import torch

    ids = torch.tensor([[*tokens.prompt_ids, *tokens.completion_ids]])
    with torch.inference_mode():
        logits = reference(agent)(input_ids=ids, use_cache=False).logits[0, :-1].float()
    chosen = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]
    return [float(each) for each in chosen[len(tokens.prompt_ids) - 1 :]]


def check(agent: HFAgent, query: Query, decision: Decision) -> DecisionTokens:
    """Ids, texts and probabilities belong together."""
    tokens = decision.tokens
    assert tokens is not None and decision.error is None
    assert len(tokens.completion_ids) == len(tokens.logprobs) == len(tokens.harness)
    assert tokens.prompt_ids == tuple(agent._chat.prompt_ids(query.elicitation.messages(query.dialogue, query.mode)))
    text, ended = agent._chat.decode(tokens.completion_ids), tokens.completion_ids[-1] in agent._end_ids
    kept = agent._chat.decode(tokens.completion_ids[:-1]) if ended else text
    if decision.raw.endswith(ACTION_CLOSE) and text.endswith(ACTION_CLOSE):
        assert text == decision.raw
    else:  # The last token may go on behind the end of the answer.
        assert kept.startswith(decision.raw) and len(kept) - len(decision.raw) <= len(
            agent._chat.decode(tokens.completion_ids[-1:])
        )
    for logprob, harness, expected in zip(tokens.logprobs, tokens.harness, recomputed(agent, tokens), strict=True):
        assert logprob == (0.0 if harness else pytest.approx(expected, abs=1e-4))
    return tokens


_SLOW = pytest.param("mamba", "template", marks=pytest.mark.slow)  # It computes every sequence anew, a token at a time.


@pytest.mark.parametrize(
    ("agent", "style"),
    [*(("llama", style) for style in ("prefill", "template")), ("llama?attn=sdpa", "template"), ("mamba", "prefill"), _SLOW],
    indirect=["agent"],
)
def test_tokens_are_the_sequence_that_went_through_the_model(agent: HFAgent, style: str) -> None:
    asked = WARM.model_copy(update={"style": style})
    queries = [
        state(turns, mode, asked, episode=str(turns), seed=seed, return_tokens=True)  # type: ignore[arg-type]
        for turns in (0, 2)
        for mode in ("prompt", "cot")
        for seed in (1, 2)
    ]
    decisions = agent.decide(queries)
    for query, decision in zip(queries, decisions, strict=True):
        tokens = check(agent, query, decision)
        own = sum(not harness for harness in tokens.harness)
        assert 0 < own <= decision.generated_tokens
        assert not tokens.harness[-1], "the last token was generated"
        if style == "template":
            assert own == decision.generated_tokens == len(tokens.completion_ids), "nothing is opened"
    plain = agent.decide([replace(query, return_tokens=False) for query in queries])
    assert [each.tokens for each in plain] == [None] * len(plain)
    assert answers_of(plain) == answers_of(decisions), "asking for tokens changes nothing"


def test_a_trace_that_the_budget_cut_is_closed_by_the_harness(agent: HFAgent) -> None:
    query = state(1, "cot", WARM, seed=3, return_tokens=True)
    decision = agent.decide([query])[0]
    tokens = check(agent, query, decision)
    assert decision.trace_truncated and decision.trace_tokens == WARM.trace_tokens
    chat = agent._chat
    opening, closing = chat.encode(THINK_OPEN), [*chat.encode(f"{THINK_CLOSE}\n"), *chat.encode(ACTION_OPEN)]
    action = len(tokens.completion_ids) - decision.action_tokens
    assert list(tokens.completion_ids[: len(opening)]) == opening
    assert list(tokens.completion_ids[action - len(closing) : action]) == closing
    assert all(tokens.harness[: len(opening)]) and all(tokens.harness[action - len(closing) : action])
    assert not any(tokens.harness[action:])
    trace = slice(len(opening), action - len(closing))
    assert chat.decode(tokens.completion_ids[trace]) == decision.raw[len(THINK_OPEN) :].partition(THINK_CLOSE)[0]
    assert not all(tokens.harness[trace])
    assert decision.action_logprob == pytest.approx(sum(tokens.logprobs[action:]), abs=1e-3)


def test_given_traces_and_actions_are_the_harness_own(agent: HFAgent) -> None:
    given = state(1, "cot", WARM, given_trace="I look at desk 1", return_tokens=True)
    decision = agent.decide([given])[0]
    tokens = check(agent, given, decision)
    opening = f"{THINK_OPEN}I look at desk 1{THINK_CLOSE}\n{ACTION_OPEN}"
    assert agent._chat.decode([one for one, own in zip(tokens.completion_ids, tokens.harness, strict=True) if own]) == opening
    scored = replace(given, given_action="take mug 1")
    tokens = check(agent, scored, agent.decide([scored])[0])
    assert all(tokens.harness) and agent._chat.decode(tokens.completion_ids) == f"{opening}take mug 1{ACTION_CLOSE}"


def test_rollouts_of_one_task_differ_and_do_not_mix(agent: HFAgent) -> None:
    queries = [state(1, "cot", WARM, seed=seed, rollout=seed, return_tokens=True) for seed in range(4)]
    together = agent.decide(queries)
    assert len({decision.raw for decision in together}) == 4
    for query, decision in zip(queries, together, strict=True):
        agent.clear_cache()
        assert agent.decide([query])[0].tokens == decision.tokens
        check(agent, query, decision)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_both_engines_tell_the_same_tokens(tmp_path: Path, kind: str) -> None:
    asked = Elicitation(trace_tokens=14, action_tokens=10)
    queries = [state(turns, mode, asked, return_tokens=True) for turns in (0, 1) for mode in ("cot", "prompt")]  # type: ignore[arg-type]
    ours, theirs = (hf_agent(tmp_path, name).decide(queries) for name in (kind, f"{kind}?attn=eager"))
    for one, other in zip(ours, theirs, strict=True):
        assert one.tokens is not None and other.tokens is not None
        assert replace(one.tokens, logprobs=()) == replace(other.tokens, logprobs=())
        assert one.tokens.logprobs == pytest.approx(other.tokens.logprobs, abs=1e-4)


def test_which_tokens_count_where_a_stop_string_ends_a_generation(tmp_path: Path) -> None:
    """Prompt 1, opened tag 2, then a trace that ends inside a token, at a token, or at the model's own closing tag."""
    action = ([2, 5, 9, 8, 7], Generation("look", ACTION_CLOSE, 2, ids=(30, 31), logprobs=(-0.5, -0.25)))

    def tokens(*ids: int, eos: int | None = None) -> DecisionTokens | None:
        count = len(ids) + (eos is not None)
        trace = Generation("", THINK_CLOSE, count, ids=ids, logprobs=tuple(-float(n + 1) for n in range(count)), eos_id=eos)
        return decision_tokens([1], [([2], trace), action])

    inside = tokens(5, 20, 8)
    assert inside is not None
    assert inside.completion_ids == (2, 5, 9, 8, 7, 30, 31)
    assert inside.harness == (True, False, True, True, True, False, False), "what follows another token is not the model's"
    assert inside.logprobs == (0.0, -1.0, 0.0, 0.0, 0.0, -0.5, -0.25)
    own = tokens(5, 9, 8)
    assert own is not None and own.harness == (True, False, False, False, True, False, False), "its own closing tag"
    ended = tokens(5, eos=99)
    assert ended is not None and ended.harness == (True, False, True, True, True, False, False), "the end of turn is left out"
    final = decision_tokens([1], [([2], Generation("x", "eos", 2, ids=(30,), logprobs=(-0.5, -0.1), eos_id=99))])
    assert final is not None and final.completion_ids == (2, 30, 99) and final.logprobs == (0.0, -0.5, -0.1)
    assert decision_tokens([1], [([2], Generation("x", "eos", 2, ids=(30,), logprobs=(-0.5, -0.1)))]) is None, (
        "an id is missing"
    )
    assert decision_tokens([1], [([2], Generation("x", "budget", 1, ids=(30,)))]) is None, "probabilities are missing"


@pytest.mark.parametrize("kind", ["llama", "llama?attn=sdpa"])
def test_a_live_model_answers_as_a_loaded_one_also_after_a_training_step(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = hf_agent(tmp_path, kind)
    folder = tmp_path / "model"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    own = model.config._attn_implementation
    model.train()
    live = HFAgent.from_model(model, tokenizer, attn="sdpa" if "?" in kind else "auto")
    assert live.name == "hf:live" and live.batch == loaded.batch
    description = live.describe()
    assert description["weights"] == "live" and "weights_sha256" not in description
    assert description["parameters"] == loaded.describe()["parameters"]
    queries = [state(turns, mode, WARM, seed=turns, return_tokens=True) for turns in (0, 2) for mode in ("cot", "prompt")]  # type: ignore[arg-type]
    before = live.decide(queries)
    assert before == loaded.decide(queries)
    assert all(module.training for module in model.modules()), "it can be trained on"
    assert model.config._attn_implementation == own != ATTENTION

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ids = torch.tensor([[5, 9, 12, 7, 9, 12]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    live.clear_cache()
    after = live.decide(queries)
    assert [each.tokens for each in after] != [each.tokens for each in before]
    fresh = HFAgent.from_model(model, tokenizer, attn="sdpa" if "?" in kind else "auto")
    assert after == fresh.decide(queries)
    model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    again = HFAgent(str(tmp_path / "trained"), device="cpu", attn="sdpa" if "?" in kind else "auto")
    assert after == again.decide(queries)
    with live.expose_model() as handle:
        assert handle.model is model and isinstance(handle.chat, Chat)
    live.close()
    assert model.config._attn_implementation == own


def test_a_live_model_needs_no_chat_template(tmp_path: Path) -> None:
    loaded = hf_agent(tmp_path, "llama", "none")
    from transformers import AutoTokenizer

    live = HFAgent.from_model(
        reference(loaded), AutoTokenizer.from_pretrained(tmp_path / "model"), name="hf:mine", context=2048
    )
    assert live.name == live.describe()["model"] == "hf:mine"
    query = state(1, "cot", WARM, seed=1)
    assert live.decide([query]) == loaded.decide([query])


def test_a_models_own_closing_tags_are_its_own_tokens(agent: HFAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    chat = agent._chat
    texts = [f"I look{THINK_CLOSE}", f"look{ACTION_CLOSE}"]
    written = [chat.encode(text) for text in texts]
    scripts = iter(map(iter, written))

    def choose(sampler: Any, logits: Any) -> tuple[int, float]:
        """Write the script, one text a continuation, with the model's own probabilities."""
        if not hasattr(sampler, "script"):
            sampler.script = next(scripts)
        token = next(sampler.script)
        return token, float(torch.log_softmax(logits, dim=-1)[token])

    monkeypatch.setattr(Sampler, "choose", choose)
    query = state(1, "cot", Elicitation(trace_tokens=30, action_tokens=30), return_tokens=True)
    (decision,) = agent.decide([query])
    assert decision.format_ok and decision.raw == f"{THINK_OPEN}{texts[0]}\n{ACTION_OPEN}{texts[1]}"
    tokens = check(agent, query, decision)
    assert chat.decode(tokens.completion_ids) == decision.raw
    own = [one for one, harness in zip(tokens.completion_ids, tokens.harness, strict=True) if not harness]
    assert own == [*written[0], *written[1]] and len(own) == decision.generated_tokens
