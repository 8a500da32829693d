"""The attention kernel without a GPU: Triton's interpreter computes with it, and its compiler builds it for cards."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf
from tests.kernel_cases import CASES, INTERPRETED

pytestmark = [
    needs_hf,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: pip install -e '.[kernel]'"),
]

ROOT = Path(__file__).parents[4]
CARDS: dict[int | str, int] = {86: 99, 90: 227, 100: 227, 120: 99, "gfx90a": 64}
"""KiB of shared memory that a program can have, by architecture: RTX 3090 (and 4090), H100, B200, RTX 5090, and
AMD's MI250."""


def test_the_interpreter_computes_what_float64_does() -> None:
    # The checkout comes last: it must not hide the installed package.
    program = f"import runpy, sys; sys.path.append({str(ROOT)!r}); runpy.run_module('tests.kernel_cases', run_name='__main__')"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("equal") == len(INTERPRETED) * len(CASES)


@pytest.mark.parametrize("architecture", CARDS)
@pytest.mark.parametrize(
    "number_format, size, group, longest",
    [
        ("bf16", 64, 3, 1),
        ("bf16", 64, 3, 300),
        ("bf16", 128, 4, 1),
        ("bf16", 128, 4, 300),
        ("bf16", 256, 6, 1),
        ("bf16", 256, 6, 300),
        ("fp32", 128, 8, 300),
    ],
)
def test_it_compiles_for_a_card_and_fits_there(
    architecture: int | str,
    number_format: str,
    size: int,
    group: int,
    longest: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cotbench.agents.hf.batched_pass import tile_rows_for
    from cotbench.agents.hf.triton_attention import Card, default_launch, shared_bytes

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    itemsize = 2 if number_format == "bf16" else 4
    padded_group = 1 << (group - 1).bit_length()
    rows = max(16, (1 << (tile_rows_for(longest, group, itemsize) - 1).bit_length()) * padded_group)
    assert rows in (16, 64)
    card = Card(CARDS[architecture] * 1024, warp_groups=architecture in (90, 100))
    launch = default_launch(rows, size, itemsize, card)
    needed = _compiled_shared_bytes(architecture, number_format, size, group, rows, launch)
    assert needed <= card.shared_bytes
    if isinstance(architecture, int):
        assert needed <= shared_bytes(rows, size, itemsize, launch.stages, card) <= card.shared_bytes


def _compiled_shared_bytes(architecture: int | str, number_format: str, size: int, group: int, rows: int, launch: Any) -> int:
    """Compile the kernel for a card that need not be there; return the shared memory that it takes, in bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from cotbench.agents.hf import triton_attention

    constants = {
        "GROUP": group,
        "GROUP_PADDED": 1 << (group - 1).bit_length(),
        "ROWS": rows,
        **dict.fromkeys(("KEY_SIZE", "KEY_PADDED", "VALUE_SIZE", "VALUE_PADDED"), size),
        "BLOCK_SIZE": triton_attention.BLOCK,
        "SPLIT": False,
        "SOFTCAP": True,
        "WINDOW": True,
    }
    kernel = triton_attention._attend_tile
    numbers, indices = ("query", "keys", "values", "out", "log_sums"), ("tiles", "table")
    types = {
        **dict.fromkeys(kernel.arg_names, "i32"),
        **dict.fromkeys(numbers, f"*{number_format}"),
        **dict.fromkeys(indices, "*i32"),
        **dict.fromkeys(("scale", "softcap"), "fp32"),
        **dict.fromkeys(constants, "constexpr"),
    }
    # As at a launch: pointers and strides are multiples of 16.
    aligned = [place for place, name in enumerate(kernel.arg_names) if name in numbers or name.endswith("_stride")]
    source = ASTSource(kernel, types, constants, {(place,): [["tt.divisibility", 16]] for place in aligned})
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    wavefront = 64 if str(architecture).startswith("gfx9") else 32
    target = GPUTarget("cuda" if isinstance(architecture, int) else "hip", architecture, wavefront)
    return int(triton.compile(source, target=target, options=options).metadata.shared)
