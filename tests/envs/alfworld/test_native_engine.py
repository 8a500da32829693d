"""Our own engine: upstream's words, nothing shared that changes, nothing left behind."""

import dataclasses
import gc
import random
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import gymnasium
import pytest

import cotbench.envs  # noqa: F401
from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.generator import KINDS, generate
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.tasks import OfficialGames, load_game, official_ids
from cotbench.errors import EngineError
from tests.conftest import needs_stock_engine
from tests.envs.garden import GARDEN
from tests.reference import alfworld


def _one_of_each_type() -> list[str]:
    source = OfficialGames()
    return list({source.task_type(task): task for task in official_ids("valid_seen")}.values())


@needs_stock_engine
@pytest.mark.parametrize("task", _one_of_each_type(), ids=lambda task: task.split("/")[2].split("-")[0])
def test_no_difference_to_the_stock_engine(task: str, real_games: Path) -> None:
    game = load_game(task, real_games)
    assert alfworld.compare(game, alfworld.stock_transcript(game)) is None


@needs_stock_engine
@pytest.mark.parametrize("kind", ["two", "look"])
def test_no_difference_on_generated_games(kind: str) -> None:
    game = generate(kind, 4)
    assert alfworld.compare(game, alfworld.stock_transcript(game)) is None


@needs_stock_engine
def test_no_difference_on_a_game_of_another_domain() -> None:
    from cotbench.envs.alfworld.textworld_engine import TextWorldEngine

    stock = TextWorldEngine(GARDEN)
    verbs = set()
    try:
        for walk in range(6):
            game = dataclasses.replace(GARDEN, task=f"garden {walk}")
            transcript = alfworld.record(stock, game)
            found = alfworld.compare(game, transcript)
            assert found is None, str(found)
            verbs |= {line.command.split()[0] for line in transcript if line.command and line.text != "Nothing happens."}
    finally:
        stock.close()
    assert verbs >= {"walk", "enter", "stay", "grab", "drop", "water", "flip", "prune", "ponder", "count"}


EFFECTS = [
    "(t ?p)",
    "(not (t ?p))",
    "(and (not (t ?p)) (t ?p))",
    "(and (forall (?q - a) (not (t ?q))) (t ?p))",
    "(forall (?q - a) (when (= ?q ?p) (t ?q)))",
    "(and (not (t ?p)) (when (s ?p) (t ?p)))",
    "(and (not (t ?p)) (when (not (g)) (t ?p)))",
    "(and (t x_bar_1) (not (t ?p)))",
    "(when (t ?p) (not (t ?p)))",
]


@needs_stock_engine
@pytest.mark.parametrize("required", ["()", "(t ?p)", "(not (t ?p))", "(or (g) (t ?p))", "(t x_bar_1)", "(s ?p)"])
def test_effects_are_pruned_as_upstreams_planner_prunes_them(required: str) -> None:
    from cotbench.envs.alfworld.textworld_engine import TextWorldEngine

    for effect in EFFECTS:
        domain = f"""(define (domain d) (:requirements :adl :typing) (:types a) (:constants x_bar_1 - a)
          (:predicates (s ?x - a) (t ?x - a) (g))
          (:action do :parameters (?p - a) :precondition {required} :effect {effect})
          (:action end :parameters () :precondition () :effect (g)))"""
        problem = """(define (problem p) (:domain d) (:objects y_bar_1 z_bar_1 - a)
          (:init (s x_bar_1) (s y_bar_1) (t y_bar_1) (s z_bar_1)) (:goal (g)))"""
        text = "t=[{p.name|t(p:a)}] not=[{p.name|not_t(p:a)}]"
        grammar = f'''grammar :: """{{"intro": [{{"rhs": "{text}"}}], "list_empty": [{{"rhs": "none"}}],
          "list_separator": [{{"rhs": ", "}}], "list_last_separator": [{{"rhs": ", "}}]}}""";
          action do {{ template :: "do {{p.name}}"; feedback :: "{text}"; }}
          action end {{ template :: "end"; feedback :: "{text}"; }}'''
        game = Game(f"pruning {required} {effect}", domain, problem, grammar, ())
        stock = TextWorldEngine(game)
        try:
            found = alfworld.compare(game, alfworld.record(stock, game)[:25])
        finally:
            stock.close()
        assert found is None, str(found)


