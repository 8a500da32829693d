"""A forward pass over the new tokens of many sequences at once, and the tokens that are chosen from its logits. Invariant: what
a pass yields reaches the host in one transfer of a few numbers a row; full logits stay on the device.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cotbench.agents.hf.attention import TokenSpan, forward
from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, count_tiles, pack_pass, split_count, tile_rows_for
from cotbench.agents.hf.block_pool import BlockPool, LayerShape, PagedCache
from cotbench.agents.hf.kv_cache import KVCache
from cotbench.agents.hf.pretrained import first_line
from cotbench.agents.hf.top_rows import TopRows

_log = logging.getLogger(__name__)

_ROW_MULTIPLE = 8
"""Rows of a pass are filled up to a multiple of so many, as matrix products like it."""

_PROMPT = 40
"""Tokens of a prompt with which the kernel is tried: long enough for the largest tile."""


@dataclass(frozen=True, slots=True, eq=False)
class ChosenRows:
    """Hold what the host learns of some rows of logits.

    Attributes:
        ids: the most probable token of each row.
        logprobs: its log-probability.
        target_logprobs: the log-probability of each row's target.
        logits: float32, (rows, vocabulary), on the device.
        top: candidates of the rows that are sampled, where they are sampled from candidates.
        top_places: which of them belongs to a row.
    """

    ids: list[int]
    logprobs: list[float]
    target_logprobs: list[float]
    logits: Any
    top: TopRows | None = None
    top_places: Mapping[int, int] = field(default_factory=dict)


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
    """Return an empty pool for a model's keys and values, of `cache_bytes` at most.

    Where the attention kernel could be used it is tried: Triton builds it when it is launched, which takes a C compiler, and a
    launch may ask for more shared memory than the card has. Where it fails, `kernel_error` of the pool says why.
    """
    weight = model.get_input_embeddings().weight
    pool = BlockPool(layer_shapes(model), model.dtype, weight.device, cache_bytes)
    if pool.kernel_error is None:
        pool.kernel_error = _launch_error(model, BlockPool(pool.shapes, pool.dtype, pool.device, 0))
        if pool.kernel_error is not None:
            _log.warning("attention gathers its keys, which is slow, as the kernel cannot be used: %s", pool.kernel_error)
    return pool


def _launch_error(model: Any, pool: BlockPool) -> str | None:
    """Return why the attention kernel cannot be launched; None where a prompt and single tokens were computed with it."""
    lane, branch = PagedCache(pool), PagedCache(pool)
    try:
        # Long spans and single tokens are launched in different sizes (`tile_rows_for`).
        for spans in (
            [TokenSpan([1] * _PROMPT, lane), TokenSpan([1] * 20, branch, lane, _PROMPT)],
            [TokenSpan([1], branch, lane, logits_from_end=[1])],
        ):
            logits = batched_forward(model, spans, pool)
        logits[0].cpu()  # What fails on the device is known by now.
    except Exception as error:  # Whatever Triton, its compiler, or the driver raises.
        return first_line(error)
    return None


def query_group(model: Any) -> int:
    """Return how many query heads share a key head."""
    config = model.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", 1))
    return max(1, heads // int(getattr(config, "num_key_value_heads", None) or heads))


def make_pass(model: Any, spans: Sequence[TokenSpan], pool: BlockPool) -> BatchedPass:
    """Return a pass over some spans, its numbers on the device.

    Args:
        model: the model that will compute it.
        spans: the new tokens; all caches are `PagedCache`s of the pool.
        pool: keys and values.
    """
    import torch

    tile_rows = tile_rows_for(max(len(span.ids) for span in spans), query_group(model), pool.dtype.itemsize)
    tokens = sum(len(span.ids) for span in spans)
    rows = sum(len(span.logits_from_end) for span in spans)
    shape = PassShape(tokens + -tokens % _ROW_MULTIPLE, max(1, rows), count_tiles(spans, tile_rows), tile_rows)
    packed, longest = pack_pass(spans, shape)
    return BatchedPass(pool, shape, torch.from_numpy(packed).to(pool.device), longest, split_count(shape.tiles, pool))


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


def choose_rows(logits: Any, targets: Any) -> Any:
    """Return what the host is to learn of some rows of logits, as one int32 tensor (3, rows).

    Args:
        logits: float32, (rows, vocabulary).
        targets: a token for each row, int32.
    """
    import torch

    log_sums = torch.logsumexp(logits, dim=-1)
    best, ids = torch.max(logits, dim=-1)
    of_targets = logits.gather(1, targets.long()[:, None])[:, 0]
    return torch.stack([ids.int(), (best - log_sums).view(torch.int32), (of_targets - log_sums).view(torch.int32)])


def read_rows(chosen: Any, logits: Any, count: int) -> ChosenRows:
    """Return the first `count` rows of what `choose_rows` returned, once the device has computed it."""
    import numpy as np

    ids, logprobs, target_logprobs = chosen[:, :count].cpu().numpy()
    return ChosenRows(
        ids.tolist(), logprobs.view(np.float32).tolist(), target_logprobs.view(np.float32).tolist(), logits[:count]
    )


def with_candidates(chosen: ChosenRows, spans: Sequence[TokenSpan]) -> ChosenRows:
    """Return chosen rows with the candidates of those that are sampled."""
    rows: list[int] = []
    temperatures: list[float] = []
    start = 0
    for span in spans:
        count = len(span.logits_from_end)
        if span.temperature > 0.0:
            rows += range(start, start + count)
            temperatures += [span.temperature] * count
        start += count
    if not rows:
        return chosen
    top = TopRows(chosen.logits[rows], temperatures)
    return replace(chosen, top=top, top_places={row: place for place, row in enumerate(rows)})


def advance(spans: Sequence[TokenSpan]) -> None:
    """Let the caches of some spans hold their tokens, once these are computed."""
    for span in spans:
        span.cache.length += len(span.ids)


def batched_forward(model: Any, spans: Sequence[TokenSpan], pool: BlockPool) -> list[Any]:
    """Compute one forward pass over the new tokens of several sequences, as `attention.forward` does.

    Args:
        model: a causal model of transformers with our attention.
        spans: the new tokens; their caches, `PagedCache`s of the pool, grow by them, and after an exception are what they were.
        pool: keys and values.

    Returns:
        For each span a float32 tensor (len(logits_from_end), vocabulary).
    """
    import torch

    with torch.inference_mode(), pool.on_device():
        logits = run_pass(model, make_pass(model, spans, pool))
    advance(spans)
    wanted = [len(span.logits_from_end) for span in spans]
    return list(logits[: sum(wanted)].split(wanted))
