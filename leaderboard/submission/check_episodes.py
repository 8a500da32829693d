"""The episodes of a submission. Invariant: exactly one of each planned task and mode, in the plan's order, each of them an
error without a score or a whole episode whose steps, actions and numbers agree with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission import limits
from cotbench.leaderboard.submission.json_reader import quote_value
from cotbench.prompting.query import Decision
from cotbench.runs.episode import EPISODES, Episode, Step, episode_key
from cotbench.runs.plan import RunPlan
from cotbench.runs.rollout import RolloutSpec

COUNT: Final = 1_000_000_000
"""Tokens, and whatever else is counted in an episode, are fewer."""


def check_episodes(episodes: Sequence[Episode], plan: RunPlan) -> None:
    """Compare episodes with the plan and with themselves.

    Raises:
        SubmissionError: names the line, the episode, the step and the field.
    """
    units = plan.rollouts
    _check_order([episode.key for episode in episodes], [episode_key(unit.task, unit.mode) for unit in units])
    budget = plan.config.max_steps or plan.entry.max_steps()
    canonical = plan.entry.canonical()
    characters = 0
    for number, (episode, unit) in enumerate(zip(episodes, units, strict=True), 1):
        at = _Place(number, episode.key)
        characters += sum(len(decision.action) for step in episode.trajectory for _, decision, _ in _decisions(step, episode))
        if characters > limits.ACTIONS:
            raise at.refused(f"the actions of a submission have at most {limits.ACTIONS:,} characters together")
        _check_outcome(at, episode, unit, budget)
        prompted = plan.config.mode == "both" and episode.mode == "cot"
        for index, step in enumerate(episode.trajectory):
            _check_step(at.step(index), step, episode, prompted, canonical)


def _check_order(found: Sequence[str], planned: Sequence[str]) -> None:
    """Require one episode of each planned task and mode, in order."""
    known, seen = set(planned), dict[str, int]()
    for number, key in enumerate(found, 1):
        if key not in known:
            raise SubmissionError(
                f"{EPISODES}, line {number}: {quote_value(key)} is not planned: the manifest does not list it"
            )
        if key in seen:
            raise SubmissionError(f"{EPISODES}, line {number}: {key} occurs twice, first in line {seen[key]}")
        seen[key] = number
    missing = [key for key in planned if key not in seen]
    if missing:
        raise SubmissionError(
            f"{EPISODES}: {len(missing)} of {len(planned)} episodes are missing, the first is {missing[0]}: "
            "every episode that was planned is submitted, the failed ones too"
        )
    for number, (key, wanted) in enumerate(zip(found, planned, strict=True), 1):
        if key != wanted:
            raise SubmissionError(f"{EPISODES}, line {number}: is {key}, but the plan has {wanted} there")


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in `episodes.jsonl`, for errors."""

    line: int
    key: str
    within: str = ""

    def step(self, index: int) -> _Place:
        """Return the place of a step of the episode."""
        return _Place(self.line, self.key, f", step {index}")

    def require(self, field: str, found: object, wanted: object) -> None:
        """Refuse a value other than the only one that can be."""
        if found != wanted:
            raise self.refused(f"{field} is {quote_value(found)}, not {quote_value(wanted)}")

    def refused(self, what: str) -> SubmissionError:
        """Return the error about this place."""
        return SubmissionError(f"{EPISODES}, line {self.line} ({self.key}){self.within}: {what}")


def _check_outcome(at: _Place, episode: Episode, unit: RolloutSpec, budget: int) -> None:
    at.require("task_type", episode.task_type, unit.task_type)
    at.require("steps", episode.steps, len(episode.trajectory))
    if episode.steps > budget:
        raise at.refused(f"steps is {episode.steps}, the step budget is {budget}")
    if not 0 <= episode.restarts < COUNT:
        raise at.refused(f"restarts is {episode.restarts}: impossible")
    if not 0 <= episode.seconds < COUNT:
        raise at.refused(f"seconds is {episode.seconds}: impossible")
    for field in ("error_kind", "traceback"):
        if getattr(episode, field) is not None:
            raise at.refused(f"{field} must not be submitted: it stays on the machine that played; submit with cotbench")
    if episode.error is not None:
        for field in ("success", "score", "raw_score", "terminated", "truncated"):
            if getattr(episode, field):
                raise at.refused(f"{field} is {getattr(episode, field)}, but it ended in an error, which has no outcome")
        return
    if not 0 <= episode.score <= 1:
        raise at.refused(f"score is {episode.score}, not in [0, 1]")
    if not episode.trajectory:
        raise at.refused("steps is 0: an episode that did not end in an error has an action")
    if episode.terminated == episode.truncated:
        raise at.refused(f"terminated and truncated are both {episode.terminated}: an episode ends in one of the two ways")
    at.require("score", episode.score, episode.trajectory[-1].score)


def _check_step(at: _Place, step: Step, episode: Episode, prompted: bool, canonical: Callable[[str], str]) -> None:
    if not 0 <= step.score <= 1:
        raise at.refused(f"score is {step.score}, not in [0, 1]")
    at.require("action", step.action, canonical(step.decision.action))
    if (step.prompt_decision is not None) != prompted:
        raise at.refused(
            "prompt_decision is missing, and mode both has one at every state of a CoT episode"
            if prompted
            else "prompt_decision is present, but only a CoT episode of mode both has one"
        )
    if step.prompt_decision is None:
        at.require("prompt_action", step.prompt_action, None)
    else:
        at.require("prompt_action", step.prompt_action, canonical(step.prompt_decision.action))
    for field, decision, reasoned in _decisions(step, episode):
        if decision.error is not None:
            raise at.refused(f"{field}.error is {quote_value(decision.error)}: an answer that failed ends its episode")
        if decision.error_kind is not None or decision.traceback is not None:
            raise at.refused(f"{field} holds a failure without an error")
        if decision.trace is not None and not reasoned:
            raise at.refused(f"{field}.trace is {quote_value(decision.trace)}: a prompt action has no trace")
        for name in _COUNTS:
            if not 0 <= getattr(decision, name) < COUNT:
                raise at.refused(f"{field}.{name} is {getattr(decision, name)}: impossible")


_COUNTS: Final = (
    "prompt_tokens",
    "reused_tokens",
    "prefilled_tokens",
    "trace_tokens",
    "action_tokens",
    "discarded_tokens",
    "dropped_observations",
)


def _decisions(step: Step, episode: Episode) -> Iterator[tuple[str, Decision, bool]]:
    """Yield the decisions of a step: field, decision, whether it may have a trace."""
    yield "decision", step.decision, episode.mode == "cot"
    if step.prompt_decision is not None:
        yield "prompt_decision", step.prompt_decision, False
