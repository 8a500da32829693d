"""The interface of an ALFWorld engine. Invariant: every engine returns the same texts for the same game and commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Feedback:
    """Result of one command: the engine's text, whether the goal now holds, whether the command was admissible."""

    text: str
    won: bool
    valid: bool


class Engine(Protocol):
    """One running game."""

    def reset(self) -> str:
        """Start the game anew and return the first observation."""

    def step(self, command: str) -> Feedback:
        """Execute one command, spelled as `admissible` lists it."""

    def admissible(self) -> list[str]:
        """Return the commands that do something now, sorted and without duplicates."""

    def names(self) -> frozenset[str]:
        """Return the names of the things in the game, as texts and commands use them ("mug 1")."""

    def close(self) -> None:
        """Free everything; safe to call twice."""
