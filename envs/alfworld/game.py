"""A game file. Invariant: a `Game` that exists has every part the engine needs; an error about a file is one line that names
the file and the part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cotbench.envs.alfworld.actions import Dialect, dialect_of
from cotbench.envs.alfworld.pddl.domain import compile_domain
from cotbench.envs.alfworld.pddl.grammar import compile_grammar
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
        return found[1] if found else ""

    @property
    def dialect(self) -> Dialect:
        """The spelling of its commands, told from its grammar.

        Raises:
            GameFileError: the domain or the grammar is damaged, or spells a command as no known release of ALFWorld does.
        """
        found = _TASK_SENTENCE.search(self.grammar)
        # The grammars of a release differ in the task sentence alone: without it, one is read for all games.
        shared = self.grammar[: found.start(1)] + self.grammar[found.end(1) :] if found else self.grammar
        try:
            return _dialect(self.pddl_domain, shared)
        except GameFileError as error:
            raise GameFileError(f"cannot load the game of {self.task}: {error}") from error


@lru_cache(maxsize=16)
def _dialect(pddl_domain: str, grammar: str) -> Dialect:
    """Return the dialect of the commands of those actions of a grammar that the domain has."""
    actions = compile_grammar(grammar).actions
    possible = {schema.name for schema in compile_domain(pddl_domain).schemas}
    return dialect_of(
        "".join(symbol.text if symbol.kind == "literal" else "thing 1" for symbol in wording.command)
        for name, wording in actions.items()
        if name in possible
    )


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
