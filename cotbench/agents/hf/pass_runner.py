"""Computes passes on a GPU, by CUDA graphs where launching kernels one by one would take longer than computing them. Invariant:
a graph changes how fast a pass is computed, nothing else.

A pass of few tokens is some thousand small kernels; a graph launches all of them at once. A graph is of one shape, so a pass is
filled up to the next of some sizes (`_SIZES`), and each shape is captured when it comes the second time. All graphs share their
memory, and read one static tensor of numbers (`batched_pass`), which one transfer fills.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.attention import TokenSpan
from cotbench.agents.hf.batched_forward import (
    ChosenRows,
    advance,
    choose_rows,
    make_pass,
    query_group,
    read_rows,
    run_pass,
    with_candidates,
)
from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, pack_pass, split_count, tile_rows_for
from cotbench.agents.hf.block_pool import BlockPool
from cotbench.agents.hf.compiled_layers import CompiledLayers, decoder_layers
from cotbench.agents.hf.pretrained import first_line, is_out_of_memory

_log = logging.getLogger(__name__)

_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)
"""Rows of a pass for which graphs are captured. A pass has as many tiles as rows at most; unused ones cost next to nothing."""

_LOGIT_ROWS = 128
"""Rows of logits of a captured pass, of more tokens than these; all of them where it wants more."""

_MOST_SHORTAGES = 3
"""Captures that may fail for want of memory, before no pass is captured any more."""

_TABLE = 2**16
"""Numbers that the block table of a captured pass may have."""


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """A captured pass: replaying it computes the logits, and what is chosen from them."""

    graph: Any
    logits: Any
    chosen: Any


class PassRunner:
    """Compute passes on one model.

    Args:
        model: a causal model of transformers with our attention.
        pool: keys and values.
        graphs: whether to capture passes as CUDA graphs, where the device and the layers allow it.
        compile_after: after so many replays the layers are compiled too (10 s once, then a pass takes a quarter less); None:
            never, as where the model is trained in between.

    Attributes:
        eager_reason: why passes are not captured; None where they are.
        compile_error: why the layers could not be compiled; None where they are, or where it was not tried.
        samples_candidates: whether tokens are sampled from the most probable candidates, so that no row of logits leaves the
            GPU; on a CPU they are sampled as everywhere else.
    """

    def __init__(self, model: Any, pool: BlockPool, *, graphs: bool = True, compile_after: int | None = None) -> None:
        self._model, self._pool = model, pool
        self.eager_reason = pool.kernel_error if graphs else "graphs=false"
        self.samples_candidates = pool.device.type == "cuda"
        self.compile_after = compile_after
        self.compile_error: str | None = None
        self._compiled: CompiledLayers | None = None
        self._replays = self._shortages = 0
        self._seen: set[PassShape] = set()
        self._graphs: dict[PassShape, _Graph] = {}
        self._version = pool.version
        self._memory: Any = None
        self._stream: Any = None
        self._logits: dict[int, Any] = {}
        self._numbers: Any = None
        self._staging: Any = None

    def compute(self, spans: Sequence[TokenSpan]) -> ChosenRows:
        """Compute one forward pass over the new tokens of several sequences.

        Args:
            spans: the new tokens; their caches grow by them, and after an exception are what they were.

        Returns:
            What is chosen from all rows of logits, span by span.
        """
        import torch

        count = sum(len(span.logits_from_end) for span in spans)
        with torch.inference_mode(), self._pool.on_device():
            graph = self._graph_for(spans, count)
            if graph is None:
                meta = make_pass(self._model, spans, self._pool)
                logits = run_pass(self._model, meta)
                chosen = choose_rows(logits, meta.targets)
            else:
                graph.graph.replay()
                self._replays += 1
                logits, chosen = graph.logits, graph.chosen
            rows = read_rows(chosen, logits, count)
            if self.samples_candidates:
                rows = with_candidates(rows, spans)
        advance(spans)
        return rows

    def close(self) -> None:
        """Drop all graphs."""
        self._drop_graphs()
        self._seen.clear()
        self._logits.clear()
        self._numbers = self._staging = None

    def _drop_graphs(self) -> None:
        """Let each shape be captured anew, the next time that it comes."""
        self._graphs.clear()
        self._memory = None

    def _graph_for(self, spans: Sequence[TokenSpan], count: int) -> _Graph | None:
        """Return the graph of these spans' shape, with their numbers in place; None where the pass is not captured."""
        if self.eager_reason is not None:
            return None
        shape = self._shape(spans, count)
        if shape is None:
            return None
        self._compile_if_due()
        packed, longest = pack_pass(spans, shape)
        if self._version != self._pool.version:  # The pool has grown just now: its tensors lie elsewhere.
            self._drop_graphs()
            self._version = self._pool.version
        if shape not in self._seen or len(packed) > shape.header + _TABLE:
            self._seen.add(shape)
            return None
        self._send(packed)
        if shape not in self._graphs:
            try:
                self._graphs[shape] = self._capture(shape, longest)
            except Exception as error:
                self._note_failure(error)
                return None
        return self._graphs[shape]

    def _note_failure(self, error: Exception) -> None:
        """Give up what kept a pass from being captured: compiled layers, or else graphs; where memory lacked, not at once."""
        self._shortages += is_out_of_memory(error)
        if is_out_of_memory(error) and self._shortages < _MOST_SHORTAGES:
            self._drop_graphs()
        elif self._compiled is None:
            self.eager_reason = f"capturing a CUDA graph failed: {first_line(error)}"
            self._drop_graphs()
            _log.warning("each kernel is launched by itself: %s", self.eager_reason)
        else:
            self._compiled, self.compile_error = None, first_line(error)
            _log.warning("the layers are not compiled: %s", self.compile_error)

    def _compile_if_due(self) -> None:
        """Let graphs be captured anew with compiled layers, once enough passes were computed without."""
        if self.compile_after is None or self._replays < self.compile_after:
            return
        self.compile_after = None
        if decoder_layers(self._model):
            self._drop_graphs()
            self._compiled = CompiledLayers(self._model)
        else:
            self.compile_error = "the model's layers are not where transformers' decoders have them"

    def _shape(self, spans: Sequence[TokenSpan], count: int) -> PassShape | None:
        """Return the shape that the spans are filled up to; None where they are too many."""
        tokens = sum(len(span.ids) for span in spans)
        if tokens > _SIZES[-1] or count > _SIZES[-1]:
            return None
        tile_rows = tile_rows_for(1, query_group(self._model), self._pool.dtype.itemsize)
        size = _SIZES[bisect_left(_SIZES, tokens)]
        return PassShape(size, _LOGIT_ROWS if count <= _LOGIT_ROWS < size else size, size, tile_rows)

    def _send(self, packed: Any) -> None:
        """Put a pass's numbers where the graphs read them."""
        import torch

        if self._staging is None:
            room = PassShape(_SIZES[-1], _SIZES[-1], _SIZES[-1], 1).header + _TABLE
            self._numbers = torch.zeros(room, dtype=torch.int32, device=self._pool.device)
            self._staging = torch.zeros(room, dtype=torch.int32, pin_memory=True)
        # The last transfer has ended: its pass's results have been read.
        self._staging.numpy()[: len(packed)] = packed
        self._numbers[: len(packed)].copy_(self._staging[: len(packed)], non_blocking=True)

    def _capture(self, shape: PassShape, longest: int) -> _Graph:
        """Capture a pass; the numbers in place are those of a pass of this shape."""
        import torch

        numbers = self._numbers[: shape.header + _TABLE]
        meta = BatchedPass(self._pool, shape, numbers, longest, split_count(shape.tiles, self._pool))

        def run() -> tuple[Any, Any]:
            with nullcontext() if self._compiled is None else self._compiled.applied():
                logits = self._shared_logits(run_pass(self._model, meta))
            return logits, choose_rows(logits, meta.targets)

        # Graphs share their memory if they are captured on one stream; torch's own would be of the device that captured first.
        before = torch.cuda.current_stream(self._pool.device)
        stream = self._stream = self._stream or torch.cuda.Stream(self._pool.device)
        stream.wait_stream(before)
        try:
            with torch.cuda.stream(stream):
                run()  # What is done once only, such as compiling a kernel, cannot be captured.
                with _rehearsal():
                    run()
        finally:
            before.wait_stream(stream)  # What runs there still reads the numbers in place.
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._memory, stream=stream, capture_error_mode="thread_local"):
                logits, chosen = run()
        finally:
            torch.cuda.set_stream(before)  # Where a capture fails, torch leaves its own in place.
        self._memory = self._memory or graph.pool()
        return _Graph(graph, logits, chosen)

    def _shared_logits(self, logits: Any) -> Any:
        """Return a copy of a pass's logits where those of all graphs lie: each of its own would take a gigabyte together."""
        import torch

        rows = _LOGIT_ROWS if len(logits) <= _LOGIT_ROWS else _SIZES[-1]
        if rows not in self._logits:
            self._logits[rows] = torch.empty((rows, logits.shape[1]), dtype=logits.dtype, device=logits.device)
        part = self._logits[rows][: len(logits)]
        part.copy_(logits)
        return part


@contextmanager
def _rehearsal() -> Iterator[None]:
    """Raise an error for what a capture does not allow, which is to wait for the GPU.

    A capture that ends that way leaves torch's memory in disorder for good. Libraries that wait outside of captures alone (as
    transformers does, to check values) are told that this is one.
    """
    import torch

    mode, capturing = torch.cuda.get_sync_debug_mode(), torch.cuda.is_current_stream_capturing
    torch.cuda.set_sync_debug_mode("error")
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = capturing
        torch.cuda.set_sync_debug_mode(mode)
