"""ALFWorld's engines beside each other: `pytest tests/benchmarks/bench_alfworld.py`.

Each measure is taken on both engines in one run, on the same games, and the last lines print the ratios. Real games where
`$ALFWORLD_DATA` or ../shared has them, else generated ones.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cotbench.envs.alfworld.engine import Engine
from cotbench.envs.alfworld.game import Game, read_game
from cotbench.envs.alfworld.generator import KINDS, generate
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.textworld_engine import TextWorldEngine
from tests.conftest import SHARED, needs_stock_engine

pytestmark = needs_stock_engine

ENGINES: dict[str, Callable[[Game], Engine]] = {"native": NativeEngine, "stock": TextWorldEngine}
ROUNDS = {"native": 100, "stock": 5}
STEPS = 20

_medians: dict[str, dict[str, float]] = {}


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> list[Game]:
    """Five games of different types."""
    root = Path(os.environ["ALFWORLD_DATA"]) if "ALFWORLD_DATA" in os.environ else None
    if root is None and (SHARED / "alfworld" / "restore.py").is_file():
        import subprocess
        import sys

        root = tmp_path_factory.mktemp("games")
        restore = [sys.executable, str(SHARED / "alfworld" / "restore.py"), str(root), "--split", "valid_seen"]
        subprocess.run(restore, check=True, capture_output=True)
    if root is None:
        return [generate(kind, 0) for kind in list(KINDS)[:5]]
    paths = sorted(root.rglob("valid_seen/**/game.tw-pddl"))
    return [read_game(path, path.parent.name) for path in paths[:: len(paths) // 5][:5]]


@pytest.fixture(scope="module", autouse=True)
def _ratios() -> Iterator[None]:
    yield
    print("\n")
    for measure, medians in sorted(_medians.items()):
        if len(medians) == 2:
            ratio = medians["stock"] / medians["native"]
            print(
                f"{measure}: native {medians['native'] * 1000:.3f} ms, stock {medians['stock'] * 1000:.1f} ms, "
                f"ratio {ratio:,.0f}"
            )
        else:
            print(f"{measure}: " + ", ".join(f"{name} {value * 1000:.3f} ms" for name, value in medians.items()))


def _note(benchmark: Any, measure: str, engine: str, per_round: int = 1) -> None:
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median / per_round
        benchmark.extra_info["median_ms"] = median * 1000
        _medians.setdefault(measure, {})[engine] = median


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.benchmark(group="load and reset")
def test_load_and_reset(benchmark: Any, games: list[Game], engine: str) -> None:
    made: list[Engine] = [ENGINES[engine](games[0])]  # The first game of all compiles domain and grammar.

    def load() -> None:
        for game in games:
            made.append(ENGINES[engine](game))
            made[-1].reset()

    def close() -> None:
        while made:
            made.pop().close()

    benchmark.pedantic(load, setup=close, rounds=ROUNDS[engine], warmup_rounds=1)
    close()
    _note(benchmark, "load and reset", engine, len(games))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.benchmark(group="step with admissible commands")
def test_step_with_admissible_commands(benchmark: Any, games: list[Game], engine: str) -> None:
    running = [ENGINES[engine](game) for game in games]
    turn = iter(range(10**9))

    def begin() -> None:
        for game in running:
            game.reset()
            game.admissible()

    def walk() -> None:
        # The engines agree, so the same numbers lead both the same way.
        rng = random.Random(next(turn) % ROUNDS["stock"])
        for game in running:
            for _ in range(STEPS):
                game.step(rng.choice(game.admissible()))

    benchmark.pedantic(walk, setup=begin, rounds=ROUNDS[engine])
    for game in running:
        game.close()
    _note(benchmark, f"step with admissible commands (walks of {STEPS})", engine, STEPS * len(games))


@pytest.mark.benchmark(group="clone")
def test_clone_of_a_running_game(benchmark: Any, games: list[Game]) -> None:
    # The stock engine cannot be copied; the nearest thing is to load the game again and to repeat its commands.
    engine = NativeEngine(games[0])
    engine.reset()
    for command in games[0].walkthrough[:-1]:
        engine.step(command)
    benchmark(engine.clone)
    _note(benchmark, "clone", "native")


@pytest.mark.benchmark(group="clone")
def test_stock_way_to_a_second_game_in_the_same_state(benchmark: Any, games: list[Game]) -> None:
    engine = TextWorldEngine(games[0])

    def again() -> None:
        engine.reset()
        for command in games[0].walkthrough[:-1]:
            engine.step(command)

    benchmark.pedantic(again, rounds=5)
    engine.close()
    _note(benchmark, "clone", "stock")


@pytest.mark.benchmark(group="generator")
def test_generate(benchmark: Any) -> None:
    turn = iter(range(10**9))

    def make() -> Game:
        number = next(turn)
        return generate(list(KINDS)[number % len(KINDS)], 1000 + number)

    benchmark.pedantic(make, rounds=120, warmup_rounds=6)
    _note(benchmark, "generate a game, plan replayed", "native")
    if benchmark.stats is not None:
        print(f"\n{1 / statistics.mean(benchmark.stats.stats.data):.0f} games a second")
