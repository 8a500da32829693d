"""The hf: agent: cached answers equal plain ones, token by token."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent  # noqa: E402
from cotbench.agents.hf.agent import HFAgent  # noqa: E402
from cotbench.agents.hf.engine import ids_before  # noqa: E402
from cotbench.agents.hf.plain import CachedSequence, PlainEngine  # noqa: E402
from cotbench.agents.hf.rows import Entries, Span, forward, install  # noqa: E402
from cotbench.answer import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN  # noqa: E402
from cotbench.dialogue import Dialogue  # noqa: E402
from cotbench.elicitation import Elicitation, Mode  # noqa: E402
from cotbench.envs import Instructions  # noqa: E402
from cotbench.errors import AgentError, CotbenchError  # noqa: E402
from cotbench.query import Decision, Query  # noqa: E402
from tests import tiny_models  # noqa: E402

SHORT = Elicitation(trace_tokens=12, action_tokens=8)
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


def _agent(tmp_path: Path, kind: str = "llama", template: str = "chatml", options: str = "") -> HFAgent:
    kind, _, attn = kind.partition("?")
    folder = tmp_path / "model"
    if not folder.exists():
        tiny_models.save_model(folder, kind, tiny_models.TEMPLATES[template])
    made = make_agent(f"hf:{folder}?" + "&".join(filter(None, ("threads=1&device=cpu", attn, options))))
    assert isinstance(made, HFAgent)
    return made


@pytest.fixture(params=MODELS + OTHERS, ids="-".join)
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> HFAgent:
    made = _agent(tmp_path, *request.param)
    assert isinstance(made._engine, PlainEngine) == (request.param in OTHERS), "the fast engine takes what it can"
    return made


def _reference(agent: HFAgent) -> Any:
    """The same weights with transformers' own attention."""
    import torch
    from transformers import AutoModelForCausalLM

    if not hasattr(agent, "_test_reference"):
        folder = agent._description["model"] if Path(agent._description["model"]).is_dir() else None
        if folder is None:
            from cotbench.agents.hf.models import smollm2_folder

            folder = smollm2_folder()
        agent._test_reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # type: ignore[attr-defined]
    return agent._test_reference  # type: ignore[attr-defined]


def _query(turns: int, mode: Mode, elicitation: Elicitation = SHORT, episode: str = "e", **more: Any) -> Query:
    dialogue = Dialogue(Instructions("You act."), ("You are in a room. Your task is to: look.",))
    for turn in range(turns):
        dialogue = dialogue.then(f"go to desk {turn}", None, f"On the desk {turn} you see a mug {turn}.")
    return Query(episode, "t", turns, mode, dialogue, elicitation, **more)


def _plain_greedy(
    agent: HFAgent, prefix: list[int], budget: int, stops: tuple[str, ...], one_line: bool
) -> tuple[list[int], str]:
    """The textbook loop: the whole sequence through the model for every token, no cache."""
    import torch

    ids: list[int] = []
    for _ in range(budget):
        with torch.inference_mode():
            logits = _reference(agent)(input_ids=torch.tensor([prefix + ids]), use_cache=False).logits[0, -1]
        token = int(logits.argmax())
        if token in agent._end_ids:
            break
        ids.append(token)
        text = agent._chat.decode(ids)
        ends = [place for stop in stops if (place := text.find(stop)) >= 0]
        body = text.lstrip()
        if one_line and "\n" in body:
            ends.append(len(text) - len(body) + body.index("\n"))
        if ends:
            return ids, text[: min(ends)]
    return ids, agent._chat.decode(ids)


def _plain(agent: HFAgent, query: Query) -> tuple[str | None, str]:
    """Trace and action text, by the definitions of the paper and the textbook loop."""
    chat = agent._chat
    ids = chat.prompt_ids(query.elicitation.messages(query.dialogue, query.mode))
    trace = None
    if query.mode == "cot":
        ids = ids + chat.encode(THINK_OPEN)
        tokens, trace = _plain_greedy(agent, ids, query.elicitation.trace_tokens, (THINK_CLOSE, ACTION_OPEN), False)
        ids = ids + ids_before(chat, tokens, trace) + chat.encode(f"{THINK_CLOSE}\n")
    _, action = _plain_greedy(agent, ids + chat.encode(ACTION_OPEN), query.elicitation.action_tokens, (ACTION_CLOSE,), True)
    return trace, action


