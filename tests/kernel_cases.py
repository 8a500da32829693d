"""The attention kernel against float64, on a GPU or, as a program with TRITON_INTERPRET=1, in Triton's interpreter."""

from __future__ import annotations

from typing import Any, NamedTuple

from cotbench.agents.hf.attention import TokenSpan


class KernelCase(NamedTuple):
    """Sizes and settings of a layer."""

    size: int
    heads: int
    key_heads: int
    softcap: float | None = None
    window: int | None = None

    def __str__(self) -> str:
        return f"{self.heads}x{self.size}over{self.key_heads}-cap{self.softcap}-window{self.window}"


CASES = (
    KernelCase(64, 6, 2),
    KernelCase(80, 4, 4, softcap=30.0),
    KernelCase(128, 8, 2, window=100),
    KernelCase(256, 4, 1),
    KernelCase(16, 4, 2, softcap=20.0, window=70),
)
BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
"""Relative errors at most."""

INTERPRETED = ("float32", "float16")
"""Triton's interpreter multiplies bfloat16 as if it were integers."""


def check_kernel(device: Any, dtype: str, case: KernelCase) -> None:
    """Write keys to a pool whose other slots hold NaN, compute passes with and without splits, and compare with float64."""
    import torch

    from cotbench.agents.hf.batched_attention import AttentionRule, gather_attention
    from cotbench.agents.hf.batched_pass import BatchedPass, PassShape, count_tiles, pack_pass, tile_rows_for
    from cotbench.agents.hf.block_pool import BlockPool, LayerShape, PagedCache
    from cotbench.agents.hf.triton_attention import paged_attention, write_blocks

    size, heads, key_heads = case.size, case.heads, case.key_heads
    pool = BlockPool({0: LayerShape(key_heads, size, size)}, getattr(torch, dtype), device, 10**7)
    pool.give_back(pool.take(10))
    for part in pool.layer(0):
        part.fill_(float("nan"))  # As numbers of another sequence that overflowed, in blocks that are free again.
    torch.manual_seed(size)
    lane, short, own, other = (PagedCache(pool) for _ in range(4))
    rule = AttentionRule(size**-0.5, case.softcap, case.window)
    passes = (
        [TokenSpan([1] * 150, lane), TokenSpan([1] * 9, own, lane, 150), TokenSpan([1] * 70, short)],
        [TokenSpan([1], own, lane), TokenSpan([1], short), TokenSpan([1] * 3, other, lane)],
    )
    for spans, splits in zip(passes, (1, 4), strict=True):
        tile_rows = tile_rows_for(max(len(span.ids) for span in spans), heads // key_heads, pool.dtype.itemsize)
        count = sum(len(span.ids) for span in spans)
        shape = PassShape(count + 3, 1, count_tiles(spans, tile_rows) + 2, tile_rows)
        packed, longest = pack_pass(spans, shape)
        meta = BatchedPass(pool, shape, torch.from_numpy(packed).to(device), longest, splits)
        rows = torch.randn(count + 3, heads, size, device=device).to(pool.dtype)
        keys, values = (torch.randn(key_heads, count + 3, size, device=device).to(pool.dtype).transpose(0, 1) for _ in range(2))
        layer = pool.layer(0)
        write_blocks(keys, values, layer, meta.slots)
        assert all(
            torch.equal(part[meta.slots[:count].long()], new[:count]) for part, new in zip(layer, (keys, values), strict=True)
        )
        finite = [torch.nan_to_num(part.double(), nan=0.0) for part in layer]
        expected = gather_attention(rows.double(), *finite, meta, rule)[:count]
        found = paged_attention(rows, *layer, meta, rule)[:count].double()
        error = float((found - expected).norm() / expected.norm())
        assert error <= BOUNDS[dtype], f"{dtype} {case}: relative error {error:.1e}"
        for span in spans:
            span.cache.length += len(span.ids)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    for some_dtype in INTERPRETED:
        for some_case in CASES:
            check_kernel(torch.device("cpu"), some_dtype, some_case)
            print(f"{some_dtype} {some_case}: equal", flush=True)
