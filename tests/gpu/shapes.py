"""Models with random weights in the shapes of known ones, and a tokenizer with as many tokens as they have. Invariant: whatever
such a model writes, greedily, is an ordinary word: never a tag, an end of turn or a line break, so that lengths can be fixed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests import tiny_models


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a Qwen3 configuration decides how much is computed."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    tied: bool
    vocabulary: int = 151_936


SHAPES = {
    "0.6B": Shape(1024, 3072, 28, 16, 8, 128, tied=True),
    "4B": Shape(2560, 9728, 36, 32, 8, 128, tied=True),
    "8B": Shape(4096, 12288, 36, 32, 8, 128, tied=False),
    "tiny": Shape(64, 96, 2, 4, 2, 16, tied=True, vocabulary=2000),
}
"""Qwen3's sizes, and one for dry runs."""

_OWN_TOKENS, _OWN_SCALE = 420, 0.02
"""Ids below this may be a control token, a byte or a part of a text; their embeddings are made so small that the greedy choice
never falls on them."""


def sized_tokenizer(vocabulary: int, texts: Sequence[str]) -> Any:
    """Return a byte-level tokenizer of so many tokens: those of `tiny_models.tokenizer`, then words that no text has."""
    from tokenizers import Tokenizer

    small = tiny_models.tokenizer(texts=texts)
    assert len(small) <= _OWN_TOKENS
    described = json.loads(small.backend_tokenizer.to_str())
    described["model"]["vocab"].update({f"Ġw{number}": number for number in range(len(small), vocabulary)})
    small._tokenizer = Tokenizer.from_str(json.dumps(described))
    return small


def random_model(shape: Shape, device: str, dtype: Any, *, attention: str = "sdpa", seed: int = 7) -> Any:
    """Return a model with random weights, made on its device.

    Args:
        shape: its sizes.
        device: "cpu" or "cuda".
        dtype: of torch.
        attention: the `attn_implementation`.
        seed: of the weights.
    """
    import torch
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_size,
        max_position_embeddings=40_960,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(seed)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    with torch.no_grad():
        for weight in {
            id(part.weight): part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())
        }.values():
            weight[:_OWN_TOKENS] *= _OWN_SCALE
    return model.to(device).eval()
