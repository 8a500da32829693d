"""Attention over packed trees for a GPU: one call of FlexAttention a layer. Invariant: it computes what `packing` computes; a
layer that it does not know is refused. On a CPU, where FlexAttention has no gradients, a mask over the whole row stands in:
tests compare it with `packing`, and a GPU's tests the kernel with the model's own attention.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

FLEX_ATTENTION = "cotbench_flex_trees"
"""The name of this attention among transformers' own."""

_COMPILATIONS = 64
"""How often one function is compiled at most: once for each length of rows, with gradients and without."""


def install_tree_attention(model: Any) -> None:
    """Make a model's layers use the attention of this module, and its residual stream follow autocast.

    Under autocast the embeddings of float32 weights stay float32, and with them the residual stream: twice the memory traffic
    of evaluation in bfloat16. A cast behind the embeddings makes the two alike; the weights stay float32.

    Args:
        model: a transformers model.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(FLEX_ATTENTION, _attention)
    model.set_attn_implementation(FLEX_ATTENTION)
    embeddings = model.get_input_embeddings()
    if _cast_output not in embeddings._forward_hooks.values():
        embeddings.register_forward_hook(_cast_output)


def _cast_output(module: Any, inputs: Any, output: Any) -> Any:
    return output.to(autocast_dtype(output))


def autocast_dtype(tensor: Any) -> Any:
    """Return the dtype that autocast computes matrix products in on a tensor's device; the tensor's own without autocast.

    Args:
        tensor: of torch.
    """
    import torch

    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def compile_layers(model: Any, *, checkpointing: bool, dynamic: bool = False) -> int:
    """Compile the layers of a model where they stand; they are alike, so the first one's code serves all. Return their number.

    Args:
        model: of transformers or peft.
        checkpointing: whether gradients are checkpointed layer by layer; then the parts of a layer are compiled, inside it.
        dynamic: compile once for rows of all lengths, instead of once a length.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    options = _compile_options()
    for layer in layers:
        for part in layer.children() if checkpointing else [layer]:
            part.compile(dynamic=dynamic, **options)
    return len(layers)


def uncompile_layers(model: Any) -> None:
    """Undo `compile_layers`.

    Args:
        model: the model.
    """
    for module in model.modules():
        module._compiled_call_impl = None


@functools.cache
def _compiled_flex_attention() -> Any:
    """Return FlexAttention compiled on its own, for layers that are not."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False, **_compile_options())


def _compile_options() -> dict[str, Any]:
    """Return arguments of torch.compile that let a function be compiled `_COMPILATIONS` times, after setting torch's own limit.

    Beyond the limit, which is 8 otherwise, torch runs a function uncompiled without an error, and FlexAttention then holds the
    scores of all pairs of tokens. Newer versions keep the limit thread by thread, and gradients are computed in another thread;
    those versions take it as an argument too.
    """
    import torch

    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # Until torch 2.6.
    limit = max(getattr(config, name), _COMPILATIONS)
    setattr(config, name, limit)
    return {"recompile_limit": limit} if "recompile_limit" in inspect.signature(torch.compile).parameters else {}


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    cotbench_trees: Any = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Any = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Any, None]:
    """Return attention's output as transformers' layers expect it.

    query is (1, heads, tokens, size), key and value are (1, key heads, tokens, size), the output is (1, tokens, heads, size);
    `cotbench_trees` is a `BlockMask`, or a boolean mask (tokens, tokens).
    """
    import torch
    from torch.nn.attention.flex_attention import flex_attention
    from torch.nn.functional import scaled_dot_product_attention

    if cotbench_trees is None or s_aux is not None or softcap is not None or sliding_window is not None or dropout:
        raise NotImplementedError("a layer that our attention does not know")
    dtype, heads, key_heads = autocast_dtype(value), query.shape[1], key.shape[1]
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)  # Rotary embeddings of float32 made them float32.
    if isinstance(cotbench_trees, torch.Tensor):
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=cotbench_trees, scale=scaling, enable_gqa=heads != key_heads
        )
        return out.transpose(1, 2), None
    if heads & (heads - 1):  # FlexAttention's grouped queries want a power of two, as transformers' own use of it says.
        key, value = (one.repeat_interleave(heads // key_heads, dim=1) for one in (key, value))
    compute = flex_attention if torch.compiler.is_compiling() else _compiled_flex_attention()
    out = compute(query, key, value, block_mask=cotbench_trees, scale=scaling, enable_gqa=heads != key.shape[1])
    return out.transpose(1, 2), None
