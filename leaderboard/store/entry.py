"""An entry as everybody sees it, and the results of its modes. Invariant: its numbers were computed here from its episodes,
never taken from a submitter; `replayed` means that executing its actions again gave every observation, score and verdict that
it claims, and nothing more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from cotbench.leaderboard.store.copies import Overlap
from cotbench.leaderboard.store.levels import Level, checked_figures
from cotbench.leaderboard.submission.baselines import is_baseline
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.submission.model_facts import ModelFacts
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.expert_share import ExpertShare
from cotbench.leaderboard.verification.reproduction import Reproduction
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.episode import Episode
from cotbench.runs.summary import Summary
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

State = Literal["pending", "replayed", "rejected", "unchecked"]
STATES: tuple[State, ...] = ("pending", "replayed", "rejected", "unchecked")


class Entry(BaseModel):
    """A submitted run.

    Attributes:
        id: twelve hexadecimal digits, the beginning of the digest of what was played.
        number: its place in the order of submission, from 1.
        submitted: when, UTC; `settled` when it was replayed, rejected, or given up.
        state: `unchecked` where the replay was given up, and `unchecked` says why.
        level: how far its figures were checked, at most; `levels.FIGURES` says which figures reach it.
        baseline: its agent is no model, so the entry stands beside the ranks.
        difference: the first one, of a rejected entry.
        unranked: why it has no rank though it may be replayed: "4 of 120 tasks", ...; empty for a whole run of its own.
        notes: what else a reader should know of it.
        mode: `prompt`, `cot` or `both`.
        overlaps: what it has in common with earlier entries.
        expert: how much of it is the expert's.
        reproduction: the outcome of a rerun of its agent.
        summary: the numbers, computed from the episodes.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    number: int
    details: Details
    submitted: datetime
    settled: datetime | None = None
    state: State = "pending"
    level: Level = "self-reported"
    baseline: bool = False
    difference: Difference | None = None
    unchecked: str = ""
    unranked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mode: str
    overlaps: tuple[Overlap, ...] = ()
    expert: tuple[ExpertShare, ...] = ()
    reproduction: Reproduction | None = None
    summary: Summary

    @computed_field  # type: ignore[prop-decorator]
    @property
    def figures(self) -> dict[str, Level]:
        """The level of each figure in `summary`."""
        return checked_figures(self.level)


def level_of(state: State, reproduction: Reproduction | None, scored: int) -> Level:
    """Return how far an entry was checked.

    Args:
        state: of the entry.
        reproduction: of its newest rerun.
        scored: episodes that did not end in an error; the others have nothing to replay.
    """
    if state != "replayed" or not scored:
        return "self-reported"
    return "reproduced" if reproduction is not None and reproduction.reproduced else "replayed"


def rank_reasons(
    agent: str, overlaps: Iterable[Overlap], expert: Iterable[ExpertShare], mode: Mode | None = None
) -> tuple[str, ...]:
    """Return why an entry has no rank, apart from what its submission says.

    Args:
        agent: its spec.
        overlaps, expert: what it has in common with earlier entries and with the expert.
        mode: of its episodes; None: any.
    """
    duplicates = [one for one in overlaps if one.duplicate and mode in (None, one.mode)]
    experts = [one for one in expert if one.plays_expert and mode in (None, one.mode)]
    baseline = ("a baseline, not a model",) if is_baseline(agent) else ()
    copied = () if baseline else tuple(map(str, experts[:1]))
    return (*baseline, *copied, *map(str, duplicates[:1]))


WON, LOST, NONE = "1", "0", "-"


class Result(BaseModel):
    """One mode of an entry. Intervals are over tasks.

    Attributes:
        tokens: generated an episode; `computed` generated and prefilled.
        gap: CoT minus prompt, of an entry with both modes; `consistency` likewise.
        dollars: an episode; None where the run has no prices.
        model: size and weights, as the manifest gives them.
        tasks_sha256: of the sorted task ids; results are paired where it is the same.
        outcomes: a character for each of the sorted tasks: 1 won, 0 not won, - no outcome.
    """

    model_config = ConfigDict(frozen=True)

    success: Estimate
    score: Estimate
    tokens: Estimate
    computed: Estimate
    gap: Estimate | None
    consistency: Estimate | None
    dollars: Estimate | None = None
    model: ModelFacts = ModelFacts()
    tasks_sha256: str
    outcomes: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One mode of an entry, with what a board needs of it."""

    id: str
    number: int
    details: Details
    submitted: datetime
    state: State
    level: Level
    unranked: tuple[str, ...]
    agent: str
    tasks: int
    fingerprint: str
    result: Result


def tasks_sha256(tasks: Iterable[str]) -> str:
    """Return the sha256 of a set of tasks, whose order does not matter."""
    return hashlib.sha256("".join(f"{task}\n" for task in sorted(tasks)).encode()).hexdigest()


def results_of(
    tasks: Sequence[str], episodes: Sequence[Episode], summary: Summary, model: ModelFacts | None = None
) -> dict[Mode, Result]:
    """Compute the results of a run.

    Args:
        tasks: the planned ones.
        episodes: at most one of each task and mode.
        summary: of these episodes.
        model: size and weights; None: unknown.

    Returns:
        The result of each mode that was played.
    """
    by_mode = {mode: {one.task: one for one in episodes if one.mode == mode} for mode in MODES}
    facts = model or ModelFacts()
    return {mode: _result(mode, sorted(tasks), some, summary, facts) for mode, some in by_mode.items() if some}


def _result(mode: Mode, tasks: Sequence[str], episodes: dict[str, Episode], summary: Summary, model: ModelFacts) -> Result:
    scored = [one for one in episodes.values() if one.error is None]
    numbers = summary.modes[mode]
    return Result(
        success=numbers.success,
        score=numbers.score,
        tokens=numbers.tokens,
        computed=estimates.mean(
            [
                float(sum(step.decision.generated_tokens + step.decision.prefilled_tokens for step in one.trajectory))
                for one in scored
            ]
        ),
        gap=summary.gap.success if summary.gap is not None else None,
        consistency=summary.consistency.consistency if summary.consistency is not None else None,
        dollars=getattr(numbers, "dollars", None),
        model=model,
        tasks_sha256=tasks_sha256(tasks),
        outcomes="".join(_outcome(episodes.get(task)) for task in tasks),
    )


def _outcome(episode: Episode | None) -> str:
    if episode is None or episode.error is not None:
        return NONE
    return WON if episode.success else LOST
