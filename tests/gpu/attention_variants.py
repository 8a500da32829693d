"""Times ways to compute attention over block tables, and a decode step of whole models, each against the bandwidth bound.

    python tests/gpu/attention_variants.py --seconds 120
    python tests/gpu/attention_variants.py --tiny          # a dry run on a CPU

Each variant is compared with the reference (float64, gathered) before it is timed. A figure is printed as soon as it is known; a
part that fails costs itself alone. Times are medians, replayed as CUDA graphs, so that launching does not count.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch

from cotbench.agents.hf.attention import TokenSpan
from cotbench.agents.hf.batched_attention import AttentionRule, gather_attention
from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, count_tiles, pack_pass
from cotbench.agents.hf.block_pool import BlockPool, LayerShape, PagedCache
from cotbench.agents.hf.kv_cache import BLOCK

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BEGUN = time.monotonic()


@dataclass(frozen=True)
class Heads:
    """The heads of a model's layer."""

    query: int
    key: int
    size: int


HEADS = {"0.6B": Heads(16, 8, 128), "4B, 8B": Heads(32, 8, 128)}
SHAPES: dict[str, dict[str, int]] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
}


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


def timed(run: Callable[[], object], calls: int = 10, repeats: int = 9) -> float:
    """Return the median seconds of a call."""
    run()
    if not CUDA:
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(calls):
                run()
        replay: Callable[[], object] = graph.replay
    except Exception as error:
        torch.cuda.synchronize()
        say(f"  (not captured: {type(error).__name__}: {str(error).splitlines()[0][:90]})")

        def replay() -> None:
            for _ in range(calls):
                run()

    replay()
    seconds = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3 / calls)
    return statistics.median(seconds)


def bandwidth(size: int) -> float:
    """Return bytes a second that a copy on the device reads and writes."""
    one = torch.empty(size, dtype=torch.uint8, device=DEVICE)
    other = torch.empty_like(one)
    return 2 * size / timed(lambda: other.copy_(one))


