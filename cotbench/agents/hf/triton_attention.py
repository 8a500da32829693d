"""The attention kernel: one launch for all sequences of a pass, over block tables. Invariant: it computes what
`batched_attention.gather_attention` computes, in float32 to rounding; keys and values are read once for all query heads that
share them.

One program takes one tile (rows of one sequence), one key head, and one part of the keys; rows and the query heads of the key
head are folded into one matrix. Softmax runs along (flash attention: Dao et al. 2022); where the keys of a tile are split, a
second kernel merges the parts (Flash-Decoding). Imported only where triton is installed.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: N803 (what is known when a kernel is compiled is written in capitals, as in triton's own kernels)

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import triton
import triton.language as tl

from cotbench.agents.hf.batched_attention import AttentionRule
from cotbench.agents.hf.batched_pass import TENSOR_CORE_BYTES, WARP_GROUP_ROWS, WARP_ROWS, BatchedPass
from cotbench.agents.hf.kv_cache import BLOCK

_WARP_GROUP_CARDS = (9, 10)
"""Compute capabilities (major) whose warp groups multiply."""

_MOST_STAGES = 5

_SHARED_SLACK = 1024
"""Bytes of shared memory for what is small: padding, barriers."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Say how the kernel is launched: warps of a program, and how many blocks are loaded ahead."""

    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Card:
    """What a launch depends on of a GPU.

    Attributes:
        shared_bytes: shared memory that a program can have: 99 KiB of a GeForce RTX 4090, 227 KiB of an H100.
        warp_groups: whether long spans are multiplied by whole warp groups, which read keys and values from shared memory
            (Hopper, Blackwell in data centres).
    """

    shared_bytes: int
    warp_groups: bool


@lru_cache(maxsize=16)
def card_of(device: Any) -> Card:
    """Return what is known of a torch device; what is not a GPU counts as an H100."""
    import torch

    if device.type != "cuda":
        return Card(227 * 1024, warp_groups=True)
    index = torch.cuda.current_device() if device.index is None else device.index
    shared = triton.runtime.driver.active.utils.get_device_properties(index)["max_shared_mem"]  # What Triton holds a launch to.
    nvidia = torch.version.hip is None
    return Card(int(shared), warp_groups=nvidia and torch.cuda.get_device_capability(index)[0] in _WARP_GROUP_CARDS)


def shared_bytes(rows: int, size: int, itemsize: int, stages: int, card: Card) -> int:
    """Return at most how much shared memory a program takes, by what compiled ones took; arguments as `default_launch`."""
    block = BLOCK * size * itemsize
    if card.warp_groups and rows >= WARP_GROUP_ROWS and itemsize == TENSOR_CORE_BYTES:
        blocks = 1 if stages == 1 else 4 if stages < _MOST_STAGES else 6
        weights = 0
    else:
        blocks = 1 if stages == 1 else 2 if stages < _MOST_STAGES else 4
        weights = rows * BLOCK * itemsize
    return rows * size * itemsize + weights + blocks * block + _SHARED_SLACK


def default_launch(rows: int, size: int, itemsize: int, card: Card) -> Launch:
    """Return a launch that fits into the card's shared memory and registers.

    Args:
        rows: of the folded matrix.
        size: of a head, filled up to a power of two.
        itemsize: bytes of a number.
        card: the GPU.
    """
    block_bytes = 2 * BLOCK * size * itemsize
    stages = 2 if block_bytes <= 64 * 1024 else 1
    if block_bytes <= 32 * 1024:
        # Of five, two hold keys and values: the table is read ahead, too.
        stages = _MOST_STAGES if rows > WARP_ROWS else 3
    while stages > 1 and shared_bytes(rows, size, itemsize, stages, card) > card.shared_bytes:
        stages = 3 if stages == _MOST_STAGES else stages - 1
    return Launch(8 if rows * size >= 128 * 128 else 4, stages)


