"""Whether a model can be trusted to our attention, and to transformers' cache. Invariant: what is trusted has computed the same
logits as the model's own full forward pass, on both sides of every length that its configuration knows (`length_settings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

from cotbench.agents.hf.attention import TokenSpan, forward, install_attention
from cotbench.agents.hf.kv_cache import KVCache
from cotbench.agents.hf.length_settings import (
    CROSSING_TOKENS,
    PROBE_TOKENS,
    SHORT,
    crossing_error,
    crossings,
    length_settings,
)
from cotbench.agents.hf.pretrained import first_line
from cotbench.agents.hf.sequential_engine import CachedSequence, CachePolicy

_STEPS = (0, SHORT - 1, SHORT + 2, SHORT + 3, CROSSING_TOKENS)
"""Lengths to which a cached sequence grows, one after the other: below `SHORT`, across it, and beyond it by one and by some."""

_COMPARED = (SHORT - 2, SHORT, SHORT + 1, SHORT + 3, CROSSING_TOKENS - 1, CROSSING_TOKENS)
"""Lengths after which its logits are compared with those of a full forward pass."""


def try_install_attention(model: Any, context: int) -> str | None:
    """Install our attention where it computes the same logits as the model's own; else return the reason why not.

    Args:
        model: a causal model of transformers.
        context: the longest sequence, in tokens.
    """
    reason = _attention_error(model, context)
    if reason is None:
        install_attention(model)
    return reason


def _attention_error(model: Any, context: int) -> str | None:
    """Return where our attention computes something else than the model's own; None where it does not."""
    settings = length_settings(model, context)
    probes: list[tuple[int, tuple[int, ...]]] = [(PROBE_TOKENS, (PROBE_TOKENS // 2,))]
    if settings:
        probes.append((CROSSING_TOKENS, (SHORT - 1, 9)))
    for count, cuts in probes:
        ids = _probe_ids(model, count)
        own, ours = partial(_own_logits, model, ids), partial(_batched_logits, model, ids, cuts)
        try:
            expected, found = own(), ours()
        except Exception as error:  # Whatever a model's code does with arguments that it does not know.
            return first_line(error)
        if not _logits_agree(found, expected, model.dtype):
            return "our attention computes something else than its own"
    for lowered in crossings(settings):
        reason = crossing_error(model, lowered, found, expected, ours, own)
        if reason is not None:
            return f"our attention: {reason}; context={min(setting.value for setting in lowered) - 1} stays below"
    return None


def cache_policy(model: Any, context: int) -> CachePolicy:
    """Return when a model may go on from transformers' cache: some take another kind of state, and silently.

    Args:
        model: a causal model of transformers, with its own attention.
        context: the longest sequence, in tokens.
    """
    import torch

    ids = _probe_ids(model, CROSSING_TOKENS)

    def grown(policy: CachePolicy) -> Any:
        sequence = CachedSequence(model, policy)
        rows = torch.cat([sequence.logits_after(ids[:end], end - start) for start, end in pairwise(_STEPS)])
        return rows[[length - 1 for length in _COMPARED]]

    def whole() -> Any:
        return torch.stack([_own_logits(model, ids[:length])[-1] for length in _COMPARED])

    expected = whole()
    for reuse in (True, False):
        with suppress(Exception):  # Whatever a model's code does with a cache that it does not know.
            found = grown(CachePolicy(reuse))
            if _logits_agree(found, expected, model.dtype):
                break
    else:
        return CachePolicy(reuse=False, limit=0)
    resets: set[int] = set()
    limit = context
    for lowered in crossings(length_settings(model, context)):
        values = {setting.value for setting in lowered}
        for policy in (CachePolicy(reuse), CachePolicy(reuse, (SHORT,))):
            if crossing_error(model, lowered, found, expected, partial(grown, policy), whole) is None:
                if policy.resets and not values & resets:
                    resets |= values
                break
        else:
            limit = min(limit, min(values) - 1)
    return CachePolicy(reuse, tuple(sorted(resets)), limit)


def _probe_ids(model: Any, count: int) -> list[int]:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return [(7 * index + 3) % vocabulary for index in range(count)]


def _own_logits(model: Any, ids: Sequence[int]) -> Any:
    """Return the logits after each token, (tokens, vocabulary), by the model's own attention and without a cache."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()


def _batched_logits(model: Any, ids: Sequence[int], cuts: Sequence[int]) -> Any:
    """Return the logits after each token by our attention, in passes with another sequence beside it.

    The first cut ends a prompt; the rest continues it, sharing its cache, in one pass from cut to cut.
    """
    import torch

    own = model.config._attn_implementation
    prompt, continuation, other = KVCache(), KVCache(), KVCache()
    logits = []
    install_attention(model)
    try:
        for start, end in pairwise([0, *cuts, len(ids)]):
            rows = range(end - start, 0, -1)
            if start == 0:
                spans = [TokenSpan(ids[:end], prompt, logits_from_end=rows), TokenSpan(ids[1:4], other)]
            else:
                spans = [TokenSpan(ids[start:end], continuation, prompt, logits_from_end=rows), TokenSpan(ids[4:5], other)]
            logits.append(forward(model, spans)[0])
    finally:
        model.set_attn_implementation(own)
    return torch.cat(logits)


def _logits_agree(ours: Any, theirs: Any, dtype: Any) -> bool:
    """Return whether two computations of the same logits agree, as far as the number format allows."""
    import torch

    return bool((ours - theirs).norm() <= (1e-3 if dtype == torch.float32 else 0.1) * theirs.norm())