def test_cached_answers_equal_plain_ones(agent: HFAgent) -> None:
    modes: tuple[Mode, ...] = ("cot", "prompt")
    for turns in (0, 1, 2, 5):
        for mode in modes:
            query = _query(turns, mode)
            trace, action = _plain(agent, query)
            raw = f"{THINK_OPEN}{trace}{THINK_CLOSE}\n" if trace is not None else ""
            assert agent.decide([query])[0].raw.startswith(f"{raw}{ACTION_OPEN}{action}"), (turns, mode)


def test_order_batch_and_neighbours_do_not_matter(agent: HFAgent) -> None:
    queries = [_query(turns, mode, episode=str(turns)) for turns in (3, 1, 4) for mode in ("prompt", "cot")]  # type: ignore[arg-type]

    def answers(decisions: list[Decision]) -> list[tuple[str, str | None, int]]:
        return [(decision.raw, decision.trace, decision.action_tokens) for decision in decisions]

    together = answers(agent.decide(queries))
    alone = [answers(agent.decide([query]))[0] for query in reversed(queries)][::-1]
    assert together == alone


def test_tokens_are_counted_and_reused(agent: HFAgent) -> None:
    cot, prompt = agent.decide([_query(2, "cot"), _query(2, "prompt")])
    assert cot.prompt_tokens == prompt.prompt_tokens > 0
    assert cot.reused_tokens == 0
    forgets = isinstance(agent._engine, PlainEngine) and agent._model.config.model_type != "llama"  # Windows, states.
    assert prompt.reused_tokens == (0 if forgets else prompt.prompt_tokens), "the second mode prefills nothing again"
    assert 0 < cot.trace_tokens <= SHORT.trace_tokens
    assert 0 < cot.action_tokens <= SHORT.action_tokens
    assert (prompt.trace_tokens, prompt.trace) == (0, None)
    later = agent.decide([_query(3, "cot")])[0]
    if not forgets:
        assert later.reused_tokens > 0.5 * cot.prompt_tokens


def test_the_log_probability_is_the_models(agent: HFAgent) -> None:
    import torch

    decision = agent.decide([_query(1, "prompt")])[0]
    chat = agent._chat
    prefix = chat.prompt_ids(SHORT.messages(_query(1, "prompt").dialogue, "prompt")) + chat.encode(ACTION_OPEN)
    ids, _ = _plain_greedy(agent, prefix, SHORT.action_tokens, (ACTION_CLOSE,), True)
    with torch.inference_mode():
        logits = _reference(agent)(input_ids=torch.tensor([prefix + ids]), use_cache=False).logits[0].float()
    logprobs = torch.log_softmax(logits, -1)
    total = sum(float(logprobs[len(prefix) - 1 + index, token]) for index, token in enumerate(ids))
    if decision.action_tokens > len(ids):  # The turn's end was generated too.
        total += float(logprobs[-1].max())
    assert decision.action_logprob == pytest.approx(total, abs=1e-3)


def test_a_given_trace_is_answered_from(agent: HFAgent) -> None:
    decision = agent.decide([_query(1, "cot", given_trace="I open the fridge")])[0]
    assert decision.trace == "I open the fridge"
    assert decision.trace_tokens == 0 and not decision.trace_truncated
    assert decision.raw.startswith(f"{THINK_OPEN}I open the fridge{THINK_CLOSE}\n{ACTION_OPEN}")
    chat = agent._chat
    ids = chat.prompt_ids(SHORT.messages(_query(1, "cot").dialogue, "cot")) + chat.encode(THINK_OPEN)
    ids += chat.encode("I open the fridge") + chat.encode(f"{THINK_CLOSE}\n") + chat.encode(ACTION_OPEN)
    _, action = _plain_greedy(agent, ids, SHORT.action_tokens, (ACTION_CLOSE,), True)
    assert decision.raw.removesuffix(ACTION_CLOSE).endswith(f"{ACTION_OPEN}{action}")


