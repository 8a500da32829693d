"""A model's layers compiled by torch, for CUDA graphs of bfloat16 models. Invariant: the model itself is as before outside of
`applied`; what is compiled differs from it by rounding alone.

A layer of transformers is some sixty small kernels; compiled, norms, rotary embeddings and activations are a few. Attention is not
compiled: it is one kernel already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cotbench.agents.hf.attention import ATTENTION, attention_forward


class CompiledLayers:
    """Compile a model's layers, once for all lengths; it happens at the first pass within `applied`.

    Args:
        model: a causal model of transformers with our attention.
    """

    def __init__(self, model: Any) -> None:
        import torch

        self._layers = decoder_layers(model)
        self._attention = torch.compiler.disable(attention_forward)
        self._compiled = [torch.compile(layer._call_impl, dynamic=True) for layer in self._layers]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model compute with its compiled layers."""
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION, self._attention)
        for layer, compiled in zip(self._layers, self._compiled, strict=True):
            layer._compiled_call_impl = compiled
        try:
            yield
        finally:
            for layer in self._layers:
                layer._compiled_call_impl = None
            AttentionInterface.register(ATTENTION, attention_forward)


def decoder_layers(model: Any) -> list[Any]:
    """Return a model's layers; none where they do not lie where transformers' decoders have them."""
    import torch

    layers = getattr(getattr(model, "base_model", None), "layers", None)
    return list(layers) if isinstance(layers, torch.nn.ModuleList) else []
