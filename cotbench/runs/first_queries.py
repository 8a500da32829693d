"""What a run asks first, without an agent. Invariant: the queries are those of the run itself, made by the code that plays it;
no action is executed and no file is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cotbench.errors import EngineError
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.prompting.query import Decision, Query
from cotbench.runs.env_workers import open_envs
from cotbench.runs.episode import Episode
from cotbench.runs.plan import RunPlan
from cotbench.runs.rollout import RolloutSpec, play

_RECORDED = "the query was recorded"


class _QueryRecorder:
    """An agent that keeps the queries and answers none of them, so that an episode ends at its first state; an observer too."""

    name = "recorder"
    uses_elicitation = True

    def __init__(self) -> None:
        self.queries: dict[Mode, Query] = {}
        self.errors: list[str] = []

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Record the queries."""
        for query in queries:
            self.queries.setdefault(query.mode, query)
        return [Decision("", error=_RECORDED) for _ in queries]

    def close(self) -> None:
        """Do nothing."""

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Do nothing."""

    def finished(self, episode: Episode) -> None:
        """Record why an episode ended before it was asked anything."""
        if episode.error is not None and _RECORDED not in episode.error:
            self.errors.append(episode.error)


def first_queries(plan: RunPlan, data: Path | None = None) -> list[Query]:
    """Return the queries at the first state of a run's first task, one for each mode that is played.

    Args:
        plan: the plan of the run.
        data: the folder with game data, where given.

    Raises:
        EngineError: the environment cannot be started.
        MissingExtraError: its engine is not installed.
    """
    plan.entry.require()
    dialect = plan.entry.dialect_of(plan.tasks[:1], data)
    request = ["admissible_actions"] if plan.config.elicitation.needs_admissible else []
    units = [unit for unit in plan.rollouts if unit.task == plan.tasks[0] and not unit.rollout]
    recorder = _QueryRecorder()
    envs = open_envs(plan.env_settings(request, data, dialect=dialect), 1, 0)
    try:
        play(units, recorder, envs, plan.rules(dialect), recorder)
    finally:
        for env in envs:
            env.close()
    if recorder.errors:
        raise EngineError(f"{plan.config.env} does not start {plan.tasks[0]}: {recorder.errors[0]}")
    return [recorder.queries[mode] for mode in MODES if mode in recorder.queries]
