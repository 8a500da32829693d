"""What an engine computes and holds at once, at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bound what is computed and held at once.

    Attributes:
        cache_bytes: memory for the KV caches; beyond it lanes not in use are dropped, the least recently used first.
        prefill_chunk: tokens of one prompt in a forward pass.
        max_tokens_per_forward: tokens in a forward pass, more or less: of continuations, forced ones alone are held back.
        max_logit_rows: rows of logits in a forward pass, beyond which forced continuations are held back: a row is as long as
            the vocabulary, so that a thousand of them take a gigabyte.
        max_draft_tokens: how many of them may be drafts, all continuations together.
        speculative: whether to draft tokens (prompt lookup).
        graphs: whether to capture passes as CUDA graphs, where attention is batched on a GPU.
        compile_after: after so many replays of graphs the layers are compiled as well; None: never.
    """

    cache_bytes: int
    prefill_chunk: int = 256
    max_tokens_per_forward: int = 1024
    max_logit_rows: int = 1024
    max_draft_tokens: int = 64
    speculative: bool = True
    graphs: bool = True
    compile_after: int | None = None
