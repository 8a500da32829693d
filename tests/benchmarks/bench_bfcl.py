"""A BFCL episode beside upstream's executor: `pytest -s tests/benchmarks/bench_bfcl.py`.

Both sides execute the ground truths of the same conversations and judge them, inside a running process (start-up excluded).
Ours: reset, one response a turn, the end of each turn, through the environment and its worker process. Upstream's, from the
wheel: its inference side executes the calls, then its evaluation executes them and the ground truth again
(`bfcl_upstream.py`). Rounds of both alternate.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cotbench.envs import wheels
from cotbench.envs.bfcl import data
from cotbench.envs.bfcl.env import BFCLEnv
from cotbench.envs.bfcl.expert import Expert
from tests.conftest import needs_bfcl

pytestmark = needs_bfcl

EPISODES, ROUNDS = 100, 9
REFERENCE = Path(__file__).resolve().parents[1] / "reference" / "bfcl_upstream.py"


def _responses(task: str) -> list[str]:
    expert, said = Expert(task, "turn"), []
    for _ in data.turns(task):
        action = expert.next_action() or "[]"
        said += [action, "[]"] if action != "[]" else ["[]"]
        expert.turn_ended(True)
    return said


def test_episode(benchmark: Any) -> None:
    episodes = [(task, _responses(task)) for task in data.ids("multi_turn_base")[:EPISODES]]
    lines = [json.dumps({"task": task.removeprefix(data.PREFIX), "responses": said}) + "\n" for task, said in episodes]
    upstream = subprocess.Popen(
        [sys.executable, str(REFERENCE), str(wheels.fetch("bfcl"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TZ": "UTC"},
    )
    env = BFCLEnv()

    def theirs() -> float:
        assert upstream.stdin is not None and upstream.stdout is not None
        start = time.perf_counter()
        for line in lines:
            upstream.stdin.write(line)
            upstream.stdin.flush()
            assert json.loads(upstream.stdout.readline())["valid"]
        return time.perf_counter() - start

    def ours() -> float:
        start = time.perf_counter()
        for task, said in episodes:
            env.reset(options={"task": task})
            for text in said:
                *_, info = env.step(text)
            assert info["success"]
        return time.perf_counter() - start

    times: dict[str, list[float]] = {"ours": [], "upstream": []}
    try:
        ours()
        theirs()

        def both() -> None:
            times["ours"].append(ours())
            times["upstream"].append(theirs())

        benchmark.pedantic(both, rounds=ROUNDS, iterations=1)
    finally:
        env.close()
        upstream.kill()
        upstream.wait()
    medians = {name: 1000 * statistics.median(some) / EPISODES for name, some in times.items()}
    print(
        f"\nepisode: ours {medians['ours']:.2f} ms, upstream {medians['upstream']:.2f} ms, "
        f"ratio ours / upstream {medians['ours'] / medians['upstream']:.2f}"
    )
