"""The stock engine: TextWorld 1.7 with ALFWorld's naming of things. Invariant: its texts are upstream's, to the byte.

Upstream's parser keeps global state, swaps `sys.stdout` and rewrites `sys.argv`: this module takes a lock and restores both.
Upstream also maps a copy of its planner library for each environment and never unmaps it. Unmapping is not safe: the copies
share C++ objects that keep pointers into each other, and the process then crashes when it ends (seen 6 times out of 6). So a
closed engine's copy is emptied and handed to the next engine: as many are mapped as engines were ever open at one time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from cotbench.envs.alfworld.engine import Feedback
from cotbench.envs.alfworld.game import Game
from cotbench.errors import EngineError, GameFileError, MissingExtraError

_LOCK = threading.Lock()
_idle_libraries: list[Any] = []


class TextWorldEngine:
    """One running game on the stock engine.

    Raises:
        MissingExtraError: textworld or alfworld is not installed.
        GameFileError: the engine refuses the game.
    """

    def __init__(self, game: Game) -> None:
        if find_spec("textworld") is None or find_spec("alfworld") is None:
            raise MissingExtraError("the stock ALFWorld engine", "reference")
        self._game = game
        self._state: Any = None
        self._pddl: Any = None
        self._env: Any = None
        with _stock():
            from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
            from textworld import EnvInfos
            from textworld.envs.pddl.pddl import PddlEnv

            self._pddl = _with_library(PddlEnv, EnvInfos(won=True, admissible_commands=True))
            try:
                self._env = AlfredDemangler(self._pddl)
                self._env.load({"pddl_domain": game.pddl_domain, "pddl_problem": game.pddl_problem, "grammar": game.grammar})
            except (Exception, SystemExit) as error:  # Upstream's parser exits where it might raise.
                self._release()
                raise GameFileError(f"the engine cannot load the game of {game.task}: {_short(error)}") from error

    def reset(self) -> str:
        """Start the game anew and return the first observation."""
        self._state = self._call(self._env.reset)
        return str(self._state.feedback)

    def step(self, command: str) -> Feedback:
        """Execute one command, spelled as `admissible` lists it."""
        valid = command.strip() in self._state["_valid_commands"]
        self._state, _, _ = self._call(self._env.step, command)
        return Feedback(str(self._state.feedback), bool(self._state["won"]), valid)

    def admissible(self) -> list[str]:
        """Return the commands that do something now, sorted and without duplicates."""
        return list(self._state["admissible_commands"])

    def names(self) -> frozenset[str]:
        """Return the names of the things in the game, as texts and commands use them ("mug 1")."""
        return frozenset(info.name.strip() for info in self._pddl._entity_infos.values() if info.name)

    def close(self) -> None:
        """Empty the engine's library and hand it back; safe to call twice."""
        with _stock():
            self._release()

    def _release(self) -> None:
        if self._pddl is not None:
            self._pddl.downward_lib.cleanup()
            _idle_libraries.append(self._pddl.downward_lib)
            self._pddl = self._env = None

    def _call(self, function: Any, *arguments: Any) -> Any:
        if self._pddl is None:
            raise EngineError(f"the engine of {self._game.task} is closed")
        with _stock():
            try:
                return function(*arguments)
            except (Exception, SystemExit) as error:
                raise EngineError(f"the engine failed in {self._game.task}: {_short(error)}") from error


def _with_library(pddl_env: Any, infos: Any) -> Any:
    """Return upstream's environment over an idle library; only when there is none, a further copy is mapped."""
    if not _idle_libraries:
        return pddl_env(infos)
    from textworld import Environment

    env = pddl_env.__new__(pddl_env)
    Environment.__init__(env, infos)
    env.downward_lib = _idle_libraries.pop()
    return env


@contextmanager
def _stock() -> Iterator[None]:
    argv, stdout = sys.argv, sys.stdout
    with _LOCK:
        try:
            yield
        finally:
            sys.argv, sys.stdout = argv, stdout


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
