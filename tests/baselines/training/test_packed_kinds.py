"""Every kind of attention of transformers: packed losses are those of each sequence alone, or the model is not packed."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.training.loss import losses, plain_losses
from cotbench.baselines.training.model import make_trainable
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree
from tests.attention_kinds import EARLY, KINDS, LATE, save_kind


def trees(vocabulary: int) -> list[Tree]:
    """Trees whose branches leave the trunk before, between and behind the lengths of the kinds."""
    ids = tuple((11 * place + 5 * (place % 7)) % (vocabulary - 20) + 10 for place in range(LATE + 60))
    ends = (20, EARLY - 3, EARLY + 10, LATE - 2, LATE + 20)
    branches = tuple(Branch(end, ids[end - 12 : end], (1.0,) * 12) for end in ends)
    short = Tree(ids[30:70], (Branch(15, ids[3:12], (1.0,) * 9),), (1.0,) * 40)
    return [short, Tree(ids[: LATE + 20], branches), Tree(ids[40:], (), (1.0,) * (len(ids) - 40))]


@pytest.mark.parametrize("name", KINDS)
def test_losses_are_those_of_each_sequence_alone(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    kind = KINDS[name]
    folder = save_kind(tmp_path / "model", kind)
    model, reference = load(folder), load(folder)
    trainable = make_trainable(model, words(folder), {"model": name})
    assert trainable.packed == (not kind.training) == ("attention_reason" not in trainable.description)
    assert kind.training in trainable.description.get("attention_reason", "")
    assert trainable.packed or "each decision is computed on its own" in caplog.text
    row = pack(trees(len(trainable.tokenizer)))
    with torch.inference_mode():
        found, _ = (losses if trainable.packed else plain_losses)(trainable.model, row)
        expected, _ = plain_losses(reference, row)
    assert torch.allclose(found.sort().values, expected.sort().values, atol=2e-4, rtol=1e-4)


def load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def words(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
