"""Generated games: the same everywhere, winnable, like the real ones, and made under the condition that their seed says."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from typing import Any, NoReturn

import pytest

from cotbench.envs.alfworld import generator
from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.generator import BAND, KINDS, generate, held_out, kinds_of
from cotbench.envs.alfworld.goals import read_goal
from cotbench.envs.alfworld.household_statistics import household_statistics
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.tasks import load_game
from cotbench.errors import UnknownNameError
from tests.conftest import needs_stock_engine
from tests.reference import households


def _digest(game: Game) -> str:
    return hashlib.sha256(repr((game.pddl_problem, game.grammar, game.walkthrough)).encode()).hexdigest()


def test_same_seed_same_game_in_any_process() -> None:
    code = (
        "import hashlib; from cotbench.envs.alfworld.generator import generate; g = generate('cool', 17);"
        "print(hashlib.sha256(repr((g.pddl_problem, g.grammar, g.walkthrough)).encode()).hexdigest())"
    )
    for hash_seed in ("0", "1"):
        # Another hash seed orders sets of strings otherwise: nothing of a game may depend on it.
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == _digest(generate("cool", 17))


def test_a_seed_gives_the_game_that_it_always_gave() -> None:
    # A change here changes every published split of generated games: raise VERSION with it.
    games = "".join(_digest(generate(kind, seed)) for kind in KINDS for seed in (0, 1))
    assert hashlib.sha256(games.encode()).hexdigest()[:16] == "4be9fc2646d1bd95"


def test_other_seeds_give_other_games() -> None:
    assert len({_digest(generate(kind, seed)) for kind in KINDS for seed in range(10)}) == 10 * len(KINDS)


@pytest.mark.parametrize("seed", [5, BAND + 5, 2 * BAND + 5])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_seed_promises(kind: str, seed: int) -> None:
    if kind not in kinds_of(seed):
        with pytest.raises(UnknownNameError, match=rf"unknown task 'alfworld/gen/{kind}/{seed}'"):
            generate(kind, seed)
        return
    game = generate(kind, seed)
    assert game.task == f"alfworld/gen/{kind}/{seed}"
    assert "UNKNOWN GOAL" not in game.grammar
    goal = read_goal(game.goal)
    assert goal.kind == kind
    home = households.home_of(game)
    assert tuple(name.lower() for name in home.goal) == (goal.thing, goal.place)
    assert held_out(*home.goal) == (seed >= 2 * BAND)
    assert bool(home.receptacles["Toilet"]) == (BAND <= seed < 2 * BAND)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_wins_at_its_last_step_and_not_before(kind: str) -> None:
    for seed in range(20):
        game = generate(kind, seed)
        engine = NativeEngine(game)
        engine.reset()
        wins = []
        for command in game.walkthrough:
            assert command in engine.admissible(), command
            wins.append(engine.step(command).won)
        assert wins == [False] * (len(wins) - 1) + [True]


def test_lore_is_what_the_wheel_and_the_counts_say() -> None:
    known = household_statistics()
    assert known.holds["CoffeeMachine"] == {"Mug"}
    assert known.able["Heatable"] <= known.able["Coolable"]
    assert "(:action CoolObject" in known.domain
    assert "UNKNOWN GOAL" in known.grammar
    assert {name: len(room.scenes) for name, room in known.rooms.items()} == dict.fromkeys(households.ROOMS.values(), 27)


@pytest.mark.parametrize("games", [50, pytest.param(150, marks=pytest.mark.slow)])
def test_households_are_like_the_real_ones(games: int) -> None:
    """Generated homes against the counts of the 3,553 real training games: every mean within five standard errors or 5 %."""
    known = household_statistics()
    for kind in ("heat", "look"):
        homes = [households.home_of(generate(kind, seed)) for seed in range(10_000, 10_000 + games)]
        # A heat game is always in a kitchen, a look game in a bedroom or a living room: compare those with a bed.
        room = "kitchen" if kind == "heat" else "bedroom"
        homes = [home for home in homes if kind == "heat" or home.receptacles["Bed"]]
        look = known.rooms[room]
        # What a task needs is there more often than elsewhere.
        asked = {home.goal[0] for home in homes} | {home.goal[1] for home in homes}
        for where in {where for scene in look.scenes for where in scene} - asked:
            real = [scene.get(where, 0) for scene in look.scenes]
            _alike(where, [home.receptacles[where] for home in homes], real)
        for thing, histogram in look.objects.items():
            if thing not in asked:
                real = [number for number, count in enumerate(histogram) for _ in range(count)]
                _alike(thing, [home.objects[thing] for home in homes], real)


def test_pairs_are_asked_for_as_often_as_in_the_real_games(monkeypatch: pytest.MonkeyPatch) -> None:
    class Drawn(Exception):
        """Stops a game where its object and its goal are drawn and its household is not."""

    def drawn(rng: Any, known: Any, room: str, receptacles: frozenset[str], objects: dict[str, int]) -> NoReturn:
        raise Drawn(*objects, *(receptacles - {"Microwave"} or receptacles))

    def pair(seed: int) -> tuple[str, ...]:
        with monkeypatch.context() as patch, pytest.raises(Drawn) as raised:
            patch.setattr(generator, "furnish", drawn)
            generate("heat", seed)
        return raised.value.args

    assert all(pair(seed) == households.home_of(generate("heat", seed)).goal for seed in range(20_000, 20_020))
    counts = Counter(pair(seed) for seed in range(20_000, 30_000))
    real = {tuple(pair.split()): count for pair, count in household_statistics().tasks[KINDS["heat"]]["kitchen"].items()}
    real = {pair: count for pair, count in real.items() if not held_out(*pair)}
    assert set(counts) <= set(real)
    distance = sum(abs(counts[pair] / 10_000 - count / sum(real.values())) for pair, count in real.items()) / 2
    assert distance < 0.03, "sampling alone gives about 0.02"


def test_nothing_starts_where_it_is_to_be_treated() -> None:
    for kind, station in (("clean", "SinkBasin"), ("heat", "Microwave"), ("cool", "Fridge")):
        for seed in range(30):
            home = households.home_of(generate(kind, seed))
            assert (home.goal[0], station) not in home.contents


def _alike(what: str, ours: list[int], real: list[int]) -> None:
    mean, expected = sum(ours) / len(ours), sum(real) / len(real)
    variance = sum((value - expected) ** 2 for value in real) / len(real)
    assert abs(mean - expected) <= max(5 * (variance / len(ours)) ** 0.5, 0.05 * expected), (what, mean, expected)


@needs_stock_engine
@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_wins_on_the_stock_engine(kind: str) -> None:
    from cotbench.envs.alfworld.textworld_engine import TextWorldEngine

    game = generate(kind, 1)
    engine = TextWorldEngine(game)
    try:
        first = engine.reset()
        assert re.match(r"-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room\.", first)
        assert first.endswith(f"Your task is to: {game.goal}.")
        for number, command in enumerate(game.walkthrough, start=1):
            assert command in engine.admissible(), command
            assert engine.step(command).won == (number == len(game.walkthrough))
    finally:
        engine.close()


@pytest.mark.parametrize(
    "task",
    ["cool", "cool/x", "cook/1", "cool/-1", "cool/007", "cool/3000000", "heat/1000000", "cool/١"],
)
def test_unknown_ids(task: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown (task|seed)"):
        load_game(f"alfworld/gen/{task}")
