"""KV caches of many sequences, and attention over them without padding. Invariant: what a token computes depends on its own
sequence alone, to the last bit (float32, one kind of processor): not on what else goes through the model in the same forward
pass, nor on how its sequence was cut into passes.

Replaces padded batches on transformers' caches: the new tokens of all sequences stand one after another in one row, so nothing
is padded; each sequence keeps its keys and values where they are, so nothing is copied from token to token; several
continuations share the cache of the prompt that they continue; and a pass may mix long prompts with single tokens. Matrix
products keep their bits for every number of rows that is a multiple of four, and for the same number of keys: so passes are
filled up to such a multiple, and attention goes over whole blocks of keys, for a multiple of four rows that end in one block.
Activations need care from three threads on (`activations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.activations import activations_in_pieces
from cotbench.agents.hf.batched_attention import AttentionRule, attention_kernel, write_keys
from cotbench.agents.hf.batched_pass import BatchedPass
from cotbench.agents.hf.block_pool import PagedCache
from cotbench.agents.hf.kv_cache import BLOCK, KVCache

ATTENTION = "cotbench_rows"
"""The name of this attention among transformers' `attn_implementation`s."""

_ROW_MULTIPLE = 4
"""Rows of every matrix product are filled up to a multiple of so many."""


@dataclass(slots=True)
class TokenSpan:
    """Some new tokens of one sequence, to be computed in one forward pass.

    Attributes:
        ids: the tokens.
        cache: where their keys and values go.
        prefix: the cache of what they continue, where that is another one: all of it is seen by all of `ids`.
        prefix_pending: how many tokens of `prefix` an earlier span of the same pass computes.
        logits_from_end: the tokens after which logits are wanted, counted from the end (1 is the last).
        targets: for each of these the token that comes next, where it is given; its log-probability is wanted.
        temperature: at which the next tokens are sampled; 0 where they are not.
        row: where the span begins in the pass; set by `forward`.
    """

    ids: Sequence[int]
    cache: KVCache | PagedCache
    prefix: KVCache | PagedCache | None = None
    prefix_pending: int = 0
    logits_from_end: Sequence[int] = ()
    targets: Sequence[int] = ()
    temperature: float = 0.0
    row: int = 0

    @property
    def position(self) -> int:
        """Return the position of the first token in its sequence."""
        return self.cache.length + self.prefix_length

    @property
    def prefix_length(self) -> int:
        """Return how many tokens of `prefix` it continues."""
        return 0 if self.prefix is None else self.prefix.length + self.prefix_pending


