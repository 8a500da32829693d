"""Splits hold the right ids, do not overlap, and cannot change silently."""

from itertools import combinations
from pathlib import Path

import pytest

from cotbench.envs.alfworld.generator import BAND
from cotbench.envs.alfworld.tasks import GeneratedGames, OfficialGames, dev_ids, generated_key, official_ids
from cotbench.envs.registry import env_entry, env_names
from cotbench.envs.splits import DEV, TRAIN, Rule, digest, first_of_split, split_tasks
from cotbench.envs.tasks import first_tasks, playable
from cotbench.errors import GameFileError, MissingDataError, UnknownNameError
from tests.conftest import SHARED

HELD_OUT = {"pick_cool_then_place_in_recep", "pick_two_obj_and_place"}


@pytest.mark.parametrize("env", env_names())
def test_splits_are_sorted_unique_and_disjoint(env: str) -> None:
    source = env_entry(env).source()
    for scheme, splits in source.schemes().items():
        tasks = {split: source.tasks(scheme, split) for split in splits}
        for split, ids in tasks.items():
            assert ids, (scheme, split)
            assert list(ids) == sorted(set(ids)), (scheme, split)
        for one, two in combinations(tasks, 2):
            assert not set(tasks[one]) & set(tasks[two]), (scheme, one, two)


@pytest.mark.parametrize("env", env_names())
def test_no_scenario_is_both_scored_and_trained_or_tuned_on(env: str) -> None:
    source = env_entry(env).source()
    scenarios = {split: {source.scenario(task) for task in source.tasks("paper", split)} for split in source.schemes()["paper"]}
    train, dev = scenarios.pop(TRAIN), scenarios.pop(DEV)
    assert dev and not train & dev
    for split, scored in scenarios.items():
        assert not scored & (train | dev), split
    assert not source.out_of_domain("paper", DEV)
    types = {split: {source.task_type(task) for task in source.tasks("paper", split)} for split in (TRAIN, DEV)}
    assert types[DEV] == types[TRAIN], "what is out of domain is not tuned on"


def test_dev_of_the_official_games_is_every_fifth_of_the_households_with_three_training_games() -> None:
    source = OfficialGames()
    games: dict[str, list[str]] = {}
    for task in official_ids("train"):
        if source.task_type(task) not in HELD_OUT:
            games.setdefault(task.split("/")[2], []).append(task)
    three = [sorted(some) for _, some in sorted(games.items()) if len(some) == 3]
    assert source.tasks("paper", DEV) == dev_ids() == tuple(some[-1] for some in three[::5])
    assert len(source.tasks("paper", TRAIN)) + len(dev_ids()) == sum(map(len, games.values())) == 2207


NESTED = {"dev": 3000, "id": 0, "ood": 0, "ood_room": 1_000_000, "ood_pair": 2_000_000}