def test_sampling_is_seeded(agent: HFAgent) -> None:
    warm = SHORT.model_copy(update={"temperature": 1.5, "top_p": 0.95})
    raws = [agent.decide([_query(1, "cot", warm, seed=seed)])[0].raw for seed in (1, 2, 1, 3)]
    assert raws[0] == raws[2]
    assert len(set(raws)) == 3
    nucleus = SHORT.model_copy(update={"temperature": 1.5, "top_p": 1e-9})
    assert agent.decide([_query(1, "cot", nucleus, seed=4)])[0].raw == agent.decide([_query(1, "cot")])[0].raw


def test_the_template_style_reads_free_answers(agent: HFAgent) -> None:
    template = SHORT.model_copy(update={"style": "template"})
    for mode in ("prompt", "cot"):
        decision = agent.decide([_query(1, mode, template)])[0]  # type: ignore[arg-type]
        assert not decision.format_ok, "a random model knows no tags"
        assert decision.trace_tokens + decision.action_tokens > 0


def test_a_small_context_drops_the_oldest_observations(tmp_path: Path) -> None:
    folder = tiny_models.save_model(tmp_path / "model", context=1100)
    agent = make_agent(f"hf:{folder}?device=cpu")
    few, many = agent.decide([_query(2, "cot")])[0], agent.decide([_query(20, "cot")])[0]
    assert few.dropped_observations == 0
    assert many.dropped_observations > 0 and many.error is None
    assert many.prompt_tokens + SHORT.trace_tokens + SHORT.action_tokens <= 1100
    tight = make_agent(f"hf:{folder}?device=cpu&context=80")
    error = tight.decide([_query(2, "cot")])[0].error
    assert error is not None and "--max-steps" in error


def _answers(decisions: list[Decision]) -> list[tuple[str, str | None, int, float | None]]:
    return [(each.raw, each.trace, each.action_tokens, each.action_logprob) for each in decisions]


def test_what_does_not_fit_into_the_cache_is_computed_again(tmp_path: Path) -> None:
    roomy, tight = _agent(tmp_path), _agent(tmp_path, options="cache_gb=0.000001")
    queries = [_query(turns, mode, episode=name) for turns in (1, 2, 3) for name in "abc" for mode in ("prompt", "cot")]  # type: ignore[arg-type]
    plenty, little = roomy.decide(queries), tight.decide(queries)
    assert _answers(plenty) == _answers(little)
    assert sum(each.reused_tokens for each in little) < sum(each.reused_tokens for each in plenty)


def test_the_least_recently_used_episode_is_forgotten(tmp_path: Path) -> None:
    agent = _agent(tmp_path)
    agent.decide([_query(2, "cot", episode=name) for name in "abc"])
    engine: Any = agent._engine
    lane = engine._lanes[("b", "")].nbytes
    engine._limits = replace(engine._limits, cache_bytes=int(5.5 * lane))
    agent.decide([_query(2, "prompt", episode="a"), _query(2, "prompt", episode="d"), _query(2, "prompt", episode="e")])
    assert [name for name, _ in engine._lanes] == ["a", "d", "e"]


def test_every_running_episode_keeps_its_cache(tmp_path: Path) -> None:
    agent = _agent(tmp_path)
    names = [str(number) for number in range(20)]
    agent.decide([_query(1, "cot", episode=name) for name in names])
    assert all(decision.reused_tokens > 0 for decision in agent.decide([_query(2, "cot", episode=name) for name in names]))


def test_one_failing_query_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.agents.hf import engine

    agent = _agent(tmp_path)
    good = agent.decide([_query(1, "cot", episode="a")])[0]
    agent._engine.close()

    def fails(model: Any, spans: list[Span]) -> Any:
        if any(span.position + len(span.ids) > 1_000 for span in spans):
            raise RuntimeError("out of memory")
        return forward(model, spans)

    monkeypatch.setattr(engine, "forward", fails)
    one, two = agent.decide([_query(40, "cot", episode="b"), _query(1, "cot", episode="a")])
    assert one.error == "RuntimeError: out of memory"
    assert (two.error, two.raw) == (None, good.raw)
    assert agent.decide([_query(2, "cot", episode="b")])[0].error is None


