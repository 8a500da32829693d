"""How far the figures of an entry were checked. Invariant: every figure that a board or an entry shows stands in `FIGURES`,
which alone says what a replay recomputes and what a rerun compares; nothing is called more than it was checked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["self-reported", "replayed", "reproduced"]
LEVELS: Final[tuple[Level, ...]] = ("self-reported", "replayed", "reproduced")
"""In their order: nothing but the form was checked; the executed actions were replayed and gave the figure; the agent was
played again on a sample of the tasks, and answered the same.
"""

MARKS: Final[dict[Level, str]] = {"self-reported": "○", "replayed": "●", "reproduced": "◉"}
"""What stands beside a figure of a level in a table's head."""

LEGEND: Final[dict[Level, str]] = {
    "self-reported": "as submitted: no replay can check it",
    "replayed": "recomputed here by executing the actions again",
    "reproduced": "the agent was played again on a sample of the tasks and answered the same",
}


@dataclass(frozen=True, slots=True)
class Checks:
    """What can check a figure.

    Attributes:
        replay: executing the recorded actions again recomputes it.
        rerun: playing the agent again compares it.
    """

    replay: bool
    rerun: bool

    @property
    def reachable(self) -> Level:
        """Return the highest level that the figure can reach."""
        return "reproduced" if self.rerun else "replayed" if self.replay else "self-reported"

    def level(self, entry: Level) -> Level:
        """Return the level of the figure in an entry of a level."""
        if entry == "reproduced" and self.rerun:
            return "reproduced"
        return "replayed" if entry != "self-reported" and self.replay else "self-reported"


_EXECUTED: Final = Checks(replay=True, rerun=True)
_ANSWERED: Final = Checks(replay=False, rerun=True)
_CLAIMED: Final = Checks(replay=False, rerun=False)

FIGURES: Final[dict[str, Checks]] = {
    # What follows from the executed actions.
    **dict.fromkeys(("rank", "success", "macro_success", "passable_success", "by_type", "score", "behind", "gap"), _EXECUTED),
    **dict.fromkeys(("steps", "invalid_actions", "tasks"), _EXECUTED),
    # What an agent answered and no environment executes.
    **dict.fromkeys(("agent", "consistency", "revisions", "tokens", "format_ok", "trace_truncated"), _ANSWERED),
    # What depends on the machine that played, and who sent it.
    **dict.fromkeys(("computed", "prefilled_tokens", "reused_tokens"), _CLAIMED),
    **dict.fromkeys(("parameters", "weights", "dollars"), _CLAIMED),
    **dict.fromkeys(("name", "team", "link", "fingerprint"), _CLAIMED),
}
"""From a figure, by its name in `Standing`, `ModeSummary` or `Summary`, to what can check it."""

OURS: Final = frozenset({"entries", "state", "level", "baseline", "unranked", "submitted"})
"""What the leaderboard itself says of an entry, so that there is nothing to check."""


def head_level(name: str) -> Level | None:
    """Return the level at which a column of a board stands apart from others; None for what the leaderboard itself says.

    Raises:
        KeyError: nothing says what can check the figure.
    """
    if name in OURS:
        return None
    return "replayed" if FIGURES[name].replay else "self-reported"


def checked_figures(level: Level) -> dict[str, Level]:
    """Return the level of each figure in an entry of a level."""
    return {name: checks.level(level) for name, checks in FIGURES.items()}
