"""Games from before ALFWorld 0.4, which say `put X in/on Y` where later ones say `move X to Y`, in their own spelling."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.envs.alfworld import actions
from cotbench.envs.alfworld.actions import DIALECTS, MOVE, PUT
from cotbench.envs.alfworld.generator import generate
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.tasks import load_game, official_ids
from cotbench.envs.base import TextEnv
from cotbench.envs.registry import env_entry
from cotbench.errors import GameFileError, UnknownNameError
from tests.conftest import needs_stock_engine
from tests.old_games import old_command, old_game, write_old_game
from tests.reference import alfworld as reference

_SPELLED = ["put {} in/on {}", "Put {} on {}.", "move {} to {}"]


def _tasks() -> list[str]:
    """One task of each type."""
    first: dict[str, str] = {}
    for task in official_ids("valid_seen"):
        first.setdefault(task.split("/")[2].split("-")[0], task)
    return list(first.values())


def _path(folder: Path, task: str) -> Path:
    return folder / "json_2.1.1" / task.removeprefix("alfworld/") / "game.tw-pddl"


@pytest.fixture(scope="module")
def old_games(real_games: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one game of each type, as it was before 0.4."""
    folder = tmp_path_factory.mktemp("old")
    for task in _tasks():
        write_old_game(_path(real_games, task), _path(folder, task))
    return folder


@pytest.fixture
def made(old_games: Path) -> Iterator[Any]:
    """Makes environments over the old games, and closes them."""
    envs: list[TextEnv] = []

    def make(**kwargs: Any) -> TextEnv:
        envs.append(env_entry("alfworld").make(data=old_games, **kwargs))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


@pytest.mark.parametrize("task", _tasks(), ids=lambda task: task.split("/")[2].split("-")[0])
def test_what_is_listed_is_executed_as_it_is_listed(made: Any, task: str) -> None:
    env, rng, put = made(request=["admissible_actions"]), random.Random(task), 0
    _, info = env.reset(options={"task": task})
    for _ in range(40):
        # Whoever holds something puts it down, whoever can take something takes it: else a walk nearly never does.
        listed = info["admissible_actions"]
        some = [action for action in listed if action.startswith("put ")] or [
            action for action in listed if action.startswith(("take ", "open ")) and rng.random() < 0.5
        ]
        action = rng.choice(some or listed)
        observation, _, terminated, _, info = env.step(action)
        assert info["invalid_action"] is None, (action, info["invalid_action"])
        assert observation != "Nothing happens."
        put += observation.startswith("You put the ")
        if terminated:
            _, info = env.reset(options={"task": task})
    assert put > 0


@pytest.mark.parametrize(
    ("engine", "spelled"),
    [*(("native", one) for one in _SPELLED), pytest.param("textworld", _SPELLED[-1], marks=needs_stock_engine)],
)
def test_both_spellings_win_an_old_game(made: Any, real_games: Path, engine: str, spelled: str) -> None:
    task = next(task for task in _tasks() if "pick_and_place" in task)
    *before, last = load_game(task, real_games).walkthrough
    env = made(engine=engine, render_mode="ansi")
    env.reset(options={"task": task})
    for command in before:
        env.step(command)
    thing, place = last.removeprefix("move ").split(" to ")
    *_, terminated, _, info = env.step(spelled.format(thing, place))
    assert terminated and info["success"]
    assert env.render().startswith(f"> put {thing} in/on {place}\nYou put the {thing} in/on the {place}.")


@needs_stock_engine
@pytest.mark.slow
def test_our_engine_says_what_the_stock_engine_says(old_games: Path) -> None:
    game = load_game(_tasks()[0], old_games)
    assert reference.compare(game, reference.stock_transcript(game)) is None


@pytest.mark.parametrize("expert", ["walkthrough", "seen"])
def test_the_experts_win_and_spell_as_the_game_does(made: Any, expert: str) -> None:
    env = made(expert=expert, request=["expert_action", "admissible_actions"])
    for task in _tasks():
        _, info = env.reset(options={"task": task})
        taken = []
        while not info["success"] and len(taken) < 50:
            taken.append(info["expert_action"])
            *_, info = env.step(taken[-1])
        assert info["success"], taken
        assert not any(action.startswith("move ") for action in taken)
        assert "look_at_obj" in task or any(action.startswith("put ") for action in taken)


def test_a_walkthrough_in_the_other_spelling_is_understood(real_games: Path) -> None:
    new = load_game(_tasks()[0], real_games)
    for game, dialect in ((replace(old_game(new), walkthrough=new.walkthrough), PUT), (new, MOVE)):
        assert game.dialect is dialect
        engine = NativeEngine(game)
        engine.reset()
        assert [engine.step(dialect.canonical(old_command(command))).won for command in game.walkthrough][-1]


