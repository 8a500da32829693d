"""The replay of a whole run. Invariant: the first difference in the order of the run is found, whatever replays it; the
expert's actions are the environment's own, also where the run recorded none.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cotbench.envs.registry import EnvEntry
from cotbench.leaderboard.submission.baselines import is_baseline
from cotbench.leaderboard.verification.budget import Budget
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.expert_share import ExpertShare
from cotbench.leaderboard.verification.replay import ExpertSteps
from cotbench.leaderboard.verification.replay_processes import Finished, Group, ReplaySettings, replay_in_processes
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.env_workers import EnvSettings
from cotbench.runs.episode import Episode

if TYPE_CHECKING:
    from cotbench.leaderboard.submission.bundle import Bundle

EXPERT_TASKS: Final = 10
"""Tasks on which a run is compared with an expert whose actions it did not record: a gold path takes up to 13 s to find."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a replay.

    Attributes:
        difference: the first one; None: all agrees.
        expert: of a model's run that agrees, how much of each mode is the expert's; of several experts, the one with most.
    """

    difference: Difference | None
    expert: tuple[ExpertShare, ...] = ()


class RunReplay:
    """A run and what it takes to replay it.

    Args:
        bundle: the run.
        entry: its environment.
        jobs: how many processes; 0: this one.
        data: the folder of its games.
        progress: called with how many episodes are done, and of how many.
    """

    def __init__(
        self,
        bundle: Bundle,
        entry: EnvEntry,
        jobs: int,
        data: Path | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._manifest, self._entry, self._jobs, self._data = bundle.manifest, entry, jobs, data
        self._episodes = [episode for episode in bundle.episodes if episode.error is None]
        self._progress = progress
        self._seed = bundle.digest

    def verdict(self) -> Verdict:
        """Replay every episode; where all agrees, compare a model's run with every expert of the environment."""
        config = self._manifest.config
        wanted = config.expert_actions if config.expert_actions is not None else self._entry.expert_at_hand
        recorded = wanted or any(step.expert_action is not None for one in self._episodes for step in one.trajectory)
        # Actions are recorded at all states or at none, so none that changes a figure goes unchecked.
        steps: dict[str, dict[Mode, ExpertSteps]] = {}
        name = self._manifest.expert
        difference = self._replay(self._episodes, name if recorded else None, recorded, steps, self._jobs, self._progress)
        if difference is not None or is_baseline(config.agent):
            return Verdict(difference)
        experts = dict.fromkeys(self._entry.experts) if self._entry.experts is not None else {"": None}
        sample = self._sample()
        for expert in experts:
            if expert not in steps:
                self._replay(sample, expert, False, steps, min(self._jobs, 1), None)
        return Verdict(None, _shares(steps))

    def _sample(self) -> list[Episode]:
        """Return the episodes of a few tasks, which the content of the run draws."""
        tasks = sorted({episode.task for episode in self._episodes})
        drawn = set(random.Random(self._seed).sample(tasks, min(EXPERT_TASKS, len(tasks))))
        return [episode for episode in self._episodes if episode.task in drawn]

    def _replay(
        self,
        episodes: Sequence[Episode],
        expert: str | None,
        recorded: bool,
        steps: dict[str, dict[Mode, ExpertSteps]],
        jobs: int,
        progress: Callable[[int, int], None] | None,
    ) -> Difference | None:
        """Replay episodes and count the steps that are the expert's.

        Args:
            episodes: those to replay.
            expert: whose actions are requested; empty: those of the only one; None: nobody's.
            recorded: whether the recorded actions of the expert are compared.
            steps: takes the counts, by expert and mode.
            jobs: how many processes; 0: this one.
            progress: called with how many episodes are done, and of how many.
        """
        done = 0

        def finished(episode: Episode, counted: ExpertSteps) -> None:
            nonlocal done
            done += 1
            if expert is not None:
                of_mode = steps.setdefault(expert, defaultdict(ExpertSteps))[episode.mode]
                of_mode.same += counted.same
                of_mode.steps += counted.steps
            if progress is not None:
                progress(done, len(episodes))

        settings = ReplaySettings(self._settings(expert), recorded, Budget.of(self._entry, episodes))
        groups: list[Group] = [tuple(group) for _, group in groupby(enumerate(episodes), key=lambda numbered: numbered[1].task)]
        if jobs:
            return replay_in_processes(settings, groups, jobs, finished)
        return _replay_here(settings, episodes, finished)

    def _settings(self, expert: str | None) -> EnvSettings:
        """Return the environment's settings as the run had them, with the actions of an expert."""
        config = self._manifest.config
        return EnvSettings(
            config.env,
            {
                "split": config.split,
                "scheme": config.scheme,
                "max_steps": config.max_steps,
                "request": ["expert_action"] if expert is not None else [],
                **({"expert": expert} if expert else {}),
                **({"data": self._data} if self._entry.takes_data else {}),
            },
            dialect=self._manifest.dialect,
        )


def _replay_here(settings: ReplaySettings, episodes: Sequence[Episode], finished: Finished) -> Difference | None:
    replayer = settings.replayer()
    try:
        for episode in episodes:
            if (found := replayer.difference(episode)) is not None:
                return found
            finished(episode, replayer.expert)
    finally:
        replayer.close()
    return None


def _shares(steps: dict[str, dict[Mode, ExpertSteps]]) -> tuple[ExpertShare, ...]:
    """Return for each mode the expert that shares most of its steps."""
    found = []
    for mode in MODES:
        shares = [
            ExpertShare(mode=mode, expert=expert, same=by_mode[mode].same, steps=by_mode[mode].steps)
            for expert, by_mode in steps.items()
            if mode in by_mode
        ]
        if shares:
            found.append(max(shares, key=lambda share: share.same / max(1, share.steps)))
    return tuple(found)