# What changes from pass to pass must not compile the kernel anew.
@triton.jit(do_not_specialize=["tokens", "window", "splits"], do_not_specialize_on_alignment=["tiles", "table"])
def _attend_tile(  # noqa: PLR0915 (one program, which cannot be cut in two)
    query,
    keys,
    values,
    out,
    log_sums,
    tiles,
    table,
    scale,
    softcap,
    window,
    query_row_stride,
    query_head_stride,
    key_slot_stride,
    key_head_stride,
    value_slot_stride,
    value_head_stride,
    tokens,
    heads,
    splits,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    KEY_SIZE: tl.constexpr,
    KEY_PADDED: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    SPLIT: tl.constexpr,
    SOFTCAP: tl.constexpr,
    WINDOW: tl.constexpr,
):
    tile = tl.program_id(0)
    head = tl.program_id(1)
    split = tl.program_id(2)
    first_row = tl.load(tiles + tile * 6)
    count = tl.load(tiles + tile * 6 + 1)
    position = tl.load(tiles + tile * 6 + 2)
    prefix = tl.load(tiles + tile * 6 + 3)
    prefix_place = tl.load(tiles + tile * 6 + 4)
    own_place = tl.load(tiles + tile * 6 + 5)
    if count == 0:
        return
    index = tl.arange(0, ROWS)
    row = index // GROUP_PADDED
    member = index % GROUP_PADDED
    valid = (row < count) & (member < GROUP)
    query_head = head * GROUP + member
    key_index = tl.arange(0, KEY_PADDED)
    value_index = tl.arange(0, VALUE_PADDED)
    inside = tl.arange(0, BLOCK_SIZE)
    at = position + row
    query_place = (first_row + row).to(tl.int64) * query_row_stride + query_head * query_head_stride
    q = tl.load(
        query + query_place[:, None] + key_index[None, :],
        mask=valid[:, None] & (key_index < KEY_SIZE)[None, :],
        other=0.0,
    )

    prefix_blocks = (prefix + BLOCK_SIZE - 1) // BLOCK_SIZE
    last = position + count - 1
    end = tl.where(last < prefix, last // BLOCK_SIZE, prefix_blocks + (last - prefix) // BLOCK_SIZE) + 1
    begin = 0
    if WINDOW:
        oldest = tl.maximum(position - window + 1, 0)
        begin = tl.where(oldest < prefix, oldest // BLOCK_SIZE, prefix_blocks + (oldest - prefix) // BLOCK_SIZE)
    share = (end - begin + splits - 1) // splits
    low = begin + split * share
    high = tl.minimum(low + share, end)

    largest = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    total = tl.zeros([ROWS], dtype=tl.float32)
    gathered = tl.zeros([ROWS, VALUE_PADDED], dtype=tl.float32)
    for block in range(low, high):
        is_own = block >= prefix_blocks
        place = tl.where(is_own, own_place + block - prefix_blocks, prefix_place + block)
        start = tl.where(is_own, prefix + (block - prefix_blocks) * BLOCK_SIZE, block * BLOCK_SIZE)
        limit = tl.where(is_own, last + 1, prefix)
        slot = tl.load(table + place).to(tl.int64) * BLOCK_SIZE + inside
        k = tl.load(
            keys + (slot * key_slot_stride + head * key_head_stride)[None, :] + key_index[:, None],
            mask=(key_index < KEY_SIZE)[:, None],
            other=0.0,
        )
        score = tl.dot(q, k, input_precision="ieee") * scale
        if SOFTCAP:
            decay = tl.exp2(tl.abs(score) * (-2.0 * 1.4426950408889634 / softcap))
            bent = softcap * (1.0 - decay) / (1.0 + decay)
            score = tl.where(score < 0, -bent, bent)
        key_position = start + inside
        seen = (key_position < limit)[None, :] & (key_position[None, :] <= at[:, None])
        if WINDOW:
            seen = seen & (key_position[None, :] > at[:, None] - window)
        score = tl.where(seen, score * 1.4426950408889634, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(score, 1))
        # A row that has seen nothing yet: no difference of infinities.
        base = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weight = tl.exp2(score - base[:, None])
        fade = tl.exp2(largest - base)
        v = tl.load(
            values + (slot * value_slot_stride + head * value_head_stride)[:, None] + value_index[None, :],
            # What stands in the slots behind the tokens is another sequence's: 0 times its infinities is not 0.
            mask=(key_position < limit)[:, None] & (value_index < VALUE_SIZE)[None, :],
            other=0.0,
        )
        total = total * fade + tl.sum(weight, 1)
        gathered = gathered * fade[:, None]
        gathered = tl.dot(weight.to(v.dtype), v, gathered, input_precision="ieee")
        largest = new_largest

    token_head = (first_row + row).to(tl.int64) * heads + query_head
    store = valid[:, None] & (value_index < VALUE_SIZE)[None, :]
    result = gathered / tl.where(total == 0.0, 1.0, total)[:, None]
    if not SPLIT:
        tl.store(out + token_head[:, None] * VALUE_SIZE + value_index[None, :], result.to(out.dtype.element_ty), mask=store)
    else:
        part = token_head + split.to(tl.int64) * tokens * heads
        tl.store(out + part[:, None] * VALUE_SIZE + value_index[None, :], result, mask=store)
        log_sum = tl.where(total == 0.0, float("-inf"), largest + tl.log2(tl.where(total == 0.0, 1.0, total)))
        tl.store(log_sums + part, log_sum, mask=valid)


@triton.jit(do_not_specialize=["tokens"])
def _merge_parts(
    parts,
    log_sums,
    out,
    tokens,
    heads,
    VALUE_SIZE: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    SPLITS: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    value_index = tl.arange(0, VALUE_PADDED)
    part = tl.arange(0, SPLITS)
    of_part = part.to(tl.int64) * tokens * heads + place
    log_sum = tl.load(log_sums + of_part)
    largest = tl.max(log_sum, 0)
    weight = tl.exp2(log_sum - tl.where(largest == float("-inf"), 0.0, largest))
    weight = weight / tl.maximum(tl.sum(weight, 0), 1e-30)
    value = tl.load(
        parts + of_part[:, None] * VALUE_SIZE + value_index[None, :], mask=(value_index < VALUE_SIZE)[None, :], other=0.0
    )
    merged = tl.sum(tl.where(weight[:, None] > 0.0, value * weight[:, None], 0.0), 0)
    tl.store(out + place * VALUE_SIZE + value_index, merged.to(out.dtype.element_ty), mask=value_index < VALUE_SIZE)


@triton.jit(do_not_specialize_on_alignment=["slots"])
def _write_row(
    keys,
    values,
    pool_keys,
    pool_values,
    slots,
    key_row_stride,
    key_head_stride,
    value_row_stride,
    value_head_stride,
    HEADS: tl.constexpr,
    HEADS_PADDED: tl.constexpr,
    KEY_SIZE: tl.constexpr,
    KEY_PADDED: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    head = tl.arange(0, HEADS_PADDED)
    key_index = tl.arange(0, KEY_PADDED)
    value_index = tl.arange(0, VALUE_PADDED)
    mask = (head < HEADS)[:, None] & (key_index < KEY_SIZE)[None, :]
    k = tl.load(keys + row * key_row_stride + head[:, None] * key_head_stride + key_index[None, :], mask=mask)
    tl.store(pool_keys + slot * (HEADS * KEY_SIZE) + head[:, None] * KEY_SIZE + key_index[None, :], k, mask=mask)
    mask = (head < HEADS)[:, None] & (value_index < VALUE_SIZE)[None, :]
    v = tl.load(values + row * value_row_stride + head[:, None] * value_head_stride + value_index[None, :], mask=mask)
    tl.store(pool_values + slot * (HEADS * VALUE_SIZE) + head[:, None] * VALUE_SIZE + value_index[None, :], v, mask=mask)


def _padded(size: int) -> int:
    """Return the next power of two, at least 16, as a matrix product needs it."""
    return max(16, int(triton.next_power_of_2(size)))


def write_blocks(keys: Any, values: Any, layer: tuple[Any, Any], slots: Any) -> None:
    """Write new keys and values, each (tokens, key heads, size), to slots of a layer's pool."""
    heads, key_size, value_size = keys.shape[1], keys.shape[2], values.shape[2]
    keys = keys if keys.stride(2) == 1 else keys.contiguous()
    values = values if values.stride(2) == 1 else values.contiguous()
    _write_row[(keys.shape[0],)](
        keys,
        values,
        layer[0],
        layer[1],
        slots,
        keys.stride(0),
        keys.stride(1),
        values.stride(0),
        values.stride(1),
        HEADS=heads,
        HEADS_PADDED=triton.next_power_of_2(heads),
        KEY_SIZE=key_size,
        KEY_PADDED=triton.next_power_of_2(key_size),
        VALUE_SIZE=value_size,
        VALUE_PADDED=triton.next_power_of_2(value_size),
        num_warps=4,
    )


def paged_attention(
    query: Any, keys: Any, values: Any, meta: BatchedPass, rule: AttentionRule, launch: Launch | None = None
) -> Any:
    """Return a layer's attention; arguments and result as for `gather_attention`, `launch` to try others.

    Rows of no tile hold anything.
    """
    import torch

    tokens, heads, key_size = query.shape
    key_heads, value_size = keys.shape[1], values.shape[2]
    group = heads // key_heads
    group_padded = triton.next_power_of_2(group)
    rows = max(16, triton.next_power_of_2(meta.shape.tile_rows) * group_padded)
    query = query if query.stride(2) == 1 else query.contiguous()
    if launch is None:
        launch = default_launch(rows, _padded(max(key_size, value_size)), query.element_size(), card_of(query.device))
    out = query.new_empty((tokens, heads, value_size))
    parts, log_sums = out, out
    if meta.splits > 1:
        parts = torch.empty((meta.splits, tokens, heads, value_size), dtype=torch.float32, device=query.device)
        log_sums = torch.empty((meta.splits, tokens, heads), dtype=torch.float32, device=query.device)
    _attend_tile[(meta.shape.tiles, key_heads, meta.splits)](
        query,
        keys,
        values,
        parts,
        log_sums,
        meta.tiles,
        meta.table,
        rule.scale,
        rule.softcap or 1.0,
        rule.window or 0,
        query.stride(0),
        query.stride(1),
        keys.stride(0),
        keys.stride(1),
        values.stride(0),
        values.stride(1),
        tokens,
        heads,
        meta.splits,
        GROUP=group,
        GROUP_PADDED=group_padded,
        ROWS=rows,
        KEY_SIZE=key_size,
        KEY_PADDED=_padded(key_size),
        VALUE_SIZE=value_size,
        VALUE_PADDED=_padded(value_size),
        BLOCK_SIZE=BLOCK,
        SPLIT=meta.splits > 1,
        SOFTCAP=rule.softcap is not None,
        WINDOW=rule.window is not None,
        num_warps=launch.warps,
        num_stages=launch.stages,
    )
    if meta.splits > 1:
        _merge_parts[(tokens * heads,)](
            parts,
            log_sums,
            out,
            tokens,
            heads,
            VALUE_SIZE=value_size,
            VALUE_PADDED=triton.next_power_of_2(value_size),
            SPLITS=meta.splits,
            num_warps=1,
        )
    return out
