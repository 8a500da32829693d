"""What a run of thousands of episodes takes to resume, report and compare: `pytest -s tests/benchmarks/bench_large_run.py`.

Runs of 1,000 and of 5,000 episodes of 50 steps (the latter has 190 MB), of which ten are missing when it is resumed. Beside the
times stand the highest memory of each process, and by how much each more episode raises it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.large_runs import multiplied, play_few

SIZES = (1_000, 5_000)
HELD = 12_000
"""Bytes that an episode may take in memory: its row, the path of its line, and its column in the table of resamples."""

_lines: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    yield
    print("\n" + "\n".join(_lines))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    root = tmp_path_factory.mktemp("large")
    few = play_few(root / "few")
    return {
        "missing ten": [multiplied(few, root / f"missing{size}", size // 2, missing=10) for size in SIZES],
        "whole": [multiplied(few, root / f"whole{size}", size // 2) for size in SIZES],
    }


def _measured(*words: str) -> tuple[float, int]:
    """Return seconds and the highest memory in bytes of a command."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-P", "-m", "cotbench", *words], stdout=subprocess.DEVNULL, stderr=-3)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


@pytest.mark.parametrize("command", ["resume", "report", "compare"])
def test_time_and_memory(runs: dict[str, list[Path]], tmp_path: Path, command: str) -> None:
    words = {
        "resume": lambda place: ("run", "--resume", str(runs["missing ten"][place])),
        "report": lambda place: ("report", str(runs["whole"][place]), "--out", str(tmp_path / str(place))),
        "compare": lambda place: ("compare", str(runs["whole"][place]), str(runs["whole"][place])),
    }[command]
    (few_seconds, few_bytes), (seconds, most_bytes) = (_measured(*words(place)) for place in range(len(SIZES)))
    grown = (most_bytes - few_bytes) / (SIZES[1] - SIZES[0])
    _lines.append(
        f"{command:8} {SIZES[0]:,}: {few_seconds:5.1f} s {few_bytes / 1e6:4.0f} MB   {SIZES[1]:,}: {seconds:5.1f} s "
        f"{most_bytes / 1e6:4.0f} MB   {grown:6.0f} bytes an episode"
    )
    assert grown < HELD
    assert seconds < 1.5 * few_seconds * SIZES[1] / SIZES[0]
