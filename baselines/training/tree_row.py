"""A packed row as tensors on the device that trains. Invariant: nothing here waits for the device: one copy takes a row there,
and which token sees which is worked out there, from two intervals a token.

A token sees the trunk that its branch leaves, from `first` up to `until`, and its own segment, from `own` up to itself.
FlexAttention computes in blocks of 128 queries and 128 keys, so a row is padded to a multiple of that; how many of a block's
pairs are seen follows from the intervals, without a mask over the whole row.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.baselines.training.packing import Packed
from cotbench.baselines.training.transfer import to_device

BLOCK = 128
"""Queries and keys of one block of FlexAttention's masks; rows are padded to a multiple of it."""

_TENSORS = 5
"""Tensors of a row that have one number a token."""


@dataclass(frozen=True, slots=True)
class TreeRow:
    """Packed row on a device, padded.

    Attributes:
        ids, positions: (1, tokens), int64; padding is token 0 at position 0.
        first, until, own: (tokens,), int32: token i sees the tokens first[i] up to until[i], without it, and own[i] up to i.
        source, target: (supervised tokens,), int64: the row that predicts each, and its id.
        weight: (supervised tokens,), float32, its loss weight.
    """

    ids: Any
    positions: Any
    first: Any
    until: Any
    own: Any
    source: Any
    target: Any
    weight: Any


def tree_row(packed: Packed, device: Any, length: int) -> TreeRow:
    """Return a packed row on a device.

    Args:
        packed: the row.
        device: a torch device; to a GPU one asynchronous copy is made from pinned memory.
        length: number of tokens that the row is padded to.

    Raises:
        ValueError: the row is longer.
    """
    import numpy as np
    import torch

    tokens, counted = len(packed.ids), len(packed.source)
    if tokens > length:
        raise ValueError(f"a row of {tokens} tokens does not fit into {length}")
    numbers = np.zeros(_TENSORS * length + 3 * counted, dtype=np.int32)
    rows = numbers[: _TENSORS * length].reshape(_TENSORS, length)
    rows[0, :tokens], rows[1, :tokens] = packed.ids, packed.positions
    rows[2:, :tokens] = _intervals(packed)
    rows[4, tokens:] = np.arange(tokens, length)  # Padding sees itself alone, so that its softmax is over something.
    rest = numbers[_TENSORS * length :].reshape(3, counted)
    rest[0], rest[1] = packed.source, packed.target
    rest[2] = np.asarray(packed.weight, dtype=np.float32).view(np.int32)
    found = to_device(torch.from_numpy(numbers), device)
    by_token, by_target = found[: _TENSORS * length].view(_TENSORS, length), found[_TENSORS * length :].view(3, counted)
    ids, positions = by_token[:2].long().unsqueeze(1)
    source, target = by_target[:2].long()
    first, until, own = by_token[2:]
    return TreeRow(ids, positions, first, until, own, source, target, by_target[2].view(torch.float32))


def _intervals(packed: Packed) -> Any:
    """Return `first`, `until` and `own` of every token, as an array (3, tokens)."""
    import numpy as np

    spans: list[tuple[int, int, int, int]] = []
    trunk = 0
    for block in packed.blocks:
        if not block.lengths:
            trunk = block.start
            spans.append((block.end - block.start, 0, 0, block.start))
        row = block.start
        for length, at in zip(block.lengths, block.ats, strict=True):
            spans.append((length, trunk, trunk + at, row))
            row += length
    table = np.array(spans, dtype=np.int32).T
    return np.repeat(table[1:], table[0], axis=1)


def block_mask(row: TreeRow) -> Any:
    """Return FlexAttention's `BlockMask` of a row.

    The same as `create_block_mask` of the row's rule, which computes it for each pair of tokens; here the pairs are counted.

    Args:
        row: its length is a multiple of `BLOCK`.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    first, until, own = row.first, row.until, row.own
    tokens = own.shape[0]
    start = torch.arange(0, tokens, BLOCK, dtype=torch.int32, device=own.device)
    place = torch.arange(tokens, dtype=torch.int32, device=own.device)

    def overlap(begin: Any, end: Any) -> Any:
        return (torch.minimum(end[:, None], start + BLOCK) - torch.maximum(begin[:, None], start)).clamp_(min=0)

    seen = overlap(first, until) + overlap(own, place + 1)
    seen = seen.view(len(start), BLOCK, len(start)).sum(dim=1)
    full = seen == BLOCK * BLOCK
    return BlockMask.from_kv_blocks(
        *_ordered((seen > 0) & ~full), *_ordered(full), BLOCK_SIZE=BLOCK, mask_mod=_rule(first, until, own)
    )


def _rule(first: Any, until: Any, own: Any) -> Any:
    """Return which keys a query sees, as a function of FlexAttention."""

    def seen(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return ((key >= first[query]) & (key < until[query])) | ((key >= own[query]) & (key <= query))

    return seen


def _ordered(blocks: Any) -> tuple[Any, Any]:
    """Return how many key blocks each query block has, and all indices, its own in front: (1, 1, rows[, columns])."""
    import torch

    indices = torch.argsort(blocks.int(), dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32)[None, None], indices.int()[None, None]


def dense_mask(row: TreeRow) -> Any:
    """Return which token sees which, (tokens, tokens): the same as `block_mask`, for devices without FlexAttention.

    Args:
        row: the row.
    """
    import torch

    place = torch.arange(row.own.shape[0], device=row.own.device)
    return _rule(row.first, row.until, row.own)(None, None, place[:, None], place[None, :])


def bucket_lengths(lengths: Sequence[int], count: int, enough: float = 0.0) -> tuple[int, ...]:
    """Return few lengths to pad rows to, such that few tokens are padded; the last holds the longest row.

    Each length is compiled once, which takes as long as many steps.

    Args:
        lengths: tokens of each row.
        count: the largest number of buckets.
        enough: fewer are returned where they pad no more than this share of the tokens.
    """
    numbers = Counter(padded(length) for length in lengths)
    edges = sorted(numbers)
    total = sum(edge * number for edge, number in numbers.items())
    rows = list(itertools.accumulate((numbers[edge] for edge in edges), initial=0))  # Up to each edge; tokens likewise.
    tokens = list(itertools.accumulate((edge * numbers[edge] for edge in edges), initial=0))
    costs: list[float] = [0.0] + [float("inf")] * len(edges)  # Of the rows up to each edge, with the buckets so far.
    chosen: list[tuple[int, ...]] = [()] * (len(edges) + 1)
    for _ in range(min(count, len(edges))):
        better, best = list(costs), list(chosen)
        for end in range(1, len(edges) + 1):
            for begin in range(end):
                padding = edges[end - 1] * (rows[end] - rows[begin]) - (tokens[end] - tokens[begin])
                if costs[begin] + padding < better[end]:
                    better[end], best[end] = costs[begin] + padding, (*chosen[begin], edges[end - 1])
        costs, chosen = better, best
        if costs[-1] <= enough * total:
            break
    return chosen[-1]


def padded(length: int, buckets: Sequence[int] = ()) -> int:
    """Return the length that a row is padded to: the least bucket that holds it, or a multiple of `BLOCK`.

    Args:
        length: of the row, in tokens.
        buckets: in ascending order.
    """
    return next((bucket for bucket in buckets if length <= bucket), -(-length // BLOCK) * BLOCK)
