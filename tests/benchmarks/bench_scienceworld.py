"""What our environment adds to ScienceWorld's engine: `pytest -s tests/benchmarks/bench_scienceworld.py`.

The same plan is played in turns on one Java process: through the environment, and with the bare calls that a step needs
(`step`, `getScore`, `getCompleted`). Upstream's own wrapper, which computes the valid actions at every step, stands beside.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from cotbench.envs.scienceworld.env import ScienceWorldEnv
from tests.conftest import needs_scienceworld

pytestmark = needs_scienceworld

TASK, VARIATION, ROUNDS = "find-plant", 255, 30
PLAN = ["look around", "inventory", "open door to kitchen", "go kitchen", "look around", "open cupboard", "examine sink"] * 4


def _through_env(env: ScienceWorldEnv) -> float:
    env.reset(options={"task": f"scienceworld/{TASK}/{VARIATION}"})
    start = time.perf_counter()
    for action in PLAN:
        env.step(action)
    return time.perf_counter() - start


def _bare(simulator: Any) -> float:
    simulator.load(TASK, VARIATION, "", False)
    simulator.reset()
    simulator.step("look around")
    start = time.perf_counter()
    for action in PLAN:
        str(simulator.step(action))
        float(simulator.getScore())
        bool(simulator.getCompleted())
    return time.perf_counter() - start


def _wrapped(upstream: Any) -> float:
    upstream.load(TASK, VARIATION, "", generateGoldPath=False)
    upstream.reset()
    start = time.perf_counter()
    for action in PLAN:
        upstream.step(action)
    return time.perf_counter() - start


def test_step(benchmark: Any) -> None:
    import scienceworld

    env, upstream = ScienceWorldEnv(max_steps=1000), scienceworld.ScienceWorldEnv()
    try:
        _through_env(env)
        simulator = env._server._simulator
        for _ in range(5):  # Java compiles what it runs often.
            _through_env(env)
            _bare(simulator)
            _wrapped(upstream)
        times: dict[str, list[float]] = {"env": [], "bare": [], "wrapper": []}

        def both() -> None:
            # In turns: whichever is first meets a Java that has just been collecting.
            first = len(times["env"]) % 2 == 0
            if first:
                times["env"].append(_through_env(env))
            times["bare"].append(_bare(simulator))
            if not first:
                times["env"].append(_through_env(env))
            times["wrapper"].append(_wrapped(upstream))

        benchmark.pedantic(both, rounds=ROUNDS, iterations=1)
    finally:
        env.close()
        upstream.close()
    medians = {name: 1000 * statistics.median(some) / len(PLAN) for name, some in times.items()}
    ratios = sorted(ours / bare for ours, bare in zip(times["env"], times["bare"], strict=True))
    print(
        f"\nstep: env {medians['env']:.2f} ms, bare engine {medians['bare']:.2f} ms, "
        f"upstream's wrapper {medians['wrapper']:.2f} ms; "
        f"env / bare: medians {medians['env'] / medians['bare']:.3f}, median of pairs {statistics.median(ratios):.3f}"
    )