def test_an_actions_log_probability_can_be_asked_for(agent: HFAgent) -> None:
    import torch

    for query, opening in (
        (_query(1, "prompt", given_action="take mug 1"), ""),
        (_query(1, "cot", given_action="take mug 1", given_trace="hm"), f"{THINK_OPEN}hm{THINK_CLOSE}\n"),
    ):
        chat = agent._chat
        ids = chat.prompt_ids(SHORT.messages(query.dialogue, query.mode))
        if opening:
            ids = ids + chat.encode(THINK_OPEN) + chat.encode("hm") + chat.encode(f"{THINK_CLOSE}\n")
        ids = ids + chat.encode(ACTION_OPEN)
        target = chat.encode(f"take mug 1{ACTION_CLOSE}")
        with torch.inference_mode():
            logits = _reference(agent)(input_ids=torch.tensor([ids + target]), use_cache=False).logits[0].float()
        expected = torch.log_softmax(logits, -1)[range(len(ids) - 1, len(ids) + len(target) - 1), target].sum()
        decision = agent.decide([query])[0]
        assert decision.action == "take mug 1" and decision.error is None
        assert decision.generated_tokens == 0
        assert decision.action_logprob == pytest.approx(float(expected), abs=1e-3)


_WORDS = st.text(alphabet="abc \n<>/|é{}", max_size=40)