@pytest.mark.parametrize("split", NESTED)
def test_a_generated_split_begins_with_the_120_games_that_it_was(split: str) -> None:
    source = GeneratedGames()
    whole, first = source.tasks("paper", split), first_tasks(source, "paper", split)
    kinds = {source.task_type(task) for task in whole}
    seeds = range(NESTED[split], NESTED[split] + 120 // len(kinds))
    assert len(whole) == 1000 and len(first) == 120
    assert first == tuple(sorted(f"alfworld/gen/{kind}/{seed}" for kind in kinds for seed in seeds))
    assert set(first) < set(whole)
    # The corpus of tiny's base begins at 10,000 in each band.
    assert max(generated_key(task)[1] % BAND for task in whole) < 10_000


@pytest.mark.parametrize("env", ["scienceworld", "bfcl", "alfworld"])
def test_other_splits_are_played_whole(env: str) -> None:
    source = env_entry(env).source()
    assert first_tasks(source, "paper", "id") == source.tasks("paper", "id")


@pytest.mark.parametrize("split", ["train", "valid_seen", "valid_unseen"])
def test_official_ids_are_upstreams(split: str) -> None:
    listed = SHARED / "alfworld" / f"{split}.ids"
    if not listed.is_file():
        pytest.skip("the official lists lie in ../shared, which is not here")
    assert sorted(official_ids(split)) == sorted(f"alfworld/{line}" for line in listed.read_text().split())


def test_paper_scheme_holds_out_two_types() -> None:
    source = OfficialGames()

    def types(split: str) -> set[str]:
        return {source.task_type(task) for task in source.tasks("paper", split)}

    assert types("ood") == HELD_OUT
    for split in ("train", "id", "ood_room"):
        assert len(types(split)) == 4
        assert not types(split) & HELD_OUT
    assert len(source.tasks("paper", "id")) + len(source.tasks("paper", "ood")) + len(source.tasks("paper", "ood_room")) == 274


def test_generated_splits_hold_out_what_they_say() -> None:
    source = GeneratedGames()
    kinds = {split: {source.task_type(task) for task in source.tasks("paper", split)} for split in source.schemes()["paper"]}
    assert kinds == {
        "train": {"pick", "look", "clean", "heat"},
        "dev": {"pick", "look", "clean", "heat"},
        "id": {"pick", "look", "clean", "heat"},
        "ood": {"cool", "two"},
        "ood_room": {"pick", "clean"},
        "ood_pair": {"pick", "look", "clean", "heat"},
    }
    tasks = [task for split in kinds for task in source.tasks("paper", split)]
    assert len(tasks) == len(set(tasks))


def test_two_tasks_with_one_id_are_refused() -> None:
    with pytest.raises(GameFileError, match="two tasks have the id alfworld/x"):
        split_tasks("cotbench.envs.alfworld", "alfworld", "official", "valid_seen", lambda rule: ["alfworld/x"] * 2)


def test_a_changed_split_is_refused() -> None:
    def one_less(rule: object) -> list[str]:
        return list(official_ids("valid_seen"))[1:]

    with pytest.raises(GameFileError, match=r"139 tasks, expected 140"):
        split_tasks("cotbench.envs.alfworld", "alfworld", "official", "valid_seen", one_less)


def test_changed_first_tasks_are_refused() -> None:
    def one_less(rule: Rule) -> list[str]:
        tasks = GeneratedGames().tasks("paper", "id")
        return list(tasks if rule["tasks"] == 1000 else tasks[:119])

    with pytest.raises(GameFileError, match=r"its first tasks.*119 tasks, expected 120"):
        first_of_split("cotbench.envs.alfworld", "alfworld-gen", "paper", "id", one_less)


def test_digest_is_over_lines() -> None:
    import hashlib

    assert digest(["a", "b"]) == hashlib.sha256(b"a\nb\n").hexdigest()


@pytest.mark.parametrize(
    ("scheme", "split", "message"),
    [
        ("paper", "odo", "did you mean 'ood'"),
        ("papre", "id", "did you mean 'paper'"),
        ("official", "id", "did you mean|known:"),
    ],
)
def test_unknown_names_are_corrected(scheme: str, split: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        OfficialGames().tasks(scheme, split)


def test_a_missing_data_folder_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"not on this machine.*ALFWORLD_DATA.*alfworld-download.*--env alfworld-gen"):
        OfficialGames().missing(["alfworld/valid_seen/x/y"], None)
    with pytest.raises(MissingDataError, match="no ALFWorld games in"):
        OfficialGames().missing(["alfworld/valid_seen/x/y"], tmp_path)


def test_a_partly_missing_split_is_refused_with_the_count(real_games: Path) -> None:
    source = OfficialGames()
    tasks = source.tasks("paper", "ood")
    there = [task for task in tasks if "/valid_seen/" in task]
    with pytest.raises(MissingDataError, match=rf"{len(tasks) - len(there)} of 87 games are missing.*--available-only"):
        playable(source, tasks, real_games, "ood", available_only=False)
    assert list(playable(source, tasks, real_games, "ood", available_only=True)) == there


def test_a_wholly_missing_split_is_refused_even_then(real_games: Path) -> None:
    source = OfficialGames()
    with pytest.raises(MissingDataError, match="134 of 134 games are missing"):
        playable(source, source.tasks("official", "valid_unseen"), real_games, "valid_unseen", available_only=True)
