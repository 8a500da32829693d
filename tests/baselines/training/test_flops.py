"""Operations of a model: by hand, and beside torch's own count."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.training.flops import StepCost, peak_flops, seen_pairs
from cotbench.baselines.training.lora import LoraOptions, add_adapter
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree
from cotbench.baselines.training.tree_row import dense_mask, tree_row
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("model") / "qwen", "qwen")


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32", attn_implementation="eager")


def test_as_many_operations_as_torch_counts(folder: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, tokens = load(folder), 24
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(10, 10 + tokens)[None], use_cache=False).logits.sum().backward()
    cost = StepCost.of(model)
    # Eager attention computes masked pairs, too; some versions of transformers compute rotary angles by a small product.
    expected = (cost.by_token + cost.by_supervised) * tokens + cost.by_pair * tokens**2
    assert expected <= counter.get_total_flops() <= expected * (1 + 1e-4)


def test_a_row_has_those_of_its_tokens_its_logits_and_its_pairs(folder: Path) -> None:
    row = pack(
        [
            Tree(tuple(range(10, 40)), (Branch(7, (5, 6, 7), (1.0,) * 3), Branch(30, (5, 6), (1.0, 0.0)))),
            Tree((11, 12), (), (1.0, 1.0)),
        ]
    )
    length = len(row.ids)
    assert seen_pairs(row) == int(dense_mask(tree_row(row, "cpu", length)).sum())
    cost = StepCost.of(load(folder))
    assert cost.flops(row) == cost.by_token * length + cost.by_supervised * 5 + cost.by_pair * seen_pairs(row)


def test_frozen_weights_need_no_gradient(folder: Path) -> None:
    pytest.importorskip("peft")
    full, adapted = StepCost.of(load(folder)), StepCost.of(add_adapter(load(folder), LoraOptions(2, 4.0, 0.0, ())))
    sizes = {"q_proj": (64, 64), "k_proj": (64, 32), "v_proj": (64, 32), "o_proj": (64, 64)}
    sizes |= {"gate_proj": (64, 96), "up_proj": (64, 96), "down_proj": (96, 64)}
    adapter = 2 * sum(2 * (inside + outside) for inside, outside in sizes.values())  # Of two layers, rank 2.
    assert adapted.by_token == full.by_token * 4 / 6 + 6 * adapter
    assert adapted.by_supervised == full.by_supervised * 4 / 6


def test_a_card_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    import torch

    model, cuda = load(folder), torch.device("cuda")
    names = {"NVIDIA H200": 989e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA L40S": 362e12}
    for name, peak in {**names, "Another": None}.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert peak_flops(cuda, "bf16", model) == peak
        assert peak_flops(cuda, "no", model) is None, "float32 has another peak"
        assert peak_flops(cuda, "no", model.to(torch.bfloat16)) == peak
        model = model.float()
    assert peak_flops(torch.device("cpu"), "bf16", model) is None
