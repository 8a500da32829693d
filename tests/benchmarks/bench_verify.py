"""How long it takes to verify 100 ALFWorld episodes: `pytest -s tests/benchmarks/bench_verify.py`.

Fifty games in both modes, or a hundred in one, which loads twice as many; played by the expert to the end, or at random for all
50 steps. Real games where `$ALFWORLD_DATA` or ../shared has them. The budget is 5 s on one core; beside it stands how long the
agent took to play them, and what two processes gain.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.verification.verify import verify_bundle
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import SHARED

BUDGET, ROUNDS = 5.0, 3
GAMES: dict[str, dict[str, Any]] = {
    "real": {"env": "alfworld", "scheme": "official", "split": "valid_seen"},
    "generated": {"env": "alfworld-gen", "split": "id"},
}

_lines: list[str] = []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The folder of the real games, or None."""
    if "ALFWORLD_DATA" in os.environ:
        return Path(os.environ["ALFWORLD_DATA"])
    restore = SHARED / "alfworld" / "restore.py"
    if not restore.is_file():
        return None
    root = tmp_path_factory.mktemp("games")
    subprocess.run([sys.executable, str(restore), str(root), "--split", "valid_seen"], check=True, capture_output=True)
    return root


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    yield
    print("\n" + "\n".join(_lines))


CASES = [(games, agent, mode, 1) for games in GAMES for agent in ("expert", "random") for mode in ("both", "prompt")]
CASES += [(games, "random", "both", 2) for games in GAMES]


@pytest.mark.parametrize(("games", "agent", "mode", "jobs"), CASES)
def test_a_hundred_episodes(
    benchmark: Any, data: Path | None, tmp_path: Path, games: str, agent: str, mode: str, jobs: int
) -> None:
    if games == "real" and data is None:
        pytest.skip("the real games are not here")
    folder = data if games == "real" else None
    config = RunConfig(**{"agent": agent, "mode": mode, "episodes": 50 if mode == "both" else 100, **GAMES[games]})
    begun = time.process_time()
    played = run(config, out=tmp_path / "run", data=folder)
    playing = time.process_time() - begun
    bundle = Bundle.of(Details(name="Mine"), played.manifest, played.records)
    seconds: list[float] = []

    def verified() -> None:
        begun = time.process_time()
        assert verify_bundle(bundle, jobs=jobs, data=folder).difference is None
        seconds.append(time.process_time() - begun)

    benchmark.pedantic(verified, rounds=ROUNDS, warmup_rounds=1)
    steps = sum(episode.steps for episode in bundle.episodes)
    what = f"{games} games, {agent}, mode {mode}, {len(bundle.episodes)} episodes, {steps} steps"
    if benchmark.stats is not None:
        what += f": {statistics.median(benchmark.stats.stats.data):.2f} s by the clock"
    if jobs == 1:
        # Of one core, whatever else the machine does.
        used = statistics.median(seconds)
        what += f", {used:.2f} s of the processor ({used / playing:.2f} of playing them, {used / BUDGET:.0%} of the budget)"
        assert used < BUDGET
    _lines.append(what + (f", {jobs} processes" if jobs > 1 else ""))
