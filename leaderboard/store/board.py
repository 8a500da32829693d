"""A board: what is ranked against what. Invariant: entries of one board played the same split in the same mode."""

from __future__ import annotations

from dataclasses import dataclass

from cotbench.envs.groups import overall_groups
from cotbench.prompting.elicitation import MODES, Mode


@dataclass(frozen=True, slots=True, order=True)
class Board:
    """One board.

    Attributes:
        env: an environment's name, or one of `overall_groups`: the unweighted mean over several.
        scheme, split: as of a run.
        mode: `prompt` or `cot`; a run in mode both stands on both boards.
    """

    env: str
    scheme: str
    split: str
    mode: Mode

    @property
    def envs(self) -> tuple[str, ...]:
        """Return the environments behind it."""
        return overall_groups().get(self.env, (self.env,))

    @property
    def overall(self) -> bool:
        """Return whether it is a mean over environments."""
        return self.env in overall_groups()

    @property
    def slug(self) -> str:
        """Return its name in addresses and files."""
        return f"{self.env}_{self.scheme}_{self.split}_{self.mode}"


def boards_of(env: str, scheme: str, split: str) -> list[Board]:
    """Return the boards of a split, one for each mode."""
    return [Board(env, scheme, split, mode) for mode in MODES]
