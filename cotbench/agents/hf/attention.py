"""Keys and values of many sequences, and attention over them. Invariant: what a token computes depends on its own sequence
alone, to the last bit (float32, one kind of processor): not on what else goes through the model in the same pass, nor on how
its sequence was cut into passes.

Own attention instead of padded batches on transformers' caches: tokens of all sequences stand one after another in one row, so
nothing is padded; each sequence keeps its keys where they are, so nothing is copied from token to token; several
continuations share the keys of what they continue; and a pass may mix long prompts with single tokens. Matrix products keep
their bits for every number of rows that is a multiple of four, and for the same number of keys: so passes are filled up, and
attention goes over whole blocks of keys, for a multiple of four rows that end in the same block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.linear import use_fast_cpu_linear

ATTENTION = "cotbench_rows"
"""The name of our attention among transformers' own."""

_ALIGN = 4
BLOCK = 64
"""Keys are kept and attended to in blocks of so many."""


class KVCache:
    """Keys and values of consecutive tokens, for every layer: tensors of (key heads, capacity, head size)."""

    def __init__(self) -> None:
        self.length = 0
        self._layers: dict[int, tuple[Any, Any]] = {}

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(tensor.nbytes for pair in self._layers.values() for tensor in pair)

    def write(self, layer: int, keys: Any, values: Any) -> tuple[Any, Any]:
        """Put (heads, n, size) after the first `length` tokens; gives all keys and values that are kept. `length` stays.

        Behind the last token written stands what does not count, up to a whole number of blocks.
        """
        end = self.length + keys.shape[1]
        held = self._layers.get(layer)
        if held is None or held[0].shape[1] < end:
            room = end if held is None else end + end // 2
            room += -room % BLOCK
            held = tuple(self._grown(old, new, room) for old, new in zip(held or (None, None), (keys, values), strict=True))
            self._layers[layer] = held
        held[0][:, self.length : end] = keys
        held[1][:, self.length : end] = values
        return held

    def _grown(self, old: Any, new: Any, room: int) -> Any:
        tensor = new.new_zeros((new.shape[0], room, new.shape[2]))  # What is masked must be a number all the same.
        if old is not None:
            tensor[:, : self.length] = old[:, : self.length]
        return tensor

    def read(self, layer: int, count: int) -> tuple[Any, Any]:
        """Keys and values of the first `count` tokens."""
        keys, values = self._layers[layer]
        return keys[:, :count], values[:, :count]


@dataclass(slots=True)
class TokenSpan:
    """Some new tokens of one sequence.

    Attributes:
        ids: the tokens.
        cache: where their keys go.
        prefix: what they continue, if that is kept elsewhere: all of `prefix` is seen by all of `ids`.
        prefix_pending: how many tokens of `prefix` an earlier span of the same pass computes.
        logits_from_end: of which of the tokens, counted from the end (1 is the last), the next token's logits are wanted.
    """

    ids: Sequence[int]
    cache: KVCache
    prefix: KVCache | None = None
    prefix_pending: int = 0
    logits_from_end: Sequence[int] = ()
    row: int = 0

    @property
    def position(self) -> int:
        """The position of the first token in its sequence."""
        return self.cache.length + self.prefix_length

    @property
    def prefix_length(self) -> int:
        """How many tokens it continues."""
        return 0 if self.prefix is None else self.prefix.length + self.prefix_pending


def forward(model: Any, spans: Sequence[TokenSpan]) -> list[Any]:
    """One pass of a model over the new tokens of several sequences.

    Returns:
        For each span a tensor (len(wanted), vocabulary), float32; the spans' entries are longer by their tokens. After an
        exception all entries are what they were.
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
    wanted = len(keep)
    keep = keep or [0]
    keep += [keep[-1]] * (-len(keep) % _ALIGN)
    padding = -len(ids) % _ALIGN
    device = model.get_input_embeddings().weight.device
    with torch.inference_mode():
        out = model(
            input_ids=torch.tensor([ids + ids[-1:] * padding], device=device),
            position_ids=torch.tensor([positions + [0] * padding], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(keep, device=device),
            cotbench_spans=spans,
        )
    logits = out.logits[0, :wanted].float()
    for span in spans:
        span.cache.length += len(span.ids)
    return list(logits.split([len(span.logits_from_end) for span in spans]))


def install_attention(model: Any) -> None:
    """Make a model's layers use the attention of this module, and products that few rows are quick in."""
    from transformers import AttentionInterface

    use_fast_cpu_linear(model)
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
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Any = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attention as transformers' layers call it: query (1, heads, tokens, size), key and value (1, key heads, tokens, size)."""
    if cotbench_spans is None or s_aux is not None or attention_mask is not None:
        raise NotImplementedError("a layer that our attention does not know")
    out = query.new_zeros((1, query.shape[2], query.shape[1], value.shape[3]))
    rule = _AttentionRule(query.shape[3] ** -0.5 if scaling is None else scaling, softcap, sliding_window)
    for span in cotbench_spans:
        rows = slice(span.row, span.row + len(span.ids))
        own = span.cache.write(module.layer_idx, key[0, :, rows], value[0, :, rows])
        before = (
            span.prefix.read(module.layer_idx, span.prefix_length) if span.prefix is not None and span.prefix_length else None
        )
        out[0, rows] = _attend_span(query[0, :, rows], own, before, span, rule)
    return out, None


