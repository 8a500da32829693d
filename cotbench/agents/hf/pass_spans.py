"""What an engine's next pass computes: spans of tokens, of a lane's prompt or of a branch that continues it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cotbench.agents.hf.attention import TokenSpan
from cotbench.agents.hf.engine_limits import EngineLimits
from cotbench.agents.hf.kv_cache import BLOCK
from cotbench.agents.hf.lanes import Branch, Lane

PassSpan = tuple[TokenSpan, Lane, Branch | None]
"""A span, and whose it is: without a branch it is a part of the lane's prompt."""

_FREE_DRAFT = 3
"""Draft tokens that cost nothing: a pass is filled up to a multiple of four rows anyway."""


def next_spans(lanes: Iterable[Lane], limits: EngineLimits) -> list[PassSpan]:
    """Return what the next pass computes: all continuations, then chunks of prompts as far as there is room.

    After the last chunk of a prompt its continuations come in the same pass.

    Args:
        lanes: all lanes; those that are not in use have nothing to compute.
        limits: of a pass.
    """
    running = [lane for lane in lanes if lane.running]
    share = limits.max_draft_tokens // max(1, sum(len(lane.running) for lane in running))
    room, rows = limits.max_tokens_per_forward, limits.max_logit_rows
    spans: list[PassSpan] = []
    for lane in running:
        if not lane.pending:
            new = _branch_spans(lane, 0, share, room, rows)
            room -= token_count(new)
            rows -= logit_count(new)
            spans += new
    for lane in running:
        if lane.pending and room > 0:
            chunk = lane.pending[: limits.prefill_chunk]
            spans.append((TokenSpan(chunk, lane.cache), lane, None))
            room -= len(chunk)
            if len(chunk) == len(lane.pending):
                new = _branch_spans(lane, len(chunk), share, room, rows)
                room -= token_count(new)
                rows -= logit_count(new)
                spans += new
    return spans


def wanted_spans(spans: Sequence[PassSpan]) -> list[PassSpan]:
    """Return the spans of queries that are still being answered."""
    return [one for one in spans if one[1].running and (one[2] is None or one[2] in one[1].running)]


def spans_after(first: Sequence[PassSpan], rest: Sequence[PassSpan]) -> list[PassSpan]:
    """Return what of the rest of a pass can be computed once a first part of it was tried.

    Where a prompt's chunk was computed, its branches no longer wait for it; where it was not, they come in a later pass.
    """
    begun = {id(lane) for _, lane, branch in first if branch is None}
    possible = [one for one in rest if id(one[1]) not in begun or not one[1].pending]
    for span, lane, _ in possible:
        if id(lane) in begun:
            span.prefix_pending = 0
    return possible


def token_count(spans: Sequence[PassSpan]) -> int:
    """Return how many tokens the spans have."""
    return sum(len(span.ids) for span, _, _ in spans)


def logit_count(spans: Sequence[PassSpan]) -> int:
    """Return how many rows of logits the spans want."""
    return sum(len(span.logits_from_end) for span, _, _ in spans)


def _branch_spans(lane: Lane, ahead: int, share: int, room: int, logit_rows: int) -> list[PassSpan]:
    """Return the spans of a lane's branches.

    Args:
        lane: the lane.
        ahead: tokens of its prompt that the same pass computes before them.
        share: draft tokens for each branch.
        room: tokens beyond which forced continuations wait for another pass: a state may have hundreds of candidates.
        logit_rows: rows of logits beyond which they wait: each of their tokens takes one.
    """
    spans: list[PassSpan] = []
    for branch in lane.running:
        if branch.continuation.request.forced is not None:
            if room <= 0 or logit_rows <= 0:
                continue
            room -= len(branch.pending)
            logit_rows -= branch.continuation.logit_rows
        branch.draft = _draft(branch, share)
        rows = range(branch.continuation.logit_rows + len(branch.draft), 0, -1)
        targets = [] if branch.continuation.request.forced is None else branch.continuation.ids
        ids, temperature = branch.pending + branch.draft, 0.0 if targets else branch.continuation.temperature
        spans.append((TokenSpan(ids, branch.cache, lane.cache, ahead, rows, targets, temperature), lane, branch))
    return spans


def _draft(branch: Branch, share: int) -> list[int]:
    """Return tokens that may follow; never more than the budget allows, nor into another block of the KV cache."""
    if branch.lookup is None:
        return []
    block_left = -(branch.cache.length + len(branch.pending)) % BLOCK
    return branch.lookup.draft(min(branch.continuation.tokens_left - 1, block_left, max(_FREE_DRAFT, share)))
