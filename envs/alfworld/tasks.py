"""Registered ALFWorld tasks, and where their games are. Invariant: ids come from committed manifests, never from what happens
to lie on a disk; a missing game is counted and named, never skipped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path

from cotbench.envs import wheels
from cotbench.envs.alfworld import generator
from cotbench.envs.alfworld.actions import DIALECTS, MOVE
from cotbench.envs.alfworld.game import Game, read_game
from cotbench.envs.splits import Rule, first_of_split, is_out_of_domain, manifest, split_tasks
from cotbench.errors import GameFileError, MissingDataError, UnknownNameError

_PACKAGE = "cotbench.envs.alfworld"
OFFICIAL_SPLITS = ("train", "valid_seen", "valid_unseen")
GENERATED_PREFIX = "alfworld/gen/"


@cache
def official_ids(split: str) -> tuple[str, ...]:
    """Return all task ids of an upstream split, sorted."""
    lines = files(_PACKAGE).joinpath("ids", f"{split}.txt").read_text("utf-8").split()
    return tuple(f"alfworld/{line}" for line in lines)


@cache
def dev_ids() -> tuple[str, ...]:
    """Return the ids of upstream's training games that are held out for tuning, sorted.

    Of the training types' households with three games each, every fifth gives its last game. So `dev` is to `train` what
    upstream's valid_seen is: a goal in a room that training shows, with the things in other places.
    """
    lines = files(_PACKAGE).joinpath("ids", "dev.txt").read_text("utf-8").split()
    return tuple(f"alfworld/{line}" for line in lines)


@cache
def _known_official() -> frozenset[str]:
    return frozenset(task for split in OFFICIAL_SPLITS for task in official_ids(split))


class OfficialGames:
    """Games of the ALFWorld release, played from the user's copy of it."""

    def schemes(self) -> Mapping[str, Sequence[str]]:
        """Return scheme -> names of its splits."""
        return {scheme: list(splits) for scheme, splits in manifest(_PACKAGE)["alfworld"].items()}

    def tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids of a split."""
        return split_tasks(_PACKAGE, "alfworld", scheme, split, _expand_official)

    def task_type(self, task: str) -> str:
        """Return the first part of the game's folder name."""
        return task.split("/")[2].split("-", maxsplit=1)[0] if task.count("/") >= 2 else task

    def scenario(self, task: str) -> str:
        """Return the task itself: nothing is shared."""
        return task

    def out_of_domain(self, scheme: str, split: str) -> bool:
        """Tell whether a split tests outside of what is trained on."""
        return is_out_of_domain(_PACKAGE, "alfworld", scheme, split)

    def missing(self, tasks: Sequence[str], data: Path | None) -> list[str]:
        """Return the tasks whose game file is not under the data folder."""
        root = data_folder(data)
        return [task for task in tasks if not game_path(root, task).is_file()]

    def remedy(self, data: Path | None) -> str:
        """Return where the games were expected and the command that gets them."""
        return f"not under {data_folder(data)}; get all games with: pip install alfworld && alfworld-download"

    def unpassable(self, tasks: Sequence[str]) -> list[str]:
        """Return no task: all can be won."""
        return []

    def data_version(self, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
        """Return one sha256 over the game files of these tasks, in order.

        Raises:
            GameFileError: a game file cannot be read.
        """
        root = data_folder(data)
        digest = hashlib.sha256()
        for task in tasks:
            path = game_path(root, task)
            try:
                digest.update(wheels.sha256_of(path).encode())
            except OSError as error:
                raise GameFileError(f"cannot read the game of {task} at {path}: {error}") from error
        return {"games_sha256": digest.hexdigest()}

    def dialect(self, tasks: Sequence[str], data: Path | None) -> str:
        """Return the dialect of the games of these tasks: "move" since ALFWorld 0.4, "put" before.

        Raises:
            GameFileError: they are not all of one dialect.
        """
        first: dict[str, str] = {}
        for task in tasks:
            with suppress(GameFileError):  # A game that cannot be played is an error of its own episodes.
                first.setdefault(load_game(task, data).dialect.name, task)
        if len(first) > 1:
            found = ", ".join(f"{DIALECTS[name].forms[name]!r} as in {task}" for name, task in first.items())
            raise GameFileError(
                f"the games in {data_folder(data)} spell an action in {len(first)} ways ({found}), but a run has one: "
                "keep the games of one release of ALFWorld in a folder"
            )
        return next(iter(first), MOVE.name)


class GeneratedGames:
    """Games made from a seed; nothing to download but the pinned wheel that holds the domain and the grammar."""

    def schemes(self) -> Mapping[str, Sequence[str]]:
        """Return scheme -> names of its splits."""
        return {scheme: list(splits) for scheme, splits in manifest(_PACKAGE)["alfworld-gen"].items()}

    def tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids of a split."""
        return split_tasks(_PACKAGE, "alfworld-gen", scheme, split, _expand_generated)

    def first_tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids that come first in every draw from a split: those of its first seeds."""
        return first_of_split(_PACKAGE, "alfworld-gen", scheme, split, _expand_generated)

    def task_type(self, task: str) -> str:
        """Return the third part of the id."""
        return generated_key(task)[0]

    def scenario(self, task: str) -> str:
        """Return the task itself: nothing is shared."""
        return task

    def out_of_domain(self, scheme: str, split: str) -> bool:
        """Tell whether a split tests outside of what is trained on."""
        return is_out_of_domain(_PACKAGE, "alfworld-gen", scheme, split)

    def missing(self, tasks: Sequence[str], data: Path | None) -> list[str]:
        """Return no task: a game is made from its seed."""
        return []

    def remedy(self, data: Path | None) -> str:
        """Return the command that fetches the wheel with domain and grammar."""
        return "cotbench data fetch alfworld"

    def unpassable(self, tasks: Sequence[str]) -> list[str]:
        """Return no task: all can be won."""
        return []

    def data_version(self, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
        """Return the generator's version and the wheel's measured sha256; fetches the wheel, so that no run fails later."""
        return {"generator": generator.VERSION, "alfworld_wheel_sha256": wheels.measured_sha256("alfworld")}

    def dialect(self, tasks: Sequence[str], data: Path | None) -> str:
        """Return "move": the generator takes the grammar of ALFWorld 0.4."""
        return MOVE.name


def _expand_official(rule: Rule) -> list[str]:
    types, dev = rule.get("types"), rule.get("dev")
    source, held_out = OfficialGames(), frozenset(dev_ids())
    return [
        task
        for split in rule["from"]
        for task in official_ids(split)
        if (types is None or source.task_type(task) in types) and (dev is None or (task in held_out) == dev)
    ]


def _expand_generated(rule: Rule) -> list[str]:
    first, last = rule["seeds"]
    return [f"{GENERATED_PREFIX}{kind}/{seed}" for kind in rule["types"] for seed in range(first, last + 1)]


def data_folder(data: Path | None) -> Path:
    """Return the folder that holds `json_2.1.1`: `data` where it is given, else `$ALFWORLD_DATA`.

    Raises:
        MissingDataError: neither is given, or it is not such a folder.
    """
    given = str(data) if data is not None else os.environ.get("ALFWORLD_DATA", "")
    how = (
        "point --data or $ALFWORLD_DATA at the folder that holds json_2.1.1 "
        "(to get it: pip install alfworld && alfworld-download), or play generated games: --env alfworld-gen"
    )
    if not given:
        raise MissingDataError(f"the ALFWorld games are not on this machine: {how}")
    root = Path(given).expanduser()
    if not (root / "json_2.1.1").is_dir():
        raise MissingDataError(f"no ALFWorld games in {root}: {how}")
    return root


def game_path(root: Path, task: str) -> Path:
    """Return where upstream's download puts the game of a task, under the data folder `root`."""
    return root / "json_2.1.1" / task.removeprefix("alfworld/") / "game.tw-pddl"


def generated_key(task: str) -> tuple[str, int]:
    """Return type and seed of a generated task's id.

    Raises:
        UnknownNameError: not the id of a generated task.
    """
    kind, _, seed = task.removeprefix(GENERATED_PREFIX).partition("/")
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= 9) or kind not in generator.KINDS or str(int(seed)) != seed:
        known = [f"{GENERATED_PREFIX}{kind}/SEED" for kind in generator.KINDS]
        raise UnknownNameError("task", task, known)
    return kind, int(seed)


def load_game(task: str, data: Path | None = None) -> Game:
    """Return the game of a task id, read from the data folder or generated.

    Args:
        task: the task id.
        data: the folder that holds `json_2.1.1`; None means `$ALFWORLD_DATA`.

    Raises:
        UnknownNameError: no such task.
        MissingDataError: its file is not on this machine.
        GameFileError: its file is damaged.
    """
    if task.startswith(GENERATED_PREFIX):
        kind, seed = generated_key(task)
        return generator.generate(kind, seed)
    if task not in _known_official():
        raise UnknownNameError("task", task, _known_official())
    path = game_path(data_folder(data), task)
    if not path.is_file():
        raise MissingDataError(f"no game file for {task} at {path}: {OfficialGames().remedy(data)}")
    return read_game(path, task)
