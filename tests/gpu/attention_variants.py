"""Times ways to compute attention over block tables, each against the time in which the keys are read once.

    python tests/gpu/attention_variants.py --seconds 120 [--out FILE]
    python tests/gpu/attention_variants.py --tiny          # a dry run on a CPU

Each variant is compared with the same attention in float64 (over gathered blocks; of varlen_attn, which has pages of its own,
some sequences one by one); one that differs is printed as WRONG. A figure is printed as soon as it is known and appended to
--out as JSON, with the card's name; a part that fails costs itself alone. Times are medians, replayed as CUDA graphs, so that
launching does not count. Decoding goes through as many layers in turn as no cache holds, as a model's decoding does.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch

from cotbench.agents.hf.attention import TokenSpan
from cotbench.agents.hf.batched_attention import AttentionRule, gather_attention
from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, count_tiles, pack_pass
from cotbench.agents.hf.block_pool import BlockPool, LayerShape, PagedCache
from cotbench.agents.hf.kv_cache import BLOCK
from tests.gpu.figure_file import FigureFile, card
from tests.gpu.timing import CUDA, DEVICE, Clock, bandwidth, caches, cold_copies, part, say, timed


@dataclass(frozen=True)
class Heads:
    """The heads of a model's layer."""

    query: int
    key: int
    size: int


HEADS = {"0.6B": Heads(16, 8, 128), "4B, 8B": Heads(32, 8, 128)}


def filled_pool(heads: Heads, dtype: torch.dtype, tokens: int, layers: int = 1) -> BlockPool:
    pool = BlockPool(dict.fromkeys(range(layers), LayerShape(heads.key, heads.size, heads.size)), dtype, DEVICE, 1)
    pool.give_back(pool.take(-(-tokens // BLOCK) + 256))
    for layer in range(layers):
        for tensor in pool.layer(layer):
            tensor.normal_()
    return pool


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


BOUND = 1e-2
"""The relative error up to which an answer in bfloat16 is right."""


def verdict(error: float) -> str:
    return "" if error < BOUND else ", WRONG"


def plain_attention(query: Any, keys: Any, values: Any) -> Any:
    """Return one sequence's attention in float64.

    Args:
        query: of its last tokens, (new, heads, size).
        keys, values: of all its tokens, (tokens, key heads, size).
    """
    group, held = query.shape[1] // keys.shape[1], keys.shape[0] - query.shape[0]
    keys, values = (some.double().repeat_interleave(group, 1).transpose(0, 1) for some in (keys, values))
    scores = query.double().transpose(0, 1) @ keys.transpose(1, 2) * query.shape[2] ** -0.5
    unseen = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(held + 1)
    return (scores.masked_fill(unseen, float("-inf")).softmax(-1) @ values).transpose(0, 1)


def reference(query: Any, pool: BlockPool, meta: BatchedPass, rule: AttentionRule) -> Any:
    keys, values = pool.layer(0)
    return gather_attention(query.double(), keys.double(), values.double(), meta, rule)


def _dtype(tiny: bool) -> Any:
    return torch.float32 if tiny else torch.bfloat16  # Triton's interpreter has no bfloat16.


def check_kernel(figures: FigureFile, tiny: bool) -> None:
    """The kernel against float64, for number formats, head sizes, windows, softcaps, splits."""
    from cotbench.agents.hf.triton_attention import paged_attention

    worst: dict[str, float] = {}
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, BOUND))[: 1 if tiny else None]:
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
                            f"  WRONG {name} new {new} splits {splits} softcap {softcap} window {window} rows {rows}:",
                            f"{error:.2e}",
                        )
                for span in spans:
                    span.cache.free()
                    if isinstance(span.prefix, PagedCache):
                        span.prefix.free()
    for name, error in worst.items():
        figures.put(f"kernel against float64, {name}", error, "worst relative error")
    say("kernel against float64, worst relative errors:", ", ".join(f"{name} {error:.1e}" for name, error in worst.items()))


