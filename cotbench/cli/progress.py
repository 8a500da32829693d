"""Progress of a run: a bar with the success rates on a terminal, a line an episode elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from cotbench.cli.terminal import console, echo_error, text_column
from cotbench.prompting.elicitation import Mode
from cotbench.runs.episode import Episode
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.plan import RunPlan
from cotbench.runs.rollout import Observer, RolloutSpec
from cotbench.runs.runner import SilentObserver


class _Tally:
    """Wins and episodes by mode."""

    def __init__(self) -> None:
        self.won: dict[Mode, int] = {}
        self.played: dict[Mode, int] = {}
        self.errors = 0
        self.steps = 0

    def add(self, episode: Episode | EpisodeRow) -> None:
        if episode.error is not None:
            self.errors += 1
            return
        self.played[episode.mode] = self.played.get(episode.mode, 0) + 1
        self.won[episode.mode] = self.won.get(episode.mode, 0) + episode.success

    def text(self) -> str:
        rates = [f"{mode} {self.won[mode]}/{count} won" for mode, count in self.played.items()]
        return "  ".join([*rates, *([f"{self.errors} errors"] if self.errors else []), f"{self.steps} steps"])


class _Bar:
    def __init__(self, bar: Progress, total: int) -> None:
        self._bar, self._tally = bar, _Tally()
        self._task = bar.add_task("episodes", total=total, rates=self._tally.text())

    def resumed(self, played: Sequence[EpisodeRow]) -> None:
        for row in played:
            self._tally.add(row)
        self._bar.update(self._task, completed=len(played), rates=self._tally.text())

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        self._tally.steps += 1
        self._bar.update(self._task, rates=self._tally.text())

    def finished(self, episode: Episode) -> None:
        self._tally.add(episode)
        self._bar.update(self._task, advance=1, rates=self._tally.text())


class _Lines:
    def __init__(self, total: int) -> None:
        self._total, self._count = total, 0

    def resumed(self, played: Sequence[EpisodeRow]) -> None:
        self._count = len(played)

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        pass

    def finished(self, episode: Episode) -> None:
        self._count += 1
        ending = f"error: {episode.error}" if episode.error else "won" if episode.success else "not won"
        echo_error(
            f"{self._count}/{self._total} {episode.mode} {episode.task}: {ending}, {episode.steps} steps, "
            f"{episode.seconds:.1f} s"
        )


@contextmanager
def progress(plan: RunPlan, *, quiet: bool) -> Iterator[Observer]:
    """Return an observer that shows the progress of a run on standard error.

    Args:
        plan: the plan of the run.
        quiet: show nothing.
    """
    if quiet:
        yield SilentObserver()
        return
    total = len(plan.rollouts)
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    columns = (
        text_column("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        text_column("{task.fields[rates]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        yield _Bar(bar, total)
