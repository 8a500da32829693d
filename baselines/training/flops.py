"""Model-flop utilisation (MFU): what a model's arithmetic needs, beside what the card could do. Invariant: only the model's own
arithmetic counts, each token and each pair of tokens once: not what checkpointing computes again, nor padding, nor keys that a
token does not see.

A matrix product of a token with n weights takes 2n operations, its two gradients 4n (PaLM, arXiv:2204.02311, appendix B); the
weights that an adapter leaves frozen need the gradient of the input alone, 2n. Attention takes 4 x heads x head size operations
for each pair of a query and a key that it sees, and twice that backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cotbench.baselines.training.packing import Packed

_PEAKS = {
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "GH200": 989.0,
    "H800": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "A800": 312.0,
    "A30": 165.0,
    "A10G": 125.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""Dense bfloat16 peak by NVIDIA's data sheets, 10^12 operations a second, by part of a card's name; the first match counts."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Operations of a model, forward and backward.

    Attributes:
        by_token: of each token, without the output layer and attention.
        by_supervised: of each token whose logits are computed.
        by_pair: of each pair of a query and a key that it sees.
    """

    by_token: float
    by_supervised: float
    by_pair: float

    @classmethod
    def of(cls, model: Any) -> StepCost:
        """Return those of a model.

        Args:
            model: of transformers or peft.
        """
        import torch

        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        head, config = base.get_output_embeddings(), base.config.get_text_config()
        by_token = by_supervised = 0.0
        for module in base.modules():
            if isinstance(module, torch.nn.Linear):
                operations = module.weight.numel() * (6.0 if module.weight.requires_grad else 4.0)
                by_token += operations * (module is not head)
                by_supervised += operations * (module is head)
        heads = getattr(config, "num_attention_heads", 0)
        size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
        return cls(by_token, by_supervised, 12.0 * getattr(config, "num_hidden_layers", 0) * heads * size)

    def flops(self, packed: Packed) -> float:
        """Return the operations of one row.

        Args:
            packed: the row.
        """
        tokens = len(packed.ids)
        return self.by_token * tokens + self.by_supervised * len(packed.target) + self.by_pair * seen_pairs(packed)


def seen_pairs(packed: Packed) -> int:
    """Return how many pairs of a query and a key that it sees a row has, each token with itself among them.

    Args:
        packed: the row.
    """
    pairs = 0
    for block in packed.blocks:
        if not block.lengths:
            rows = block.end - block.start
            pairs += rows * (rows + 1) // 2
        pairs += sum(length * at + length * (length + 1) // 2 for length, at in zip(block.lengths, block.ats, strict=True))
    return pairs


def peak_flops(device: Any, precision: str | None, model: Any) -> float | None:
    """Return a card's peak in operations a second, for training in bfloat16; None for another dtype or card.

    Args:
        device: of torch.
        precision: accelerate's mixed precision: "bf16", "no", ...
        model: whose dtype counts without mixed precision.
    """
    import torch

    if device.type != "cuda" or (precision != "bf16" and model.dtype != torch.bfloat16):
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for part, peak in _PEAKS.items() if part in name), None)