def forward(model: Any, spans: Sequence[TokenSpan]) -> list[Any]:
    """Compute one forward pass over the new tokens of several sequences.

    Args:
        model: a causal model of transformers with this attention (`install_attention`).
        spans: the new tokens; their caches grow by them, and after an exception are what they were.

    Returns:
        For each span a float32 tensor (len(logits_from_end), vocabulary).
    """
    import torch

    ids: list[int] = []
    positions: list[int] = []
    keep: list[int] = []
    for span in spans:
        span.row = len(ids)
        ids += span.ids
        positions += range(span.position, span.position + len(span.ids))
        keep += [len(ids) - back for back in span.logits_from_end]
    rows = len(keep)
    keep = keep or [0]
    keep += [keep[-1]] * (-len(keep) % _ROW_MULTIPLE)
    padding = -len(ids) % _ROW_MULTIPLE
    device = model.get_input_embeddings().weight.device
    with torch.inference_mode(), activations_in_pieces(device):
        out = model(
            input_ids=torch.tensor([ids + ids[-1:] * padding], device=device),
            position_ids=torch.tensor([positions + [0] * padding], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(keep, device=device),
            cotbench_spans=spans,
        )
    logits = out.logits[0, :rows].float()
    for span in spans:
        span.cache.length += len(span.ids)
    return list(logits.split([len(span.logits_from_end) for span in spans]))


def install_attention(model: Any) -> None:
    """Make a model's layers use the attention of this module."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention_forward)
    model.set_attn_implementation(ATTENTION)


def attention_forward(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    cotbench_spans: Sequence[TokenSpan] | None = None,
    cotbench_pass: BatchedPass | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Any = None,
    **_: Any,
) -> tuple[Any, None]:
    """Compute attention as transformers' layers call it.

    Args:
        module: the attention layer.
        query: (1, heads, tokens, head size), the new tokens of all spans one after another.
        key, value: (1, key heads, tokens, head size).
        attention_mask: must be None: the spans say who sees whom.
        cotbench_spans: the spans of the pass, each computed by itself; or
        cotbench_pass: the pass, computed at once.
        scaling: what scores are multiplied with; default 1 / sqrt(head size).
        softcap: where scores are bent by a tanh (Gemma 2).
        sliding_window: how many last tokens are seen, the token itself included.
        s_aux: must be None: attention sinks are not supported.

    Returns:
        (1, tokens, heads, head size), and None for the weights.

    Raises:
        NotImplementedError: the layer asks for what this attention does not know.
    """
    if s_aux is not None or attention_mask is not None:
        raise NotImplementedError("a layer that our attention does not know")
    rule = _LayerRule(query.shape[3] ** -0.5 if scaling is None else scaling, softcap, sliding_window)
    if cotbench_pass is not None:
        return _attend_pass(query, key, value, module.layer_idx, cotbench_pass, rule), None
    if cotbench_spans is None:
        raise NotImplementedError("a layer that our attention does not know")
    out = query.new_zeros((1, query.shape[2], query.shape[1], value.shape[3]))
    for span in cotbench_spans:
        rows = slice(span.row, span.row + len(span.ids))
        own = _plain(span.cache).write(module.layer_idx, key[0, :, rows], value[0, :, rows])
        prefix = None
        if span.prefix is not None and span.prefix_length:
            prefix = _plain(span.prefix).read(module.layer_idx, span.prefix_length)
        out[0, rows] = _attend_span(query[0, :, rows], own, prefix, span, rule)
    return out, None


def _attend_pass(query: Any, key: Any, value: Any, number: int, meta: BatchedPass, rule: AttentionRule) -> Any:
    """Return the attention output of a whole pass, in the query's number format, and write its keys and values to the pool.

    Under autocast, as while a model is trained in mixed precision, the three come in formats of its choosing; the pool has one.
    """
    import torch

    pool = meta.pool
    layer = pool.layer(number)
    rows, keys, values = (part[0].transpose(0, 1).to(pool.dtype) for part in (query, key, value))
    write_keys(keys, values, layer, meta)
    with torch.autocast(rows.device.type, enabled=False):
        return attention_kernel(pool)(rows, *layer, meta, rule)[None].to(query.dtype)


def _plain(cache: KVCache | PagedCache) -> KVCache:
    if isinstance(cache, PagedCache):
        raise NotImplementedError("blocks of a pool are computed by `batched_forward` alone")
    return cache


@dataclass(frozen=True, slots=True)
class _LayerRule(AttentionRule):
    """A layer's settings, for the attention of one span."""

    def start(self, first: int, base: int) -> int:
        """Return the position of the first key that is computed for a block of rows: the first that its first row sees.

        A product with very few keys is computed otherwise for few rows than for many, so of a prefix it takes a block at least.

        Args:
            first: the position of the block's first row, whether that row is computed in this pass or not.
            base: how many tokens the prefix has.
        """
        if self.window is None:
            return 0
        start = max(0, first - self.window + 1)
        return min(start, max(0, base - BLOCK)) if start < base else start


def _fold_query_groups(query: Any, key_heads: int) -> Any:
    """Reshape (heads, n, size) to (key heads, heads per key head * n, size): grouped queries without repeating keys."""
    heads, count, size = query.shape
    return query.reshape(key_heads, heads // key_heads * count, size)


def _unfold_query_groups(out: Any, heads: int) -> Any:
    """Reshape (key heads, group * n, size) to (n, heads, size)."""
    return out.reshape(heads, -1, out.shape[2]).transpose(0, 1)


def _causal_mask(count: int, first: int, start: int, end: int, window: int | None, device: Any) -> Any:
    """Return which keys at positions start..end the queries at first..first+count see: (count, end - start), None for all."""
    import torch

    if end <= first + 1 and (window is None or first + count - 1 - window < start):
        return None
    queries = torch.arange(first, first + count, device=device)[:, None]
    keys = torch.arange(start, end, device=device)[None]
    mask = keys <= queries
    return mask if window is None else mask & (keys > queries - window)


def _attend_span(query: Any, own: tuple[Any, Any], prefix: tuple[Any, Any] | None, span: TokenSpan, rule: _LayerRule) -> Any:
    """Return a span's attention output, block by block.

    Args:
        query: (heads, tokens, size).
        own: keys and values of the span's cache, (key heads, capacity, size).
        prefix: keys and values of what the span continues, (key heads, prefix length, size).
        span: the span.
        rule: the layer's settings.

    Returns:
        (tokens, heads, size).
    """
    import torch

    outputs, start, count = [], 0, query.shape[1]
    while start < count:
        rows = min(count - start, BLOCK - (span.cache.length + start) % BLOCK)
        block = query[:, start : start + rows]
        if missing := -rows % _ROW_MULTIPLE:
            block = torch.cat([block, block[:, -1:].expand(-1, missing, -1)], dim=1)
        outputs.append(_attend_block(block, own, prefix, span, start, rule)[:rows])
        start += rows
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend_block(
    query: Any, own: tuple[Any, Any], prefix: tuple[Any, Any] | None, span: TokenSpan, skipped: int, rule: _LayerRule
) -> Any:
    """Return the attention output of the rows of a span from number `skipped` on, which end in one block of its own cache."""
    heads, count, _ = query.shape
    group = heads // own[0].shape[0]
    first, base = span.position + skipped, span.prefix_length
    # Of the block, not of the first row here: the bits of a row must not depend on how many rows are computed before it.
    start = rule.start(first - (span.cache.length + skipped) % BLOCK, base)
    folded = _fold_query_groups(query, own[0].shape[0])
    parts = []
    if prefix is not None and start < base:
        mask = _causal_mask(count, first, start, base, rule.window, query.device)
        parts.append((folded, prefix[0][:, start:], prefix[1][:, start:], _repeat_for_groups(mask, group)))
    begin, end = max(0, start - base), span.cache.length + skipped + 1
    end += -end % BLOCK
    mask = _causal_mask(count, first, base + begin, base + end, rule.window, query.device)
    parts.append((folded, own[0][:, begin:end], own[1][:, begin:end], _repeat_for_groups(mask, group)))
    return _unfold_query_groups(_softmax_over_parts(parts, rule), heads)


def _repeat_for_groups(mask: Any, group: int) -> Any:
    return None if mask is None else mask.repeat(group, 1)


def _softmax_over_parts(parts: Sequence[tuple[Any, Any, Any, Any]], rule: _LayerRule) -> Any:
    """Return attention with one softmax over the keys of all parts; a part is (query, keys, values, mask)."""
    import torch

    scores = []
    for query, keys, _, mask in parts:
        score = torch.matmul(query * rule.scale, keys.transpose(1, 2))
        if rule.softcap is not None:
            score = torch.tanh(score / rule.softcap) * rule.softcap
        if mask is not None:
            score = score.masked_fill(~mask, float("-inf"))
        scores.append(score)
    weights = torch.softmax(torch.cat(scores, dim=-1).float(), dim=-1).to(parts[0][2].dtype)
    out, start = None, 0
    for (_, _, values, _), score in zip(parts, scores, strict=True):
        part = torch.matmul(weights[..., start : start + score.shape[-1]], values)
        out = part if out is None else out + part
        start += score.shape[-1]
    return out
