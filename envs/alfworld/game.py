"""A game file. Invariant: a `Game` that exists has every part the engine needs; an error about a file is one line that names
the file and the part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cotbench.errors import GameFileError
from cotbench.json_text import parse_json

_TASK_SENTENCE = re.compile(r"Your task is to: ([^\n\"]+?)\.?\s*(?:\"|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Game:
    """One ALFWorld game: the contents of a `game.tw-pddl` file under its task id.

    Attributes:
        task: the task id.
        pddl_domain: the domain, PDDL text.
        pddl_problem: the household and the goal, PDDL text.
        grammar: how the engine words things (TextWorld's .twl2), the task sentence included.
        walkthrough: commands that win.
    """

    task: str
    pddl_domain: str
    pddl_problem: str
    grammar: str
    walkthrough: tuple[str, ...]

    @property
    def goal(self) -> str:
        """Task sentence, without the words around it."""
        found = _TASK_SENTENCE.search(self.grammar)
        return found.group(1) if found else ""


def read_game(path: Path, task: str) -> Game:
    """Read and check a game file.

    Args:
        path: a `game.tw-pddl` file.
        task: the task id, for the game and for messages.

    Raises:
        GameFileError: the file cannot be read, is not JSON, or lacks a part.
    """
    try:
        data = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise GameFileError(f"cannot read the game of {task} at {path}: {error}") from error
    if not isinstance(data, dict):
        raise GameFileError(f"{path} is not a game: JSON object expected (task {task})")
    for key in ("pddl_domain", "pddl_problem", "grammar"):
        if not isinstance(data.get(key), str):
            raise GameFileError(f"{path} is not a game: no {key!r} (task {task})")
    walkthrough = data.get("walkthrough") or []
    if not (isinstance(walkthrough, list) and all(isinstance(step, str) for step in walkthrough)):
        raise GameFileError(f"{path}: 'walkthrough' is not a list of commands (task {task})")
    if not _TASK_SENTENCE.search(data["grammar"]):
        raise GameFileError(f"{path} is not a game: its grammar has no task sentence (task {task})")
    if data.get("solvable") is False:
        raise GameFileError(f"{path} is marked unsolvable (task {task})")
    return Game(task, data["pddl_domain"], data["pddl_problem"], data["grammar"], tuple(walkthrough))
