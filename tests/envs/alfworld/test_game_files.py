"""Unreadable and foreign game files: one clear line each."""

import json
from pathlib import Path

import pytest

from cotbench.envs.alfworld.game import read_game
from cotbench.envs.alfworld.tasks import load_game, official_ids
from cotbench.errors import GameFileError, MissingDataError, UnknownNameError

GOOD = {"pddl_domain": "(define)", "pddl_problem": "(define)", "grammar": "Your task is to: look.", "walkthrough": ["look"]}


def _without(key: str) -> str:
    return json.dumps({name: value for name, value in GOOD.items() if name != key})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "cannot read the game"),
        ("[1, 2]", "JSON object expected"),
        (_without("pddl_problem"), "no 'pddl_problem'"),
        (_without("grammar"), "no 'grammar'"),
        (json.dumps({**GOOD, "walkthrough": "look"}), "not a list of commands"),
        (json.dumps({**GOOD, "solvable": False}), "marked unsolvable"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_text(content)
    with pytest.raises(GameFileError, match=message) as caught:
        read_game(path, "alfworld/valid_seen/some/task")
    assert "alfworld/valid_seen/some/task" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_text(json.dumps(GOOD))
    game = read_game(path, "t")
    assert (game.goal, game.walkthrough) == ("look", ("look",))


def test_binary_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GameFileError):
        read_game(path, "t")
    with pytest.raises(GameFileError):
        read_game(tmp_path / "nowhere", "t")


def test_a_game_that_the_engine_refuses(tmp_path: Path) -> None:
    import cotbench.envs  # noqa: F401
    from cotbench.envs.registry import env_entry

    task = official_ids("valid_seen")[0]
    path = tmp_path / "json_2.1.1" / task.removeprefix("alfworld/") / "game.tw-pddl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(GOOD))
    env = env_entry("alfworld").make(data=tmp_path)
    with pytest.raises(GameFileError, match=f"cannot load the game of {task}"):
        env.reset(options={"task": task})
    env.close()


def test_ids_that_do_not_exist_are_corrected(real_games: Path) -> None:
    task = official_ids("valid_seen")[0]
    with pytest.raises(UnknownNameError, match="did you mean"):
        load_game(task[:-1], real_games)
    with pytest.raises(MissingDataError, match="no game file for"):
        load_game(official_ids("valid_unseen")[0], real_games)