@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # Shrinking takes minutes and makes these no clearer.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    turns=st.lists(st.tuples(_WORDS, st.none() | _WORDS, _WORDS), max_size=4),
    history=st.sampled_from(["actions", "traces"]),
    style=st.sampled_from(["prefill", "template"]),
    warm=st.booleans(),
    data=st.data(),
)
def test_any_dialogue_in_any_company(
    llama: HFAgent, tight: HFAgent, turns: list[Any], history: str, style: str, warm: bool, data: Any
) -> None:
    asked = Elicitation(trace_tokens=6, action_tokens=5, history=history, style=style, temperature=1.0 if warm else 0.0)  # type: ignore[arg-type]
    states = [Dialogue(Instructions("You act."), ("Your task is to: look.",))]
    for action, trace, observation in turns:
        states.append(states[-1].then(action, trace, observation))
    queries = [Query("e", "t", n, mode, state, asked, seed=n) for n, state in enumerate(states) for mode in ("prompt", "cot")]  # type: ignore[arg-type]
    plain = {}
    for query in queries:
        llama._engine.close()
        plain[query] = _answers(llama.decide([query]))[0]
    if not warm and style == "prefill":
        trace, action = _plain(llama, queries[-1])
        assert plain[queries[-1]][0].startswith(f"{THINK_OPEN}{trace}{THINK_CLOSE}\n{ACTION_OPEN}{action}")
    order = data.draw(st.permutations(queries))
    names = [replace(query, episode=data.draw(st.sampled_from("ef"))) for query in order]
    for agent in (llama, tight):
        assert _answers(agent.decide(names)) == [plain[query] for query in order]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> HFAgent:
    return _agent(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> HFAgent:
    return _agent(tmp_path_factory.mktemp("tight"), options="cache_gb=0.0005")


@pytest.mark.parametrize("kind", ["llama", "qwen", "gemma", "gemma3", "smollm2"])
def test_a_token_does_not_feel_its_neighbours(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from cotbench.agents.hf.models import smollm2_folder

    folder = smollm2_folder() if kind == "smollm2" else tiny_models.save_model(tmp_path / "model", kind)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    install(model)

    def played(companions: int) -> list[Any]:
        trunk, branches = Entries(), [Entries(), Entries()]
        others = [Entries() for _ in range(companions)]
        rows = forward(
            model, [*(Span(range(9, 40 + n), one) for n, one in enumerate(others)), Span(range(5, 80), trunk, wanted=[1])]
        )
        seen = [rows[-1]]
        for step in range(3):
            spans = [Span([step + 7] * (n + 1), one, wanted=[1]) for n, one in enumerate(others)]
            spans += [Span([step + 3, step], one, trunk, wanted=[1, 2]) for one in branches[: 1 + (companions > 0)]]
            seen.append(forward(model, spans)[companions])
        return seen

    alone = played(0)
    for companions in (1, 2, 6):
        together = played(companions)
        assert all(torch.equal(one, two) for one, two in zip(alone, together, strict=True))


@pytest.mark.parametrize("kind", ["llama", "qwen", "smollm2"])
def test_a_token_does_not_feel_how_its_sequence_is_cut_into_passes(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from cotbench.agents.hf.models import smollm2_folder

    folder = smollm2_folder() if kind == "smollm2" else tiny_models.save_model(tmp_path / "model", kind)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    install(model)
    ids = [(7 * index + 3) % 300 for index in range(230)]

    def played(trunk_sizes: list[int], own_sizes: list[int], merged: bool) -> Any:
        trunk, own, rows = Entries(), Entries(), []
        sizes = iter(trunk_sizes)
        while trunk.length < 101:
            size = min(next(sizes), 101 - trunk.length)
            spans = [Span(ids[trunk.length : trunk.length + size], trunk, wanted=[1])]
            if merged and trunk.length + size == 101:  # The first tokens of the continuation come in the same pass.
                spans.append(Span(ids[101:104], own, trunk, size, wanted=range(3, 0, -1)))
            rows += forward(model, spans)[-1:]
        rows = rows[-1:] if merged else []
        sizes = iter(own_sizes)
        while own.length < 70:
            size = min(next(sizes), 70 - own.length)
            rows += forward(
                model, [Span(ids[101 + own.length : 101 + own.length + size], own, trunk, wanted=range(size, 0, -1))]
            )
        return torch.cat(rows)

    plain = played([101], [1] * 70, False)
    for own_sizes in ([4, 1, 7] * 50, [64] * 2, [70]):
        assert torch.equal(plain, played([101], own_sizes, False))
        assert torch.equal(plain, played([40, 24, 1, 30, 90], own_sizes, True))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_change_the_number_of_passes_alone(tmp_path: Path, temperature: float) -> None:
    asked = Elicitation(trace_tokens=60, action_tokens=20, temperature=temperature, top_p=0.5)
    answers, passes = [], []
    for drafts in ("true", "false"):
        agent = _agent(tmp_path, options=f"drafts={drafts}")
        counted: list[int] = []
        agent._model.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        decisions = [
            each for turns in range(4) for mode in ("cot", "prompt") for each in agent.decide([_query(turns, mode, asked)])
        ]  # type: ignore[arg-type]
        answers.append([(*each[:3], each[3]) for each in _answers(decisions)])
        passes.append(len(counted))
    assert answers[0] == answers[1]
    assert passes[0] < passes[1]


def test_what_is_remembered_is_what_followed_last() -> None:
    from cotbench.agents.hf.drafts import Drafts, Memory

    memory = Memory()
    memory.extend([1, 2, 3, 4, 9, 2, 3, 5, 6])
    assert memory.after([2, 3], 2) == [5, 6]
    assert memory.after([1, 2, 3], 1) == [4], "the longer match counts more"
    assert memory.after([7, 7], 3) == [] and memory.after([3], 3) == []
    drafts = Drafts(memory, [2, 3])
    assert drafts.guess(1) == [5] and drafts.guess(0) == []
    drafts.learn([5, 6, 8], 2)
    assert drafts.guess(9) == [], "nothing followed there"
    drafts.learn([5, 6], 1)
    assert drafts.guess(1) == [8], "what it wrote itself comes first"


def test_cutting_inside_a_token(tmp_path: Path) -> None:
    from cotbench.agents.hf.chat import Chat

    chat = Chat(tiny_models.tokenizer())
    ids = chat.encode("go to desk")
    for end in range(len("go to desk") + 1):
        text = "go to desk"[:end]
        assert chat.decode(ids_before(chat, ids, text)) == text


def test_each_token_goes_through_the_model_once(tmp_path: Path) -> None:
    agent = _agent(tmp_path, options="drafts=false")
    computed: list[int] = []
    agent._model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(sum(len(span.ids) for span in kwargs["cotbench_spans"])), with_kwargs=True
    )
    modes: tuple[Mode, ...] = ("cot", "prompt")
    decisions = [each for turns in range(5) for each in agent.decide([_query(turns, mode) for mode in modes])]
    # The last token of a continuation is chosen and goes nowhere, unless a tag has to follow it: then it counts as prefilled.
    written = sum(each.generated_tokens - 1 - (each.trace is not None) for each in decisions)
    prefilled = sum(each.prefilled_tokens for each in decisions)
    assert sum(computed) == prefilled + written
    tags = len(agent._chat.encode(f"{THINK_OPEN}{THINK_CLOSE}{ACTION_OPEN}{ACTION_OPEN}")) + 8
    assert prefilled <= decisions[-1].prompt_tokens + 5 * tags, "the last prompt holds all that was ever prefilled"
    assert all(each.prompt_tokens == each.reused_tokens for each in decisions[1::2]), "the prompt action prefills no prompt"


def test_a_lora_adapter_is_merged(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="pip install 'cotbench[adapter]'")
    import torch
    from transformers import AutoModelForCausalLM

    plain = _agent(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    torch.manual_seed(3)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    agent = _agent(tmp_path, options=f"adapter={tmp_path / 'adapter'}")
    agent._test_reference = adapted.merge_and_unload().eval()  # type: ignore[attr-defined]
    _, action = _plain(agent, _query(1, "prompt"))
    said = agent.decide([_query(1, "prompt")])[0]
    assert said.raw.startswith(f"{ACTION_OPEN}{action}")
    assert said.action_logprob != plain.decide([_query(1, "prompt")])[0].action_logprob
    assert agent.describe()["adapter_sha256"] != agent.describe()["weights_sha256"]
    with pytest.raises(AgentError, match="cannot load the adapter"):
        _agent(tmp_path, options=f"adapter={tmp_path / 'nowhere'}")


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
        _agent(tmp_path, options=options)


def test_a_sequence_computes_only_what_is_new(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_models.save_model(tmp_path / "model")).eval()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    sequence = CachedSequence(model)
    long = list(range(10, 40))
    for target in (long[:20], long, [*long[:25], 5, 6], long[:10]):
        ours = sequence.logits_after(target)
        with torch.inference_mode():
            plain = model(input_ids=torch.tensor([target]), use_cache=False).logits[0, -1]
        assert torch.allclose(ours, plain, atol=1e-4)
    assert seen == [20, 20, 10, 30, 2, 27, 1, 10]


def test_describe_names_the_weights(tmp_path: Path) -> None:
    told = _agent(tmp_path).describe()
    assert told["dtype"] == "float32" and told["device"] == "cpu" and told["context"] == 4096
    assert told["attention"] == "cotbench" and _agent(tmp_path, options="attn=eager").describe()["attention"] == "eager"
    assert len(told["weights_sha256"]) == 64 and len(told["chat_template_sha256"]) == 64


def test_the_bundled_model_answers_the_same_with_and_without_cache() -> None:
    agent = make_agent("hf:smollm2?device=cpu")
    assert isinstance(agent, HFAgent)
    short = Elicitation(trace_tokens=6, action_tokens=6)
    for turns, mode in ((1, "cot"), (1, "prompt"), (2, "cot"), (2, "prompt")):
        query = replace(_query(turns, mode), elicitation=short)  # type: ignore[arg-type]
        trace, action = _plain(agent, query)
        raw = f"{THINK_OPEN}{trace}{THINK_CLOSE}\n" if trace is not None else ""
        assert agent.decide([query])[0].raw.startswith(f"{raw}{ACTION_OPEN}{action}"), (turns, mode)