@dataclass(frozen=True, slots=True)
class _AttentionRule:
    """How a layer weighs keys: what scores are multiplied with, where they are bent, how many last keys are seen."""

    scale: float
    softcap: float | None
    window: int | None

    def start(self, first: int) -> int:
        """The first key that the query at position `first` sees."""
        return 0 if self.window is None else max(0, first - self.window + 1)


def _fold_query_groups(query: Any, key_heads: int) -> Any:
    """(heads, n, size) to (key heads, heads per key head * n, size): grouped queries without repeating keys."""
    heads, count, size = query.shape
    return query.reshape(key_heads, heads // key_heads * count, size)


def _unfold_query_groups(out: Any, heads: int) -> Any:
    """(key heads, group * n, size) to (n, heads, size)."""
    return out.reshape(heads, -1, out.shape[2]).transpose(0, 1)


def _causal_mask(count: int, first: int, start: int, end: int, window: int | None, device: Any) -> Any:
    """Which keys at positions start..end the queries at first..first+count see: (count, end - start), or None for all."""
    import torch

    if end <= first + 1 and (window is None or first + count - 1 - window < start):
        return None
    queries = torch.arange(first, first + count, device=device)[:, None]
    keys = torch.arange(start, end, device=device)[None]
    seen = keys <= queries
    return seen if window is None else seen & (keys > queries - window)


def _attend_span(
    query: Any, own: tuple[Any, Any], before: tuple[Any, Any] | None, span: TokenSpan, rule: _AttentionRule
) -> Any:
    """What a span's tokens see: query (heads, tokens, size) to (tokens, heads, size)."""
    import torch

    pieces, start, count = [], 0, query.shape[1]
    while start < count:
        rows = min(count - start, BLOCK - (span.cache.length + start) % BLOCK)
        some = query[:, start : start + rows]
        if missing := -rows % _ALIGN:
            some = torch.cat([some, some[:, -1:].expand(-1, missing, -1)], dim=1)
        pieces.append(_attend_block(some, own, before, span, start, rule)[:rows])
        start += rows
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _attend_block(
    query: Any, own: tuple[Any, Any], before: tuple[Any, Any] | None, span: TokenSpan, skipped: int, rule: _AttentionRule
) -> Any:
    """The rows of a span from the one numbered `skipped` on, which end in one block of its own keys."""
    heads, count, _ = query.shape
    group = heads // own[0].shape[0]
    first, base = span.position + skipped, span.prefix_length
    start = rule.start(first)
    folded = _fold_query_groups(query, own[0].shape[0])
    parts = []
    if before is not None and start < base:
        seen = _causal_mask(count, first, start, base, rule.window, query.device)
        parts.append((folded, before[0][:, start:], before[1][:, start:], _repeat_for_groups(seen, group)))
    begin, end = max(0, start - base), span.cache.length + skipped + 1
    end += -end % BLOCK
    seen = _causal_mask(count, first, base + begin, base + end, rule.window, query.device)
    parts.append((folded, own[0][:, begin:end], own[1][:, begin:end], _repeat_for_groups(seen, group)))
    return _unfold_query_groups(_softmax_over_parts(parts, rule), heads)


def _repeat_for_groups(seen: Any, group: int) -> Any:
    return None if seen is None else seen.repeat(group, 1)


def _softmax_over_parts(parts: Sequence[tuple[Any, Any, Any, Any]], rule: _AttentionRule) -> Any:
    """Softmax over the keys of all parts together: (query, keys, values, seen) each."""
    import torch

    scores = []
    for query, keys, _, seen in parts:
        score = torch.matmul(query * rule.scale, keys.transpose(1, 2))
        if rule.softcap is not None:
            score = torch.tanh(score / rule.softcap) * rule.softcap
        if seen is not None:
            score = score.masked_fill(~seen, float("-inf"))
        scores.append(score)
    weights = torch.softmax(torch.cat(scores, dim=-1).float(), dim=-1).to(parts[0][2].dtype)
    out, start = None, 0
    for (_, _, values, _), score in zip(parts, scores, strict=True):
        piece = torch.matmul(weights[..., start : start + score.shape[-1]], values)
        out = piece if out is None else out + piece
        start += score.shape[-1]
    return out