def test_a_difference_says_game_step_and_both_texts() -> None:
    game = generate("pick", 2)
    said = list(alfworld.replay(NativeEngine(game), [None, "look", *game.walkthrough]))
    said[2] = dataclasses.replace(said[2], text="something else")
    found = alfworld.compare(game, said)
    assert found is not None
    text = str(found)
    for part in ("alfworld/gen/pick/2", "step 2", game.walkthrough[0], "'something else'", "You arrive at"):
        assert part in text


def _play(engine: NativeEngine, seed: int, steps: int) -> list[object]:
    rng, said = random.Random(seed), []
    for _ in range(steps):
        feedback = engine.step(rng.choice(engine.admissible()))
        said.append((feedback, engine.admissible()))
    return said


@pytest.mark.parametrize("game", [generate("two", 1), GARDEN], ids=["alfworld", "garden"])
def test_a_clone_goes_its_own_way(game: Game) -> None:
    engine = NativeEngine(game)
    engine.reset()
    _play(engine, 0, 15)
    before, copies = engine.admissible(), [engine.clone() for _ in range(3)]
    first = _play(copies[0], 1, 30)
    assert engine.admissible() == before
    assert _play(copies[1], 1, 30) == first, "same state, same commands"
    assert _play(engine, 1, 30) == first
    copies[0].close()
    assert copies[2].admissible() == before, "closing one leaves the others alone"


def test_threads_do_not_disturb_each_other() -> None:
    games = [generate(kind, seed) for kind in KINDS for seed in range(3)]
    alone = {game.task: _play_from_the_start(game) for game in games}
    together: dict[str, list[object]] = {}

    def work(part: list[Game]) -> None:
        for game in part:
            together[game.task] = _play_from_the_start(game)

    parts = [games[index::6] for index in range(6)]
    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def _play_from_the_start(game: Game) -> list[object]:
    engine = NativeEngine(game)
    return [engine.reset(), *_play(engine, 7, 40)]


def test_a_reset_forgets_everything_and_a_closed_engine_says_so() -> None:
    engine = NativeEngine(generate("heat", 3))
    start = engine.reset(), engine.admissible()
    _play(engine, 3, 25)
    assert (engine.reset(), engine.admissible()) == start
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="alfworld/gen/heat/3 is closed"):
        engine.step("look")


@pytest.mark.parametrize("resets", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_resets_leak_nothing_and_games_are_small(resets: int) -> None:
    engine = NativeEngine(generate("clean", 1))
    _play(engine, 0, 100)
    tracemalloc.start()
    try:
        for _ in range(20):
            engine.reset()
            _play(engine, 1, 3)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(resets):
            engine.reset()
            _play(engine, 1, 3)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < min(50_000, 100 * resets)
        games = [generate(kind, 50) for kind in KINDS]
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        engines = [NativeEngine(game) for game in games]
        for engine in engines:
            engine.reset()
            _play(engine, 1, 50)
        gc.collect()
        assert (tracemalloc.get_traced_memory()[0] - before) / len(engines) < 2_000_000
    finally:
        tracemalloc.stop()


_WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("textworld", "alfworld", "fast_downward", "torch", "transformers", "tatsu"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import gymnasium, cotbench.envs
env = gymnasium.make("cotbench/ALFWorldGen-v0", request=["expert_action"])
_, info = env.reset(options={"task": "alfworld/gen/cool/3"})
while not info["success"]:
    *_, info = env.step(info["expert_action"])
print("won in", info["steps"])
"""


def test_generated_games_need_nothing_but_the_base_install() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", _WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("won in")


def test_sixty_four_games_side_by_side_in_one_process() -> None:
    envs = gymnasium.make_vec("cotbench/ALFWorldGen-v0", num_envs=64, vectorization_mode="sync", request=["admissible_actions"])
    try:
        observations, info = envs.reset(seed=0)
        assert len(set(observations)) > 40
        rng = random.Random(0)
        for _ in range(10):
            actions = tuple(rng.choice(list(choices)) for choices in info["admissible_actions"])
            observations, _, _, _, info = envs.step(actions)
        assert len(observations) == 64
        assert not any(text == "Nothing happens." for text in observations)
    finally:
        envs.close()
