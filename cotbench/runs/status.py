"""The progress of a run in a notebook. Invariant: it counts every episode of the plan once, those of an earlier start too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.episode import Episode
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.rollout import RolloutSpec
from cotbench.status_line import StatusLine

_NAMES: dict[Mode, str] = {"prompt": "prompt", "cot": "CoT"}


class RunStatus:
    """An observer that shows episodes and wins in a line.

    Args:
        line: the line.
        total: episodes of the run.
    """

    def __init__(self, line: StatusLine, total: int) -> None:
        self._line, self._total = line, total
        self._played: Counter[Mode] = Counter()
        self._won: Counter[Mode] = Counter()
        self._errors = 0

    def resumed(self, played: Sequence[EpisodeRow]) -> None:
        """Count the episodes that were played before."""
        for row in played:
            self._count(row)
        self._line.show(self.text())

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Show how long the run has taken."""
        self._line.show(self.text())

    def finished(self, episode: Episode) -> None:
        """Count an episode."""
        self._count(episode)
        self._line.show(self.text(), last=self._errors + self._played.total() >= self._total)

    def text(self) -> str:
        """Return the line."""
        done = self._errors + self._played.total()
        rates = [f"{_NAMES[mode]} {self._won[mode]}/{self._played[mode]} won" for mode in MODES if self._played[mode]]
        errors = [f"{self._errors} errors"] if self._errors else []
        return ", ".join([f"{done}/{self._total} episodes", *rates, *errors, f"{self._line.seconds:.0f} s"])

    def _count(self, one: Episode | EpisodeRow) -> None:
        if one.error is not None:
            self._errors += 1
            return
        self._played[one.mode] += 1
        self._won[one.mode] += one.success
