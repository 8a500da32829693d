"""The expert that knows the whole household: a game's walkthrough. Invariant: it gives a next action only while the episode has
followed it; off its path it gives none rather than a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.envs.alfworld.actions import MOVE, Dialect, changes_nothing


class Walkthrough:
    """Cursor in a winning list of commands.

    Looking, examining and commands that did nothing leave the state alone, so they leave the cursor where it is.

    Args:
        commands: a game's walkthrough.
        dialect: the game's.
    """

    def __init__(self, commands: Sequence[str], dialect: Dialect = MOVE) -> None:
        self._commands = tuple(map(dialect.canonical, commands))
        self._next = 0
        self._on_path = True

    def next_action(self) -> str | None:
        """Return the next command, or None off the path and after the end."""
        if not self._on_path or self._next >= len(self._commands):
            return None
        return self._commands[self._next]

    def observe(self, action: str, valid: bool) -> None:
        """Advance the cursor, or leave the path, after an executed action.

        Args:
            action: the canonical action.
            valid: whether it was admissible.
        """
        if action == self.next_action():
            self._next += 1
        elif valid and not changes_nothing(action):
            self._on_path = False
