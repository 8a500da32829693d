"""What an ALFWorld engine is. Invariant: every engine says the same words for the same game and commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a command did: the engine's text, whether the goal now holds, whether the command was admissible."""

    text: str
    won: bool
    valid: bool


class Engine(Protocol):
    """One running game."""

    def reset(self) -> str:
        """Start the game anew; the first observation."""

    def step(self, command: str) -> Feedback:
        """Execute one command."""

    def admissible(self) -> list[str]:
        """Sorted, unique commands that do something now."""

    def names(self) -> frozenset[str]:
        """The things in the game, by the names under which they are spoken of."""

    def close(self) -> None:
        """Free everything; safe to call twice."""
