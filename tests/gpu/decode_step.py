"""Times a decoding step of whole models with random weights: eagerly, as a CUDA graph, as a graph of compiled layers; each
against the time in which weights and keys are read once.

    python tests/gpu/decode_step.py --seconds 60 --shapes 0.6B,4B [--out FILE]
    python tests/gpu/decode_step.py --tiny          # a dry run on a CPU
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch

from cotbench.agents.hf.attention import TokenSpan, install_attention
from cotbench.agents.hf.batched_forward import open_pool
from cotbench.agents.hf.block_pool import PagedCache
from cotbench.agents.hf.kv_cache import BLOCK
from cotbench.agents.hf.pass_runner import PassRunner
from tests.gpu.figure_file import FigureFile, card
from tests.gpu.timing import CUDA, DEVICE, Clock, bandwidth, caches, part, say, timed_replay

SHAPES: dict[str, dict[str, int]] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
"""Qwen3's."""


def build(shape: str, tiny: bool) -> Any:
    """Return a model with random weights, with our attention."""
    import transformers

    sizes = SHAPES[shape] | ({"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2} if tiny else {})
    config = transformers.Qwen3Config(
        **sizes,
        num_key_value_heads=8,
        head_dim=16 if tiny else 128,
        vocab_size=300 if tiny else 151_936,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )
    with DEVICE:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32 if tiny else torch.bfloat16)
    install_attention(model.eval())
    return model


def decode(figures: FigureFile, shape: str, tiny: bool, rate: float, batch: int, length: int) -> None:
    """Print the times of a step of so many continuations, each of a prompt of so many tokens."""
    model = build(shape, tiny)
    pool = open_pool(model, 1)
    pool.give_back(pool.take(batch * (-(-length // BLOCK) + 8)))
    prompts = caches(pool, [length] * batch)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    expected: list[int] = []
    for what, options in (
        ("eager", {"graphs": False}),
        ("graph", {}),
        ("graph of compiled layers", {"compile_after": 0}),
    ):
        runner = PassRunner(model, pool, **options)  # type: ignore[arg-type]
        own = [PagedCache(pool) for _ in prompts]

        def step() -> list[int]:
            spans = [TokenSpan([7 + n], cache, prompts[n], 0, [1]) for n, cache in enumerate(own)]  # noqa: B023
            return runner.compute(spans).ids  # noqa: B023

        begun = time.monotonic()
        first = [step() for _ in range(3)]
        warm = time.monotonic() - begun
        expected = expected or [token for ids in first for token in ids]
        same = sum(one == other for one, other in zip(expected, (token for ids in first for token in ids), strict=True))
        seconds = []
        for _ in range(3 if tiny else 30):
            begun = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begun)
        median = statistics.median(seconds)
        bound = (weights + batch * (length + 20) * pool.block_bytes // BLOCK) / rate
        figures.put(f"step of {shape}, {batch} x {length} keys, {what}", 1e3 * median, "ms", bound_ms=1e3 * bound)
        line = (
            f"step of {shape}, {batch} x {length} keys, {what} ({runner.eager_reason or 'captured'}): {1e3 * median:.2f} ms, "
        )
        line += f"{100 * bound / median:.0f} % of the bandwidth ({1e3 * bound:.2f} ms); warm in {warm:.1f} s; "
        line += f"{same} of {len(expected)} tokens as eagerly"
        if CUDA and runner._graphs:
            alone = timed_replay(next(iter(runner._graphs.values())).graph)
            figures.put(
                f"step of {shape}, {batch} x {length} keys, {what}, the graph alone", 1e3 * alone, "ms", bound_ms=1e3 * bound
            )
            line += f"; the graph alone {1e3 * alone:.2f} ms ({100 * bound / alone:.0f} %)"
        say(line)
        runner.close()
        for cache in own:
            cache.free()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit")
    parser.add_argument("--shapes", default="4B,0.6B", help="with commas between")
    parser.add_argument("--tiny", action="store_true", help="a dry run with tiny sizes")
    parser.add_argument("--out", type=Path, help="file that the figures are appended to")
    options = parser.parse_args()
    figures = FigureFile(options.out, card())
    tiny, clock = options.tiny or not CUDA, Clock(options.seconds)
    torch.manual_seed(0)
    rate = bandwidth(tiny)
    say(f"{figures.card}: a copy on the device {rate / 1e12:.2f} TB/s")
    for shape in options.shapes.split(","):
        for batch, length in ((3, 70),) if tiny else ((64, 2500), (128, 1500), (8, 2500)):
            part(clock, f"{shape} {batch}", 8, lambda: decode(figures, shape, tiny, rate, batch, length))  # noqa: B023
            if CUDA:
                torch.cuda.empty_cache()
    say("done")


if __name__ == "__main__":
    main()
