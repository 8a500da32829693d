"""Models prepared for training: where a turn ends, what is computed in."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from tests import tiny_models
from tests.hf_agents import hf_agent


@pytest.mark.parametrize("template", ["chatml", "two ends", "empty past thinking"])
def test_a_model_stops_where_its_training_ends_a_turn(tmp_path: Path, template: str) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    from cotbench.baselines.training.model import load_trainable, save

    words = tiny_models.tokenizer((tiny_models.TEMPLATES | tiny_models.UNUSUAL_TEMPLATES)[template])
    words.eos_token = "<|endoftext|>"
    folder = tiny_models.save_model(tmp_path / "model", words=words)
    agent = hf_agent(tmp_path)
    trainable = load_trainable(str(folder), device="cpu")
    (end,) = trainable.chat.turn_end
    assert words.convert_ids_to_tokens(end) == ("<|im_end|>" if template == "chatml" else "<|im_start|>")
    assert end != words.eos_token_id
    assert agent._end_ids == {end, words.eos_token_id}, "evaluation stops there too"
    save(trainable.model, trainable.tokenizer, tmp_path / "trained")
    ends = GenerationConfig.from_pretrained(tmp_path / "trained").eos_token_id
    assert set(ends) == {end, words.eos_token_id}, "and so does whoever loads what was trained"
    assert AutoTokenizer.from_pretrained(tmp_path / "trained").chat_template == words.chat_template


@pytest.mark.parametrize(("generation", "mixed"), [(7, False), (8, True), (9, True)])
def test_a_card_that_only_emulates_bfloat16_computes_in_float32(
    generation: int, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from cotbench.baselines.training.model import mixes_precision

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=generation))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    assert mixes_precision("auto", torch.device("cuda")) == mixed
    assert not mixes_precision("float32", torch.device("cuda")) and not mixes_precision("auto", torch.device("cpu"))