def filled_pool(heads: Heads, dtype: torch.dtype, tokens: int) -> BlockPool:
    pool = BlockPool({0: LayerShape(heads.key, heads.size, heads.size)}, dtype, DEVICE, 1)
    pool.give_back(pool.take(-(-tokens // BLOCK) + 256))
    for tensor in pool.layer(0):
        tensor.normal_()
    return pool


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


def spans_for(pool: BlockPool, prefixes: Sequence[int], own: Sequence[int], new: int) -> list[TokenSpan]:
    """New tokens of sequences that continue prompts; without own tokens they extend the prompt itself."""
    made = []
    for prefix, length in zip(caches(pool, prefixes), own, strict=True):
        if length:
            made.append(TokenSpan([1] * new, caches(pool, [length])[0], prefix))
        else:
            made.append(TokenSpan([1] * new, prefix))
    return made


def pass_over(pool: BlockPool, spans: Sequence[TokenSpan], tile_rows: int, splits: int) -> BatchedPass:
    tokens = sum(len(span.ids) for span in spans)
    shape = PassShape(tokens, 1, count_tiles(spans, tile_rows), tile_rows)
    packed, longest = pack_pass(spans, shape)
    return BatchedPass(pool, shape, torch.from_numpy(packed).to(DEVICE), longest, splits)


def error_of(found: Any, expected: Any) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def reference(query: Any, pool: BlockPool, meta: BatchedPass, rule: AttentionRule) -> Any:
    keys, values = pool.layer(0)
    return gather_attention(query.double(), keys.double(), values.double(), meta, rule)


def _dtype(tiny: bool) -> Any:
    return torch.float32 if tiny else torch.bfloat16  # Triton's interpreter has no bfloat16.


def check_kernel(tiny: bool) -> None:
    """The kernel against float64, for number formats, head sizes, windows, softcaps, splits."""
    from cotbench.agents.hf.triton_attention import paged_attention

    worst: dict[str, float] = {}
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2))[: 1 if tiny else None]:
        for size, query, key in ((16, 4, 1),) if tiny else ((128, 32, 8), (64, 6, 2)):
            pool = filled_pool(Heads(query, key, size), dtype, 4000)
            for new, splits, softcap, window in ((1, 1, None, None), (1, 4, 30.0, None), (3, 4, None, 100), (70, 1, 30.0, 100)):
                spans = spans_for(pool, [300, 77, 64, 5, 130], [20, 0, 65, 1, 0], new)
                group = query // key
                for rows in (64,) if new == 70 and dtype != torch.float32 else (16,):
                    meta = pass_over(pool, spans, max(1, rows // group), splits)
                    rule = AttentionRule(size**-0.5, softcap, window)
                    q = torch.randn(meta.shape.tokens, query, size, dtype=dtype, device=DEVICE)
                    found = paged_attention(q, *pool.layer(0), meta, rule)
                    error = error_of(found, reference(q, pool, meta, rule))
                    name = f"{str(dtype)[6:]} size {size}"
                    worst[name] = max(worst.get(name, 0.0), error if error == error else 9.0)
                    if not error < bound:
                        say(
                            f"  WRONG {name} new {new} splits {splits} softcap {softcap} window {window} rows {rows}: {error:.2e}"
                        )
                for span in spans:
                    span.cache.free()
                    if isinstance(span.prefix, PagedCache):
                        span.prefix.free()
    say("kernel against float64, worst relative errors:", ", ".join(f"{name} {error:.1e}" for name, error in worst.items()))


def decode(tiny: bool, rate: float) -> None:
    """One token a sequence."""
    from cotbench.agents.hf.triton_attention import Launch, paged_attention

    for name, heads in {"tiny": Heads(4, 2, 16)}.items() if tiny else HEADS.items():
        for batch in (2,) if tiny else (64, 8, 1):
            lengths = [2000 + 2000 * n // batch for n in range(batch)] if not tiny else [100, 64]
            pool = filled_pool(heads, _dtype(tiny), sum(lengths) + 200 * batch)
            spans = spans_for(pool, lengths, [100] * batch, 1)
            rule = AttentionRule(heads.size**-0.5)
            q = torch.randn(batch, heads.query, heads.size, dtype=_dtype(tiny), device=DEVICE)
            needed = 2 * heads.key * heads.size * 2 * (sum(lengths) + 101 * batch)
            bound = needed / rate
            results = []
            one_tile = max(1, 16 // (heads.query // heads.key))
            expected = reference(q, pool, pass_over(pool, spans, one_tile, 1), rule)
            splits_tried = (2,) if tiny else (1, 2, 4) if batch == 64 else (4, 8, 16) if batch == 8 else (16, 32, 64)
            for splits in splits_tried:
                launches = (Launch(4, 3), Launch(4, 5), Launch(4, 2), Launch(8, 3), Launch(2, 3))
                for launch in launches[: 1 if tiny else 2 if name == "0.6B" else None]:
                    meta = pass_over(pool, spans, one_tile, splits)
                    error = error_of(paged_attention(q, *pool.layer(0), meta, rule, launch), expected)
                    seconds = timed(lambda: paged_attention(q, *pool.layer(0), meta, rule, launch))  # noqa: B023
                    results.append((seconds, f"splits {splits} {launch.warps} warps {launch.stages} stages", error))
            results.sort()
            text = "; ".join(f"{what}: {1e6 * seconds:.0f} us" for seconds, what, _ in results[:4])
            say(
                f"decode {name} batch {batch}: bound {1e6 * bound:.0f} us, kernel {100 * bound / results[0][0]:.0f} % of it; {text};"
                f" worst {1e6 * results[-1][0]:.0f} us ({results[-1][1]}); errors to {max(r[2] for r in results):.1e}"
            )
            if batch > 1:
                meta = pass_over(pool, spans, one_tile, 1)
                seconds = timed(lambda: gather_attention(q, *pool.layer(0), meta, rule), calls=1)  # noqa: B023
                say(f"decode {name} batch {batch}: gather {1e6 * seconds:.0f} us")
            del pool


def prefill(tiny: bool) -> None:
    """Many new tokens a sequence, behind many that are held."""
    from cotbench.agents.hf.triton_attention import Launch, paged_attention

    batch, new, held = (1, 20, 70) if tiny else (64, 256, 2048)
    for name, heads in {"tiny": Heads(4, 2, 16)}.items() if tiny else list(HEADS.items())[1:]:
        pool = filled_pool(heads, _dtype(tiny), (held + new + BLOCK) * batch)
        spans = spans_for(pool, [held] * batch, [0] * batch, new)
        rule = AttentionRule(heads.size**-0.5)
        q = torch.randn(batch * new, heads.query, heads.size, dtype=_dtype(tiny), device=DEVICE)
        work = 4 * heads.query * heads.size * batch * new * (held + new / 2)
        group = heads.query // heads.key
        expected = paged_attention(q, *pool.layer(0), pass_over(pool, spans, 16 // group, 1), rule)
        results = []
        for rows in (16, 64, 128):
            for launch in (Launch(8, 3), Launch(4, 3), Launch(4, 5), Launch(8, 5))[: 1 if tiny else None]:
                if (rows == 128 and launch.warps == 4) or (rows == 16 and launch.warps == 8):
                    continue  # Too many registers, or too little work.
                meta = pass_over(pool, spans, rows // group, 1)
                error = error_of(paged_attention(q, *pool.layer(0), meta, rule, launch), expected.double())
                seconds = timed(lambda: paged_attention(q, *pool.layer(0), meta, rule, launch), calls=2, repeats=5)  # noqa: B023
                results.append((seconds, f"rows {rows} {launch.warps} warps {launch.stages} stages", error))
        results.sort()
        text = "; ".join(f"{what}: {1e3 * seconds:.2f} ms" for seconds, what, _ in results[:5])
        say(
            f"prefill {name} {batch} x {new} on {held}: {work / results[0][0] / 1e12:.0f} TFLOP/s; {text}; errors {results[0][2]:.1e}"
        )


def varlen(tiny: bool, rate: float) -> None:
    """torch's varlen_attn over a block table, where this torch has one."""
    from torch.nn.attention.varlen import varlen_attn

    parameters = inspect.signature(varlen_attn).parameters
    say(f"varlen_attn's parameters: {', '.join(parameters)}")
    heads = HEADS["4B, 8B"]
    for batch, new, held in ((2, 1, 300),) if tiny else ((64, 1, 3000), (64, 256, 2048)):
        for page in (64, 256):
            pages = -(-(held + new) // page)
            keys, values = (
                torch.randn(batch * pages, page, heads.key, heads.size, dtype=torch.bfloat16, device=DEVICE) for _ in range(2)
            )
            q = torch.randn(batch * new, heads.query, heads.size, dtype=torch.bfloat16, device=DEVICE)
            table = torch.randperm(batch * pages, device=DEVICE, dtype=torch.int32).view(batch, pages)
            rows = torch.arange(batch + 1, device=DEVICE, dtype=torch.int32) * new
            used = torch.full((batch,), held + new, device=DEVICE, dtype=torch.int32)
            options: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in parameters else {}
            if "block_table" in parameters:
                options |= {"block_table": table, "seqused_k": used}
                k, v, starts = keys, values, None
            else:  # Without paging: the keys of a sequence one after the other, which a cache would have to be copied for.
                k, v = (part.flatten(0, 1)[: batch * (held + new)] for part in (keys, values))
                starts = torch.arange(batch + 1, device=DEVICE, dtype=torch.int32) * (held + new)
                if "enable_gqa" not in parameters:
                    k, v = (part.repeat_interleave(heads.query // heads.key, 1) for part in (k, v))
            if "window_size" in parameters:
                options["window_size"] = (-1, 0)
            else:
                options["is_causal"] = True

            def run() -> Any:
                return varlen_attn(q, k, v, rows, starts, new, held + new, **options)  # noqa: B023

            try:
                seconds = timed(run, calls=5)
            except Exception as error:
                say(
                    f"varlen {batch} x {new} on {held}, pages of {page}: {type(error).__name__}: {str(error).splitlines()[0][:150]}"
                )
                continue
            bound = 2 * 2 * heads.key * heads.size * batch * (held + new) / rate
            say(
                f"varlen {batch} x {new} on {held}, pages of {page}: {1e6 * seconds:.0f} us, {100 * bound / seconds:.0f} % of bandwidth"
            )


def flex(tiny: bool, rate: float) -> None:
    """FlexAttention over physical blocks: the mask translates them."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    heads = HEADS["4B, 8B"]
    for batch, new, held in ((3, 1, 200), (3, 5, 200)) if tiny else ((64, 1, 3000), (64, 256, 2048)):
        pool = filled_pool(heads, torch.bfloat16, (held + new + BLOCK) * batch)
        spans = spans_for(pool, [held] * batch, [0] * batch, new)
        group = heads.query // heads.key
        meta = pass_over(pool, spans, max(1, (16 if new == 1 else 64) // group), 1)
        q = torch.randn(batch * new, heads.query, heads.size, dtype=torch.bfloat16, device=DEVICE)
        rule = AttentionRule(heads.size**-0.5)
        keys, values = pool.layer(0)
        blocks = keys.shape[0] // BLOCK
        pages = -(-(held + new) // BLOCK)
        numbers = torch.tensor([span.cache.blocks[:pages] for span in spans], dtype=torch.int32, device=DEVICE)
        logical = torch.full((batch, blocks), 2**20, dtype=torch.int32, device=DEVICE)
        logical.scatter_(
            1, numbers.long(), torch.arange(pages, dtype=torch.int32, device=DEVICE).expand(batch, -1).contiguous()
        )

        def mask(b: Any, h: Any, row: Any, key: Any) -> Any:
            return logical[b, key // BLOCK] * BLOCK + key % BLOCK <= held + row  # noqa: B023

        q_blocks = -(-new // 128)
        counts = torch.full((batch, 1, q_blocks), pages, dtype=torch.int32, device=DEVICE)
        places = numbers[:, None, None].expand(batch, 1, q_blocks, pages).contiguous()
        block_mask = BlockMask.from_kv_blocks(
            counts, places, BLOCK_SIZE=(128, BLOCK), mask_mod=mask, seq_lengths=(new, keys.shape[0]), compute_q_blocks=False
        )
        attend = torch.compile(flex_attention, dynamic=False) if CUDA else flex_attention
        folded = q.view(batch, new, heads.query, heads.size).transpose(1, 2)
        paged = keys.transpose(0, 1)[None], values.transpose(0, 1)[None]

        def run() -> Any:
            return attend(folded, *paged, block_mask=block_mask, enable_gqa=True)  # noqa: B023

        found = run().transpose(1, 2).reshape(batch * new, heads.query, heads.size)
        expected = gather_attention(q, keys, values, meta, rule) if new == 1 or tiny else found
        seconds = timed(run, calls=2)
        bound = 2 * 2 * heads.key * heads.size * batch * (held + new) / rate
        say(
            f"flex {batch} x {new} on {held}: {1e6 * seconds:.0f} us, {100 * bound / seconds:.0f} % of bandwidth, error"
            f" {error_of(found, expected.double()):.1e}"
        )


def whole_model(name: str, tiny: bool, rate: float, clock: Clock) -> None:
    """A decode step of a whole model: eagerly, by CUDA graph, and with compiled layers in a graph."""
    import transformers

    from cotbench.agents.hf import attention
    from cotbench.agents.hf.batched_forward import open_pool
    from cotbench.agents.hf.pass_runner import PassRunner

    batch, length = (3, 70) if tiny else (64, 2500)
    shape = dict(SHAPES[name])
    if tiny:
        shape |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = transformers.Qwen3Config(
        **shape,
        num_key_value_heads=8,
        head_dim=16 if tiny else 128,
        vocab_size=300 if tiny else 151_936,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )
    dtype = torch.float32 if tiny else torch.bfloat16
    with DEVICE:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    attention.install_attention(model)
    pool = open_pool(model, 1)
    pool.give_back(pool.take(batch * (-(-length // BLOCK) + 8)))
    prefixes = caches(pool, [length] * batch)
    own = [PagedCache(pool) for _ in prefixes]
    weights = sum(parameter.nbytes for parameter in model.parameters())

    def step(runner: PassRunner) -> Any:
        return runner.compute([TokenSpan([7], cache, prefix, 0, [1]) for cache, prefix in zip(own, prefixes, strict=True)])

    def measure(runner: PassRunner, what: str) -> None:
        for _ in range(3):
            step(runner)
        seconds = []
        for _ in range(3 if tiny else 20):
            if CUDA:
                torch.cuda.synchronize()
            begun = time.perf_counter()
            step(runner)
            seconds.append(time.perf_counter() - begun)
        middle = statistics.median(seconds)
        held = batch * (length + own[0].length) * pool.block_bytes // BLOCK
        bound = (weights + held) / rate
        say(
            f"decode step {name}, batch {batch}, {length} keys, {what}: {1e3 * middle:.2f} ms ({runner.eager_reason or 'graphs'}); bound"
            f" {1e3 * bound:.2f} ms (weights {1e3 * weights / rate:.2f}), {100 * bound / middle:.0f} % of bandwidth"
        )
        if CUDA and runner._graphs:
            graph = next(iter(runner._graphs.values())).graph
            alone = timed_replay(graph)
            say(
                f"  the graph alone {1e3 * alone:.2f} ms: {100 * bound / alone:.0f} %; the host {1e3 * (middle - alone):.2f} ms"
            )

    eager = PassRunner(model, pool, graphs=False)
    measure(eager, "eager")
    greedy = step(eager).ids
    for cache in own:
        cache.length -= 1
    graphed = PassRunner(model, pool)
    step(graphed)
    for cache in own:
        cache.length -= 1
    measure_ids = [step(graphed).ids for _ in range(1)][0]
    say(f"  eager and graph agree: {sum(a == b for a, b in zip(greedy, measure_ids, strict=True))} of {batch}")
    measure(graphed, "graph")
    graphed.close()
    if clock.left() < 45:
        return
    attention_forward = torch.compiler.disable(attention.attention_forward)
    transformers.AttentionInterface.register(attention.ATTENTION, attention_forward)
    try:
        for layer in model.model.layers:
            layer.compile(dynamic=False)
        begun = time.monotonic()
        compiled = PassRunner(model, pool)
        step(compiled)
        step(compiled)
        say(f"  compiling the layers took {time.monotonic() - begun:.1f} s")
        measure(compiled, "compiled layers, graph")
    finally:
        transformers.AttentionInterface.register(attention.ATTENTION, attention.attention_forward)


def timed_replay(graph: Any) -> float:
    seconds = []
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit")
    parser.add_argument("--tiny", action="store_true", help="a dry run with tiny sizes")
    parser.add_argument("--only", default="", help="parts, by the beginning of their names, with commas between")
    options = parser.parse_args()
    tiny, clock = options.tiny or not CUDA, Clock(options.seconds)
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if CUDA else "CPU"
    say(f"{name}, torch {torch.__version__}, transformers {__import__('transformers').__version__}")
    rate = bandwidth(2**20 if tiny else 2**32)
    say(f"a copy on the device: {rate / 1e12:.2f} TB/s")
    parts: list[tuple[str, float, Callable[[], None]]] = [
        ("check", 10, lambda: check_kernel(tiny)),
        ("model 0.6B", 15, lambda: whole_model("0.6B", tiny, rate, replace_clock(clock, 70))),
        ("decode", 15, lambda: decode(tiny, rate)),
        ("varlen", 5, lambda: varlen(tiny, rate)),
        ("model 4B", 20, lambda: whole_model("4B", tiny, rate, clock)),
        ("prefill", 15, lambda: prefill(tiny)),
        ("flex", 30, lambda: flex(tiny, rate)),
    ]
    with torch.inference_mode():
        for title, needs, run in parts:
            if not options.only or title.startswith(tuple(options.only.split(","))):
                part(clock, title, needs, run)
                if CUDA:
                    torch.cuda.empty_cache()
    say("done")


def replace_clock(clock: Clock, less: float) -> Clock:
    """A clock that keeps time for the parts that follow."""
    return Clock(clock.seconds - less)


if __name__ == "__main__":
    main()
