"""Lengths in a configuration: which are found, how a probe lowers them, and which way a model goes that has large ones."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.bundled import smollm2_folder, tiny_folder
from cotbench.agents.hf.length_settings import SHORT, LengthSetting, length_settings, shortened
from cotbench.agents.hf.sequential_engine import CachedSequence, CachePolicy, SequentialEngine
from tests.attention_kinds import CONTEXT, EARLY, KINDS, save_kind
from tests.hf_agents import hf_agent, state
from tests.tiny_models import save_model

LONGROPE = KINDS["longrope"].settings


def found(config: Any, context: int = 131072) -> list[LengthSetting]:
    return length_settings(SimpleNamespace(config=config, parameters=list), context)


@pytest.mark.parametrize(
    ("config", "settings", "lengths"),
    [
        ("LlamaConfig", {}, set()),
        ("Qwen3Config", {}, set()),
        ("GraniteConfig", {}, set()),
        ("Qwen2Config", {"use_sliding_window": False, "sliding_window": 4096}, set()),
        ("MistralConfig", {"sliding_window": 4096}, {"sliding_window=4096"}),
        ("Gemma3TextConfig", {}, {"sliding_window=4096"}),
        ("GptOssConfig", {}, {"sliding_window=128", "original_max_position_embeddings=4096"}),
        ("Llama4TextConfig", {}, {"attention_chunk_size=8192", "floor_scale=8192"}),
        ("DeepseekV32Config", {}, {"index_topk=2048"}),
        ("MiniMaxM3VLTextConfig", {}, {"index_block_size=128", "index_topk_blocks=16"}),
        (
            "Phi3Config",
            {**LONGROPE, "hidden_size": 64, "num_attention_heads": 4, "sliding_window": 262144},
            {f"original_max_position_embeddings={EARLY}"},
        ),
    ],
)
def test_lengths_of_a_configuration(config: str, settings: dict[str, Any], lengths: set[str]) -> None:
    import transformers

    assert {str(each) for each in found(getattr(transformers, config)(**settings)) if each.certain} == lengths


def test_only_what_a_sequence_can_reach_is_a_length() -> None:
    import transformers

    config = transformers.MistralConfig(sliding_window=4096)
    assert found(config, 4096) and not found(config, 4095)


def test_the_bundled_models_have_no_lengths_and_cost_no_further_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    for folder in (tiny_folder(), smollm2_folder()):
        config = AutoConfig.from_pretrained(folder)
        assert not found(config, config.max_position_embeddings)
    counts = count_tokens(monkeypatch)
    agent = HFAgent("tiny", device="cpu", threads=1)
    assert counts == [12, 12, 8] and "attention_reason" not in agent.describe()


def count_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the tokens of each forward pass from now on."""
    import torch

    counts: list[int] = []
    forward = torch.nn.Embedding.forward

    def counted(self: Any, ids: Any) -> Any:
        counts.append(int(ids.shape[-1]))
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", counted)
    return counts


def snapshot(model: Any) -> Any:
    plain = [{name: value for name, value in vars(module).items() if type(value) is int} for module in model.modules()]
    return copy.deepcopy((model.config.to_dict(), plain))


@pytest.mark.parametrize("name", ["longrope and windows", "chunks and temperature", "head sizes by layer", "chosen blocks"])
def test_a_lowered_setting_is_what_it_was_afterwards(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_kind(tmp_path / "model", KINDS[name]))
    before, settings = snapshot(model), length_settings(model, CONTEXT)
    assert settings
    for setting in settings:
        with pytest.raises(KeyError), shortened(model, [setting]):
            assert setting.name not in {each.name for each in length_settings(model, CONTEXT) if each.value > SHORT}
            raise KeyError
        assert snapshot(model) == before


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("longrope", {"original_max_position_embeddings": 4096}, "beyond original_max_position_embeddings=4096"),
        ("longrope and windows", {"original_max_position_embeddings": 4096, "sliding_window": 2047}, "embeddings=4096"),
        ("windows in all layers", {"sliding_window": 4096}, None),
        ("windows and softcaps", {"sliding_window": 4096}, None),
        ("chunks and temperature", {"attention_chunk_size": 8192, "floor_scale": 8192}, "beyond attention_chunk_size=8192"),
        ("chosen tokens", {"index_topk": 2048}, "NoneType"),
    ],
)
def test_a_large_length_costs_a_small_probe(
    name: str, settings: dict[str, Any], reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_kind(tmp_path / "model", KINDS[name], **settings, max_position_embeddings=131072)
    counts = count_tokens(monkeypatch)
    agent = HFAgent(str(folder), device="cpu", threads=1)
    assert max(counts) <= 28 and sum(counts) < 1000
    assert isinstance(agent._engine, SequentialEngine) == (reason is not None)
    assert (reason or "") in agent.describe().get("attention_reason", "")


def test_a_context_below_the_length_batches(tmp_path: Path) -> None:
    save_kind(tmp_path / "model", KINDS["longrope"], original_max_position_embeddings=200)
    agent = hf_agent(tmp_path)
    assert agent.batch == 1 and "embeddings=200; context=199 stays below" in agent.describe()["attention_reason"]
    agent = hf_agent(tmp_path, options="context=199")
    assert agent.batch > 1 and "attention_reason" not in agent.describe()
    assert agent.decide([state(1, "prompt")])[0].error is None


def test_a_cache_is_dropped_at_the_length_where_all_tokens_are_computed_otherwise(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_kind(tmp_path / "model", KINDS["longrope"])).eval()
    counts: list[int] = []
    model.register_forward_pre_hook(lambda module, args, kwargs: counts.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    sequence, ids = CachedSequence(model, CachePolicy(resets=(EARLY,))), list(range(10, 90))
    for end, count, passes in ((60, 1, [60]), (EARLY, 1, [2]), (66, 4, [66]), (67, 2, [2]), (65, 5, [62, 65]), (30, 1, [30])):
        reusable = sequence.reusable(ids[:end])
        counts.clear()
        rows = sequence.logits_after(ids[:end], count)
        assert counts == passes and reusable <= end
        with torch.inference_mode():
            whole = [
                model(input_ids=torch.tensor([ids[:length]]), use_cache=False).logits[0, -1]
                for length in range(end - count + 1, end + 1)
            ]
        assert torch.allclose(rows, torch.stack(whole), atol=1e-4)


def test_beyond_the_limit_everything_is_computed_each_time(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path / "model")).eval()
    counts: list[int] = []
    model.register_forward_pre_hook(lambda module, args, kwargs: counts.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    sequence, ids = CachedSequence(model, CachePolicy(limit=20)), list(range(10, 40))
    for end, count, reusable, passes in (
        (18, 1, 0, [18]),
        (20, 1, 18, [2]),
        (22, 1, 0, [22]),
        (22, 4, 0, [2, 21, 22]),
        (20, 1, 20, [1]),
    ):
        assert sequence.reusable(ids[:end]) == reusable
        counts.clear()
        assert sequence.logits_after(ids[:end], count).shape[0] == count
        assert counts == passes


def test_a_window_that_no_probe_feels_is_not_trusted(tmp_path: Path) -> None:
    kind = KINDS["windows as a mask that is made once"]
    save_kind(tmp_path / "model", kind)
    engine = hf_agent(tmp_path)._engine
    assert isinstance(engine, SequentialEngine) and engine._policy == CachePolicy(limit=EARLY - 1)
