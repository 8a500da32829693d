"""A forward pass over the new tokens of many sequences at once, and the tokens that are chosen from its logits. Invariant: what a
pass yields reaches the host in one transfer of a few numbers a row; full logits stay on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.attention import TokenSpan, forward
from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, count_tiles, pack_pass, tile_rows_for
from cotbench.agents.hf.block_pool import BlockPool, LayerShape, PagedCache
from cotbench.agents.hf.kv_cache import KVCache

_ROW_MULTIPLE = 8
"""Rows of a pass are filled up to a multiple of so many, as matrix products like it."""


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """Hold what the host learns of some rows of logits.

    Attributes:
        ids: the most probable token of each row.
        logprobs: its log-probability.
        target_logprobs: the log-probability of the row's target.
        logits: float32, (rows, vocabulary), on the device.
    """

    ids: list[int]
    logprobs: list[float]
    target_logprobs: list[float]
    logits: Any


def layer_shapes(model: Any) -> dict[int, LayerShape]:
    """Return what each layer keeps of a token, by computing a few tokens with our attention.

    Args:
        model: a causal model of transformers with our attention installed.
    """
    cache = KVCache()
    forward(model, [TokenSpan([1, 2, 3, 4], cache)])
    return {
        number: LayerShape(keys.shape[0], keys.shape[2], values.shape[2]) for number, (keys, values) in cache.layers().items()
    }


def open_pool(model: Any, cache_bytes: int) -> BlockPool:
    """Return an empty pool for a model's keys and values."""
    weight = model.get_input_embeddings().weight
    return BlockPool(layer_shapes(model), model.dtype, weight.device, cache_bytes)


def query_group(model: Any) -> int:
    """Return how many query heads share a key head at most."""
    config = model.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", 1))
    return max(1, heads // int(getattr(config, "num_key_value_heads", None) or heads))


def batched_forward(model: Any, spans: Sequence[TokenSpan], pool: BlockPool, splits: int = 1) -> list[Any]:
    """Compute one forward pass over the new tokens of several sequences; all caches are `PagedCache`s of the pool.

    Args:
        model: a causal model of transformers with our attention.
        spans: the new tokens; their caches grow by them, and after an exception are what they were.
        pool: keys and values.
        splits: into how many parts the keys of a tile are split.

    Returns:
        For each span a float32 tensor (len(logits_from_end), vocabulary).
    """
    import torch

    meta = make_pass(model, spans, pool, splits)
    with torch.inference_mode():
        logits = run_pass(model, meta)
    wanted = [len(span.logits_from_end) for span in spans]
    advance(spans)
    return list(logits[: sum(wanted)].split(wanted))


def make_pass(model: Any, spans: Sequence[TokenSpan], pool: BlockPool, splits: int = 1) -> BatchedPass:
    """Return a pass over some spans, its numbers on the device."""
    import torch

    tile_rows = tile_rows_for(spans, query_group(model))
    tokens = sum(len(span.ids) for span in spans)
    rows = sum(len(span.logits_from_end) for span in spans)
    shape = PassShape(tokens + -tokens % _ROW_MULTIPLE, max(1, rows), count_tiles(spans, tile_rows), tile_rows)
    packed, longest = pack_pass(spans, shape)
    return BatchedPass(pool, shape, torch.from_numpy(packed).to(pool.device), longest, splits)


def run_pass(model: Any, meta: BatchedPass) -> Any:
    """Return the logits of a pass, float32, (rows of logits, vocabulary). Nothing in here waits for the device."""
    ids, positions, rows = meta.ids.long(), meta.positions.long(), meta.logit_rows.long()
    out = model(
        input_ids=ids[None],
        position_ids=positions[None],
        use_cache=False,
        logits_to_keep=rows,
        cotbench_pass=meta,
    )
    return out.logits[0].float()


def advance(spans: Sequence[TokenSpan]) -> None:
    """Let the caches of some spans hold their tokens, once these are computed."""
    for span in spans:
        span.cache.length += len(span.ids)


def new_cache(pool: BlockPool | None) -> KVCache | PagedCache:
    """Return an empty cache: blocks of a pool, or tensors of its own."""
    return KVCache() if pool is None else PagedCache(pool)
