"""The expert that sees what a player sees: it wins, it knows nothing else, and its mind can be read."""

import itertools
import random
import re
from pathlib import Path

import pytest

from cotbench.envs.alfworld.expert import Expert
from cotbench.envs.alfworld.generator import KINDS, generate
from cotbench.envs.alfworld.goals import Goal, read_goal
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.tasks import load_game, official_ids
from cotbench.envs.registry import env_entry
from cotbench.errors import GameFileError, UnknownNameError
from tests.reference import seen


def test_it_wins_the_real_games_within_fifty_steps(real_games: Path) -> None:
    tasks = official_ids("valid_seen")
    steps = [seen.play(load_game(task, real_games)) for task in tasks]
    won = [step for step in steps if step is not None]
    assert len(tasks) == 140
    assert len(won) >= 0.99 * len(tasks), [task for task, step in zip(tasks, steps, strict=True) if step is None]
    plans = [len(load_game(task, real_games).walkthrough) for task in tasks]
    assert sum(won) / len(won) < 2 * sum(plans) / len(plans), "it searches, but does not wander"


@pytest.mark.parametrize("kind", KINDS)
def test_it_wins_generated_games(kind: str) -> None:
    steps = [seen.play(generate(kind, seed), seed=seed) for seed in range(30)]
    assert sum(step is not None for step in steps) >= 29, steps


def test_it_speaks_only_of_what_it_was_told() -> None:
    for kind in KINDS:
        game = generate(kind, 8)
        engine = NativeEngine(game)
        told = engine.reset()
        expert = Expert(told, seed=1)
        for _ in range(50):
            mind = expert.mind()
            for name in re.findall(r"[a-z]+ \d+", mind.action):
                assert name in told, (mind.action, name)
            assert set(mind.known) <= set(re.findall(r"[a-z]+ \d+", told))
            feedback = engine.step(mind.action)
            if feedback.won:
                break
            expert.observe(mind.action, feedback.text)
            told += "\n" + feedback.text


def test_same_texts_and_seed_same_actions_and_other_seeds_differ() -> None:
    game = generate("heat", 12)
    calls = itertools.count()

    def actions(seed: int) -> list[str]:
        engine, chosen = NativeEngine(game), []
        expert = Expert(engine.reset(), seed)
        random.seed(next(calls))  # The global generator must not matter.
        for _ in range(50):
            chosen.append(expert.mind().action)
            feedback = engine.step(chosen[-1])
            if feedback.won:
                break
            expert.observe(chosen[-1], feedback.text)
        return chosen

    assert actions(3) == actions(3)
    assert len({tuple(actions(seed)) for seed in range(12)}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_over_from_a_player_who_did_anything(kind: str) -> None:
    lost = 0
    for seed in range(8):
        game = generate(kind, seed)
        engine = NativeEngine(game)
        first = engine.reset()
        expert, rng = Expert(first), random.Random(seed)
        won = False
        for number in range(15):
            # Some things can be picked up and, by upstream's rules, put nowhere: whoever takes them cannot win any more.
            able = [command for command in engine.admissible() if not re.match(r"take (teddybear|papertowelroll)", command)]
            early = [f"open {place}" for place in re.findall(r"(?:drawer|cabinet|fridge|microwave) \d+", first)]
            command = rng.choice([*able, "nonsense"]) if number % 3 else rng.choice([*early, *game.walkthrough, "go to mars 1"])
            feedback = engine.step(command)
            won = won or feedback.won
            expert.observe(command, feedback.text)
        for _ in range(60):
            action = expert.mind().action
            feedback = engine.step(action)
            won = won or feedback.won
            if won:
                break
            expert.observe(action, feedback.text)
        lost += not won
    assert lost == 0


def test_what_was_undone_or_put_into_two_places_is_done_again() -> None:
    game = generate("heat", 2)
    engine = NativeEngine(game)
    expert = Expert(engine.reset())
    before = next(number for number, command in enumerate(game.walkthrough) if command.startswith("heat "))
    thing = game.walkthrough[before].split(" with ")[0].removeprefix("heat ")
    for command in [*game.walkthrough[: before + 1], "go to fridge 1", f"cool {thing} with fridge 1"]:
        expert.observe(command, engine.step(command).text)
    assert not expert.mind().treated
    assert _finish(engine, expert) < 10
    engine = NativeEngine(generate("two", 13))
    expert = Expert(engine.reset())
    for where in ("1", "2"):
        mind = expert.mind()
        while mind.intent != "bring":
            expert.observe(mind.action, engine.step(mind.action).text)
            mind = expert.mind()
        for command in (f"go to {mind.goal.place} {where}", f"move {mind.holds} to {mind.goal.place} {where}"):
            expert.observe(command, engine.step(command).text)
        assert len(expert.mind().brought) == 1
    assert _finish(engine, expert) < 10


def _finish(engine: NativeEngine, expert: Expert) -> int:
    for step in range(1, 100):
        action = expert.mind().action
        feedback = engine.step(action)
        if feedback.won:
            return step
        expert.observe(action, feedback.text)
    return 100


def test_its_mind_is_data() -> None:
    env = env_entry("alfworld-gen").make(expert="seen", request=["expert_action"])
    _, info = env.reset(options={"task": "alfworld/gen/clean/5"})
    intents = []
    while not info["success"]:
        mind = env.expert_mind()
        assert mind is not None and mind.action == info["expert_action"]
        assert not set(mind.looked) & set(mind.unseen)
        assert bool(mind.seeks) == (mind.intent == "find")
        intents.append(mind.intent)
        *_, info = env.step(mind.action)
    env.close()
    assert list(dict.fromkeys(intents)) == ["find", "take", "treat", "bring"]
    assert mind.goal.kind == "clean" and mind.treated and mind.holds.startswith(mind.goal.thing)


def test_the_walkthrough_stays_and_has_no_mind() -> None:
    env = env_entry("alfworld-gen").make(request=["expert_action"])
    _, info = env.reset(options={"task": "alfworld/gen/look/5"})
    assert info["expert_action"] == generate("look", 5).walkthrough[0]
    assert env.expert_mind() is None
    env.close()
    with pytest.raises(UnknownNameError, match="unknown expert 'sees'; did you mean 'seen'"):
        env_entry("alfworld-gen").make(expert="sees")


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("put a mug in desk.", Goal("pick", "mug", "desk")),
        ("put some vase on safe", Goal("pick", "vase", "safe")),
        ("find two pillow and put them in sofa.", Goal("two", "pillow", "sofa")),
        ("cool some egg and put it in microwave.", Goal("cool", "egg", "microwave")),
        ("examine the pen with the desklamp.", Goal("look", "pen", "desklamp")),
    ],
)
def test_goals(sentence: str, goal: Goal) -> None:
    assert read_goal(sentence) == goal


def test_every_sentence_of_the_real_games_is_understood(real_games: Path) -> None:
    short = {
        "pick_two": "two",
        "look_at": "look",
        "pick_and": "pick",
        "pick_cle": "clean",
        "pick_hea": "heat",
        "pick_coo": "cool",
    }
    for task in official_ids("valid_seen"):
        folder = task.split("/")[2]
        goal = read_goal(load_game(task, real_games).goal)
        kind, thing, _, place, _ = folder.split("-")
        assert goal.kind == next(name for start, name in short.items() if kind.startswith(start))
        assert (goal.thing, goal.place) == (thing.lower(), place.lower())
    with pytest.raises(GameFileError, match="not understood"):
        read_goal("do the dishes")
