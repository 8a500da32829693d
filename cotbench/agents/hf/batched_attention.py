"""Attention of one layer for all sequences of a pass, over block tables. Invariant: a row sees the tokens of its own sequence
up to itself, those of the prompt that it continues included, and nothing else; both implementations compute the same.

`gather_attention` is plain torch and runs everywhere: the reference, and what is used where the kernel (`triton_attention`)
does not know a layer. `attention_kernel` says which of the two a layer gets. Why a kernel of our own: measured on an H200
(heads of Qwen3-4B, bfloat16, 64 sequences), FlexAttention over the same blocks took 1.27 times as long for one token a sequence
and 1.75 times as long for 256, and torch 2.11's varlen_attn has no block table (`tests/gpu/attention_variants.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.batched_pass import BatchedPass
from cotbench.agents.hf.block_pool import BlockPool
from cotbench.agents.hf.kv_cache import BLOCK

_SCORES_AT_ONCE = 2**26
"""Scores that `gather_attention` holds at once, over which it takes fewer tiles at a time."""


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """A layer's settings: what scores are multiplied with, where they are bent, how many last keys are seen (None: all)."""

    scale: float
    softcap: float | None = None
    window: int | None = None


LayerAttention = Callable[[Any, Any, Any, BatchedPass, AttentionRule], Any]
"""(query (tokens, heads, key size), pool keys, pool values, pass, rule) -> (tokens, heads, value size)."""


def attention_kernel(pool: BlockPool) -> LayerAttention:
    """Return the function that computes a layer's attention."""
    if pool.kernel_error is not None:
        return gather_attention
    from cotbench.agents.hf.triton_attention import paged_attention

    return paged_attention


def write_keys(keys: Any, values: Any, layer: tuple[Any, Any], meta: BatchedPass) -> None:
    """Write a layer's new keys and values, each (tokens, key heads, size), to their places in the pool."""
    if meta.pool.kernel_error is None:
        from cotbench.agents.hf.triton_attention import write_blocks

        write_blocks(keys, values, layer, meta.slots)
        return
    slots = meta.slots.long()
    layer[0][slots] = keys
    layer[1][slots] = values


def gather_attention(query: Any, keys: Any, values: Any, meta: BatchedPass, rule: AttentionRule) -> Any:
    """Return a layer's attention by gathering each tile's blocks, with one masked softmax over them.

    Args:
        query: (tokens, heads, key size).
        keys, values: the pool's, (slots, key heads, size); the new tokens' are written.
        meta: the pass.
        rule: the layer's settings.

    Returns:
        (tokens, heads, value size); rows of no tile are 0.
    """
    import torch

    out = query.new_zeros((query.shape[0] + 1, query.shape[1], values.shape[2]))  # The last row is what empty tiles write.
    most_blocks = -(-meta.longest // BLOCK) + 1  # The last block of the prefix may be partly filled.
    scores = meta.shape.tile_rows * query.shape[1] * most_blocks * BLOCK
    for tiles in meta.tiles.split(max(1, _SCORES_AT_ONCE // scores)):
        rows, part = _gather_tiles(query, keys, values, meta, rule, tiles.long(), most_blocks)
        out.index_put_((rows.reshape(-1),), torch.flatten(part, 0, 1))
    return out[:-1]


def _gather_tiles(
    query: Any, keys: Any, values: Any, meta: BatchedPass, rule: AttentionRule, tiles: Any, most_blocks: int
) -> tuple[Any, Any]:
    """Return the rows of some tiles, (tiles, tile rows), and their attention, (tiles, tile rows, heads, value size)."""
    import torch

    first, count, position, prefix, prefix_place, own_place = tiles.unbind(1)
    device = query.device
    index = torch.arange(meta.shape.tile_rows, device=device)[None]
    index = torch.where(index < count[:, None], index, 0)  # Where a tile has fewer rows, copies of its first.
    rows = first[:, None] + index
    # Blocks of the prefix, then the sequence's own; what lies behind them is masked.
    block = torch.arange(most_blocks, device=device)[None]
    prefix_blocks = ((prefix + BLOCK - 1) // BLOCK)[:, None]
    is_own = block >= prefix_blocks
    place = torch.where(is_own, own_place[:, None] + block - prefix_blocks, prefix_place[:, None] + block)
    numbers = meta.table.long()[place.clamp(max=meta.table.shape[0] - 1)]
    start = torch.where(is_own, prefix[:, None] + (block - prefix_blocks) * BLOCK, block * BLOCK)
    inside = torch.arange(BLOCK, device=device)
    key_position = start[..., None] + inside
    valid = is_own[..., None] | (key_position < prefix[:, None, None])
    slots = (numbers[..., None] * BLOCK + inside).flatten(1)
    key_position, valid = key_position.flatten(1)[:, None], valid.flatten(1)[:, None]
    at = (position[:, None] + index)[..., None]
    seen = valid & (key_position <= at)
    if rule.window is not None:
        seen = seen & (key_position > at - rule.window)
    heads, key_heads = query.shape[1], keys.shape[1]
    # (tiles, key heads, group, tile rows, size) against (tiles, key heads, 1, keys, size).
    folded = query[rows].unflatten(2, (key_heads, heads // key_heads)).permute(0, 2, 3, 1, 4)
    score = (folded * rule.scale) @ keys[slots].permute(0, 2, 3, 1)[:, :, None]
    if rule.softcap is not None:
        score = torch.tanh(score / rule.softcap) * rule.softcap
    score = score.masked_fill(~seen[:, None, None], float("-inf"))
    weights = torch.softmax(score.to(torch.promote_types(score.dtype, torch.float32)), dim=-1)
    # A weight of 0 does not hide what another sequence left there: 0 times infinity is not 0.
    occupied = (valid & (key_position < (position + count)[:, None, None])).transpose(1, 2)[..., None]
    occupied_values = values[slots].masked_fill(~occupied, 0.0)
    part = weights.to(values.dtype) @ occupied_values.transpose(1, 2)[:, :, None]
    return torch.where(count[:, None] > 0, rows, query.shape[0]), part.permute(0, 3, 1, 2, 4).flatten(2, 3)
