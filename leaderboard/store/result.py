"""What one mode of an entry reached. Invariant: figures and the outcomes that pair them were computed from the episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.episode import Episode
from cotbench.runs.summary import Summary
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

WON, LOST, NONE = "1", "0", "-"


class Result(BaseModel):
    """One mode of an entry. Intervals are over tasks.

    Attributes:
        tokens: generated an episode; `computed` generated and prefilled.
        gap: CoT minus prompt, of an entry with both modes; `consistency` likewise.
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
    tasks_sha256: str
    outcomes: str


def tasks_sha256(tasks: Iterable[str]) -> str:
    """The sha256 of a set of tasks, in whatever order they were played."""
    return hashlib.sha256("".join(f"{task}\n" for task in sorted(tasks)).encode()).hexdigest()


def results_of(tasks: Sequence[str], episodes: Sequence[Episode], summary: Summary) -> dict[Mode, Result]:
    """The results of a run, by mode."""
    played = {mode: {one.task: one for one in episodes if one.mode == mode} for mode in MODES}
    return {mode: _result(mode, sorted(tasks), some, summary) for mode, some in played.items() if some}


def _result(mode: Mode, tasks: Sequence[str], episodes: dict[str, Episode], summary: Summary) -> Result:
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
        tasks_sha256=tasks_sha256(tasks),
        outcomes="".join(_outcome(episodes.get(task)) for task in tasks),
    )


def _outcome(episode: Episode | None) -> str:
    if episode is None or episode.error is not None:
        return NONE
    return WON if episode.success else LOST
