"""A board: what is ranked against what. Invariant: entries of one board played the same split in the same mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cotbench.prompting.elicitation import MODES, Mode

OVERALL: Final = {
    "all": ("alfworld", "scienceworld", "bfcl"),
    "all-gen": ("alfworld-gen", "scienceworld", "bfcl"),
}
"""Boards over several environments: the unweighted mean of their success rates. `all-gen` has ALFWorld's generated games."""


@dataclass(frozen=True, slots=True, order=True)
class Board:
    """One board.

    Attributes:
        env: an environment's name, or one of `OVERALL`.
        scheme, split: as of a run.
        mode: `prompt` or `cot`; a run in mode both stands on both boards.
    """

    env: str
    scheme: str
    split: str
    mode: Mode

    @property
    def envs(self) -> tuple[str, ...]:
        """The environments behind it."""
        return OVERALL.get(self.env, (self.env,))

    @property
    def overall(self) -> bool:
        """Whether it is a mean over environments."""
        return self.env in OVERALL

    @property
    def slug(self) -> str:
        """Its name in addresses and files."""
        return f"{self.env}_{self.scheme}_{self.split}_{self.mode}"


def boards_of(env: str, scheme: str, split: str) -> list[Board]:
    """The boards of a split."""
    return [Board(env, scheme, split, mode) for mode in MODES]
