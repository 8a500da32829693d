"""What the scripts that measure on a GPU share: a clock with a limit, times of graphs, the card's bandwidth, filled caches."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from cotbench.agents.hf.block_pool import BlockPool, PagedCache
from cotbench.agents.hf.kv_cache import BLOCK

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BEGUN = time.monotonic()


class Clock:
    """Says how much of the time limit is left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def left(self) -> float:
        return self.seconds - (time.monotonic() - BEGUN)


def say(*words: object) -> None:
    print(f"[{time.monotonic() - BEGUN:6.1f} s]", *words, flush=True)


def part(clock: Clock, name: str, needs: float, run: Callable[[], None]) -> None:
    """Run a part; a failure is printed and costs the part alone."""
    if clock.left() < needs:
        say(f"{name}: left out, no time")
        return
    try:
        run()
    except Exception as error:
        say(f"{name}: FAILED, {type(error).__name__}: {error}")
        print("".join(traceback.format_exc().splitlines(keepends=True)[-9:]), flush=True)


_COLD_BYTES = 2**27
"""What has to be read between two readings of the same bytes, so that no card's cache still holds them: an H100's has 50 MB, a
B200's 126.
"""


def cold_copies(size: int) -> int:
    """Return how many copies of so many bytes have to be read in turn, so that each is read from memory, not from a cache."""
    return 1 if size >= _COLD_BYTES else 1 + -(-_COLD_BYTES // size)


def in_turn(runs: Sequence[Callable[[], object]], calls: int) -> list[Callable[[], object]]:
    """Return at least so many calls, all of `runs` equally often."""
    return list(runs) * -(-calls // len(runs))


def timed(run: Callable[[], object] | Sequence[Callable[[], object]], calls: int = 10, repeats: int = 9) -> float:
    """Return the median seconds of a call; of several that do the same on other data, called in turn."""
    runs = in_turn([run] if callable(run) else run, calls)
    runs[0]()
    if not CUDA:
        begun = time.perf_counter()
        runs[-1]()
        return time.perf_counter() - begun
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for one in runs:
                one()
        replay: Callable[[], object] = graph.replay
    except Exception as error:
        torch.cuda.synchronize()
        say(f"  (not captured: {type(error).__name__}: {str(error).splitlines()[0][:90]})")

        def replay() -> None:
            for one in runs:
                one()

    replay()
    seconds = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3 / len(runs))
    return statistics.median(seconds)


def timed_replay(graph: Any) -> float:
    """Return the median seconds of a graph's replay."""
    seconds = []
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return statistics.median(seconds)


def bandwidth(tiny: bool) -> float:
    """Return bytes a second that a copy on the device reads and writes: the best of some, once the card is warm."""
    size = 2**20 if tiny else 2**33
    one = torch.empty(size, dtype=torch.uint8, device=DEVICE)
    other = torch.empty_like(one)
    if CUDA:
        for _ in range(5):
            other.copy_(one)
    return max(2 * size / timed(lambda: other.copy_(one), calls=4, repeats=7) for _ in range(2))


def caches(pool: BlockPool, lengths: Sequence[int]) -> list[PagedCache]:
    """Caches that hold so many tokens, their blocks in no order."""
    made = [PagedCache(pool) for _ in lengths]
    longest = max(lengths)
    for start in range(0, longest, BLOCK):
        for cache, length in zip(made, lengths, strict=True):
            if cache.length < length:
                count = min(length - start, BLOCK)
                cache.reserve(count)
                cache.length += count
    return made
