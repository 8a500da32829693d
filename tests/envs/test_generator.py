"""Generated games: the same everywhere, winnable, and of the form of the real ones."""

import hashlib
import subprocess
import sys

import pytest

from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.generator import KINDS, generate, lore
from cotbench.envs.alfworld.tasks import load_game
from cotbench.errors import UnknownNameError
from tests.conftest import needs_stock_engine


def _digest(game: Game) -> str:
    return hashlib.sha256(repr((game.pddl_problem, game.grammar, game.walkthrough)).encode()).hexdigest()


def test_same_seed_same_game_in_any_process() -> None:
    code = (
        "import hashlib; from cotbench.envs.alfworld.generator import generate; g = generate('cool', 17);"
        "print(hashlib.sha256(repr((g.pddl_problem, g.grammar, g.walkthrough)).encode()).hexdigest())"
    )
    for hash_seed in ("0", "1"):
        # Another hash seed orders sets of strings otherwise: nothing of a game may depend on it.
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**_env(), "PYTHONHASHSEED": hash_seed},
        )
        assert done.stdout.strip() == _digest(generate("cool", 17))


def _env() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_other_seeds_give_other_games() -> None:
    assert len({_digest(generate(kind, seed)) for kind in KINDS for seed in range(10)}) == 10 * len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind: str) -> None:
    game = generate(kind, 5)
    assert game.task == f"alfworld/gen/{kind}/5"
    assert game.goal
    assert "UNKNOWN GOAL" not in game.grammar
    assert game.walkthrough[0].startswith("go to ")
    assert game.walkthrough[-1].startswith("move ")


def test_lore_is_what_the_wheel_says() -> None:
    known = lore()
    assert "Mug" in known.holds["CoffeeMachine"]
    assert known.able["Heatable"] <= known.able["Coolable"]
    assert "(:action CoolObject" in known.domain
    assert "UNKNOWN GOAL" in known.grammar


@needs_stock_engine
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_plan_wins_on_the_stock_engine(kind: str, seed: int) -> None:
    from cotbench.envs.alfworld.textworld_engine import TextWorldEngine

    game = generate(kind, seed)
    engine = TextWorldEngine(game)
    try:
        first = engine.reset()
        assert first.startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room.")
        assert first.endswith(f"Your task is to: {game.goal}.")
        for number, command in enumerate(game.walkthrough, start=1):
            assert command in engine.admissible(), command
            feedback = engine.step(command)
            assert feedback.valid
            assert feedback.won == (number == len(game.walkthrough)), "won at the plan's last step and not before"
    finally:
        engine.close()


@pytest.mark.parametrize("task", ["alfworld/gen/cool", "alfworld/gen/cool/x", "alfworld/gen/cook/1", "alfworld/gen/cool/-1"])
def test_unknown_ids(task: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown task"):
        load_game(task)
