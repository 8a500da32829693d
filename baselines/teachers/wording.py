"""A wording of reasoning, in parts. Invariant: a trace level is a prefix of the parts, so no level has wordings of its own."""

from __future__ import annotations

from typing import NamedTuple, get_args

from cotbench.baselines.teachers.options import Names


class Wording(NamedTuple):
    """Reasoning at one state, with fields for names; a part may be empty.

    Attributes:
        goal: what is sought or held, and what for.
        finding: what the episode has shown: true facts.
        choice: what is done, with its verb or its object.
    """

    goal: str
    finding: str = ""
    choice: str = ""

    def parts(self, names: Names = "full") -> tuple[str, ...]:
        """Return the parts that a trace level includes.

        Args:
            names: the level.
        """
        return self[: get_args(Names).index(names) + 1]