def decode(figures: FigureFile, tiny: bool, rate: float) -> None:
    """One token a sequence."""
    from cotbench.agents.hf.triton_attention import Launch, paged_attention

    for name, heads in {"tiny": Heads(4, 2, 16)}.items() if tiny else HEADS.items():
        for batch in (2,) if tiny else (64, 8, 1):
            lengths = [2000 + 2000 * n // batch for n in range(batch)] if not tiny else [100, 64]
            needed = 2 * heads.key * heads.size * 2 * (sum(lengths) + 101 * batch)
            bound = needed / rate
            layers = range(2 if tiny else cold_copies(needed))
            pool = filled_pool(heads, _dtype(tiny), sum(lengths) + 200 * batch, len(layers))
            spans = spans_for(pool, lengths, [100] * batch, 1)
            rule = AttentionRule(heads.size**-0.5)
            q = torch.randn(batch, heads.query, heads.size, dtype=_dtype(tiny), device=DEVICE)
            results = []
            one_tile = max(1, 16 // (heads.query // heads.key))
            expected = reference(q, pool, pass_over(pool, spans, one_tile, 1), rule)
            splits_tried = (2,) if tiny else (1, 2, 4) if batch == 64 else (4, 8, 16) if batch == 8 else (16, 32, 64)
            for splits in splits_tried:
                launches = (Launch(4, 3), Launch(4, 5), Launch(4, 2), Launch(8, 3), Launch(2, 3))
                for launch in launches[: 1 if tiny else 2 if name == "0.6B" else None]:
                    meta = pass_over(pool, spans, one_tile, splits)
                    error = error_of(paged_attention(q, *pool.layer(0), meta, rule, launch), expected)
                    seconds = timed([partial(paged_attention, q, *pool.layer(one), meta, rule, launch) for one in layers])
                    results.append((seconds, f"splits {splits} {launch.warps} warps {launch.stages} stages", error))
            results.sort()
            text = "; ".join(f"{what}: {1e6 * seconds:.0f} us" for seconds, what, _ in results[:4])
            worst = max(error for _, _, error in results)
            figures.put(
                f"attention, decode {name}, batch {batch}, kernel", 1e6 * results[0][0], "us", bound_us=1e6 * bound, error=worst
            )
            say(
                f"decode {name} batch {batch}: bound {1e6 * bound:.0f} us, kernel {100 * bound / results[0][0]:.0f} % of it;"
                f" {text}; worst {1e6 * results[-1][0]:.0f} us ({results[-1][1]}); errors to {worst:.1e}{verdict(worst)}"
            )
            if batch > 1:
                meta = pass_over(pool, spans, one_tile, 1)
                seconds = timed([partial(gather_attention, q, *pool.layer(one), meta, rule) for one in layers], calls=1)
                figures.put(f"attention, decode {name}, batch {batch}, gather", 1e6 * seconds, "us", bound_us=1e6 * bound)
                say(f"decode {name} batch {batch}: gather {1e6 * seconds:.0f} us")


def prefill(figures: FigureFile, tiny: bool) -> None:
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
        expected = reference(q, pool, pass_over(pool, spans, 64 // group, 1), rule)
        results = []
        for rows in (16, 64, 128):
            for launch in (Launch(8, 3), Launch(4, 3), Launch(4, 5), Launch(8, 5))[: 1 if tiny else None]:
                if (rows == 128 and launch.warps == 4) or (rows == 16 and launch.warps == 8):
                    continue  # Too many registers, or too little work.
                meta = pass_over(pool, spans, rows // group, 1)
                error = error_of(paged_attention(q, *pool.layer(0), meta, rule, launch), expected)
                seconds = timed(lambda: paged_attention(q, *pool.layer(0), meta, rule, launch), calls=2, repeats=5)  # noqa: B023
                results.append((seconds, f"rows {rows} {launch.warps} warps {launch.stages} stages", error))
        results.sort()
        text = "; ".join(f"{what}: {1e3 * seconds:.2f} ms" for seconds, what, _ in results[:5])
        worst = max(error for _, _, error in results)
        figures.put(
            f"attention, prefill {name}, {batch} x {new} on {held}, kernel",
            1e3 * results[0][0],
            "ms",
            tflops=work / results[0][0] / 1e12,
            error=worst,
        )
        say(
            f"prefill {name} {batch} x {new} on {held}: {work / results[0][0] / 1e12:.0f} TFLOP/s; {text};"
            f" errors to {worst:.1e}{verdict(worst)}"
        )


def varlen(figures: FigureFile, tiny: bool, rate: float) -> None:
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

            def error_at(sequence: int) -> float:
                mine = slice(sequence * new, (sequence + 1) * new)  # noqa: B023
                if "block_table" in parameters:
                    pair = (some[table[sequence].long()].flatten(0, 1)[: held + new] for some in (keys, values))  # noqa: B023
                else:
                    pair = (some[sequence * (held + new) : (sequence + 1) * (held + new)] for some in (k, v))  # noqa: B023
                return error_of(found[mine], plain_attention(q[mine], *pair))  # noqa: B023

            try:
                found = run()
                error = max(error_at(0), error_at(batch - 1))
                seconds = timed(run, calls=5)
            except Exception as failure:
                say(
                    f"varlen {batch} x {new} on {held}, pages of {page}: {type(failure).__name__}:",
                    str(failure).splitlines()[0][:150],
                )
                continue
            bound = 2 * 2 * heads.key * heads.size * batch * (held + new) / rate
            title = f"attention, {batch} x {new} on {held}, varlen, pages of {page}"
            figures.put(title, 1e6 * seconds, "us", bound_us=1e6 * bound, error=error, paged="block_table" in parameters)
            say(
                f"varlen {batch} x {new} on {held}, pages of {page}: {1e6 * seconds:.0f} us,"
                f" {100 * bound / seconds:.0f} % of bandwidth, error {error:.1e}{verdict(error)}"
            )


def flex(figures: FigureFile, tiny: bool, rate: float) -> None:
    """FlexAttention over physical blocks: the mask translates them."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    heads = Heads(4, 2, 16) if tiny else HEADS["4B, 8B"]
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
        error = error_of(found, reference(q, pool, meta, rule))
        seconds = timed(run, calls=2)
        bound = 2 * 2 * heads.key * heads.size * batch * (held + new) / rate
        figures.put(f"attention, {batch} x {new} on {held}, flex", 1e6 * seconds, "us", bound_us=1e6 * bound, error=error)
        say(
            f"flex {batch} x {new} on {held}: {1e6 * seconds:.0f} us, {100 * bound / seconds:.0f} % of bandwidth, error"
            f" {error:.1e}{verdict(error)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit")
    parser.add_argument("--tiny", action="store_true", help="a dry run with tiny sizes")
    parser.add_argument("--only", default="", help="parts, by the beginning of their names, with commas between")
    parser.add_argument("--out", type=Path, help="file that the figures are appended to")
    options = parser.parse_args()
    figures = FigureFile(options.out, card())
    tiny, clock = options.tiny or not CUDA, Clock(options.seconds)
    torch.manual_seed(0)
    say(f"{figures.card}, torch {torch.__version__}, transformers {__import__('transformers').__version__}")
    rate = bandwidth(tiny)
    say(f"a copy on the device: {rate / 1e12:.2f} TB/s")
    figures.put("copy on the device", rate / 1e12, "TB/s", torch=torch.__version__)
    parts: list[tuple[str, float, Callable[[], None]]] = [
        ("check", 10, lambda: check_kernel(figures, tiny)),
        ("decode", 15, lambda: decode(figures, tiny, rate)),
        ("varlen", 5, lambda: varlen(figures, tiny, rate)),
        ("prefill", 15, lambda: prefill(figures, tiny)),
        ("flex", 30, lambda: flex(figures, tiny, rate)),
    ]
    with torch.inference_mode():
        for title, needs, run in parts:
            if not options.only or title.startswith(tuple(options.only.split(","))):
                part(clock, title, needs, run)
                if CUDA:
                    torch.cuda.empty_cache()
    say("done")


if __name__ == "__main__":
    main()