def test_instructions_are_in_the_games_spelling(made: Any, real_games: Path) -> None:
    entry = env_entry("alfworld")
    new, old = entry.in_dialect("move").instructions(), entry.in_dialect("put").instructions()
    assert new == entry.instructions()
    assert set(old.examples) - set(new.examples) == {"put mug 2 in/on shelf 3"} and old.text == new.text
    env = made()
    env.reset(options={"task": _tasks()[0]})
    assert env.examples == old.examples
    with pytest.raises(UnknownNameError, match="unknown dialect 'putt' of environment 'alfworld'; did you mean 'put'"):
        entry.in_dialect("putt")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("put mug 1", "malformed: expected 'put OBJECT in/on RECEPTACLE'"),
        ("move mug 1", "unknown verb 'move'"),
        ("help", "unknown verb 'help'"),
        ("help me", "unknown verb 'help'"),
        ("look around", "'look' takes no argument"),
        ("put {held} in/on mars 1", "nothing here is called 'mars 1'"),
        ("move {held} to mars 1", "nothing here is called 'mars 1'"),
        ("put {other} in/on {here}", "{other} is not held"),
        ("move {other} to {here}", "{other} is not held"),
    ],
)
def test_reasons_are_true(made: Any, action: str, reason: str) -> None:
    task = next(task for task in _tasks() if "pick_two" in task)
    env = made(request=["admissible_actions", "expert_action"])
    _, info = env.reset(options={"task": task})
    while not info["expert_action"].startswith("put "):
        *_, info = env.step(info["expert_action"])
    held, here = info["expert_action"].removeprefix("put ").split(" in/on ")
    other = held.rsplit(" ", 1)[0] + (" 2" if held.endswith(" 1") else " 1")
    names = {"held": held, "here": here, "other": other}
    *_, info = env.step(action.format(**names))
    assert info["invalid_action"].endswith(reason.format(**names)) or reason.format(**names) in info["invalid_action"]


def test_a_grammar_that_no_release_has_is_refused_in_a_line() -> None:
    game = generate("pick", 0)
    odd = replace(game, grammar=game.grammar.replace('"move {o} to {r}"', '"put {o} onto {r}"'))
    with pytest.raises(
        GameFileError, match="'put thing 1 onto thing 1', which is neither 'move OBJECT to RECEPTACLE' nor"
    ) as told:
        _ = odd.dialect
    assert "alfworld/gen/pick/0" in str(told.value) and "\n" not in str(told.value)


def test_equivalence_knows_both_spellings() -> None:
    for dialect in DIALECTS:
        equivalent = env_entry("alfworld").in_dialect(dialect).equivalent()
        assert equivalent("put mug 1 in/on shelf 2", "move mug 3 to shelf 2")
        assert equivalent("put mug 1 on shelf 2", "put mug 2 in shelf 2")
        assert not equivalent("put mug 1 in/on shelf 2", "move mug 1 to shelf 1")
        assert not equivalent("put mug 1 in/on shelf 2", "move cup 1 to shelf 2")


@given(st.text(alphabet="put move in/on to ab1"))
def test_a_dialects_spelling_is_settled_after_once_and_the_other_dialect_leads_to_the_same(text: str) -> None:
    for dialect in DIALECTS.values():
        spelled = dialect.canonical(text)
        assert dialect.canonical(spelled) == spelled
    assert actions.dialect_of([PUT.canonical("move mug 1 to shelf 1"), "look"]) is PUT
    assert actions.dialect_of([]) is MOVE


def test_one_folder_with_both_spellings_is_refused(old_games: Path, real_games: Path, tmp_path: Path) -> None:
    mixed, (first, second, *_) = tmp_path / "mixed", _tasks()
    for folder, task in ((old_games, first), (real_games, second)):
        _path(mixed, task).parent.mkdir(parents=True)
        shutil.copy(_path(folder, task), _path(mixed, task))
    source = env_entry("alfworld").source()
    assert source.dialect([first], mixed) == "put" and source.dialect([second], mixed) == "move"  # type: ignore[attr-defined]
    with pytest.raises(GameFileError, match=r"spell an action in 2 ways .*'put OBJECT in/on RECEPTACLE' as in .*one release"):
        env_entry("alfworld").dialect_of([first, second], mixed)
    # Each game by itself is played as it is.
    env = env_entry("alfworld").make(data=mixed, request=["expert_action"])
    for task in (second, first, second):
        _, info = env.reset(options={"task": task})
        while not info["success"]:
            *_, info = env.step(info["expert_action"])
    env.close()
