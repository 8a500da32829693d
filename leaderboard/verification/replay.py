"""The replay of one episode. Invariant: whatever a figure is computed from, and the environment knows, is compared exactly;
traces and tokens cannot be checked by a replay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cotbench.errors import EngineError, ReplayTimeoutError
from cotbench.leaderboard.verification.budget import Budget
from cotbench.leaderboard.verification.difference import Difference
from cotbench.runs.env_workers import EnvReply, EnvSettings, LocalEnv
from cotbench.runs.episode import Episode, Step

MAX_ACTION = 1_000_000
"""Characters; no run has a longer one, and the environments take up to a minute over ten times as many."""

FieldPair = tuple[str, object, object]
"""A field, as it was submitted, and as the replay has it."""


@dataclass(frozen=True, slots=True)
class ReplayRules:
    """The rules of an environment that need no engine.

    Attributes:
        canonical: its spelling of actions.
        task_type: the type of a task.
        expert: whether the run recorded the expert's actions.
    """

    canonical: Callable[[str], str]
    task_type: Callable[[str], str]
    expert: bool


@dataclass(slots=True)
class ExpertSteps:
    """Executed steps, and at how many of them the action was the expert's."""

    same: int = 0
    steps: int = 0

    def count(self, action: str, expert: str | None) -> None:
        """Count a step; `expert` is None where the expert has no action."""
        self.same += action == expert
        self.steps += 1


def replay_episode(
    episode: Episode, env: LocalEnv, rules: ReplayRules, deadline: float, expert: ExpertSteps
) -> Difference | None:
    """Execute the recorded actions and return the first difference, in the order of the episode.

    Args:
        episode: one that did not end in an error.
        env: gives the expert's actions where they were recorded.
        rules: of the environment.
        deadline: seconds on the monotonic clock; compared before every step.
        expert: counts the steps, where the environment gives the expert's actions.

    Raises:
        EngineError: the environment failed.
        ReplayTimeoutError: the time is spent.
    """
    key, recorded = episode.key, len(episode.trajectory)
    env.ask_reset(episode.task)
    reply = env.read()
    if found := _first(_beginning(episode, reply), key):
        return found
    for number, step in enumerate(episode.trajectory):
        if reply.terminated or reply.truncated:
            return Difference.at("steps", recorded, number, episode=key, step=number)
        if found := _first(_choice(step, reply, rules), key, number):
            return found
        if time.monotonic() > deadline:
            raise ReplayTimeoutError(f"it took too long: when time ran out it was at step {number} of {recorded}")
        if (action := reply.info.get("expert_action", step)) is not step:
            expert.count(step.action, rules.canonical(action) if action is not None else None)
        env.expect(step.observation)
        env.ask_step(step.action)
        reply = env.read()
        if found := _first(_consequence(step, reply), key, number):
            return found
    if not (reply.terminated or reply.truncated):
        return Difference.at("steps", recorded, f"more than {recorded}", episode=key, step=recorded)
    return _first(_ending(episode, reply, rules), key)


def _first(rows: Iterable[FieldPair], key: str, step: int | None = None) -> Difference | None:
    return next((Difference.at(field, one, other, episode=key, step=step) for field, one, other in rows if one != other), None)


def _beginning(episode: Episode, reply: EnvReply) -> list[FieldPair]:
    return [
        ("first_observation", episode.first_observation, reply.observation),
        ("goal", episode.goal, reply.info["goal"]),
        ("functions", episode.functions, "\n".join(map(json.dumps, reply.info.get("functions", ())))),
    ]


def _choice(step: Step, before: EnvReply, rules: ReplayRules) -> list[FieldPair]:
    """Return the action of a state and the expert's, as recorded and as replayed."""
    if len(step.action) > MAX_ACTION:
        return [("action", step.action, f"not replayed: longer than {MAX_ACTION:,} characters")]
    prompt = step.prompt_decision
    return [
        ("expert_action", step.expert_action, before.info["expert_action"] if rules.expert else None),
        ("action", step.action, rules.canonical(step.decision.action)),
        ("prompt_action", step.prompt_action, rules.canonical(prompt.action) if prompt is not None else None),
    ]


def _consequence(step: Step, reply: EnvReply) -> list[FieldPair]:
    return [
        ("observation", step.observation, reply.observation),
        ("score", step.score, reply.info["score"]),
        ("invalid_action", step.invalid_action, reply.info["invalid_action"]),
    ]


def _ending(episode: Episode, reply: EnvReply, rules: ReplayRules) -> list[FieldPair]:
    info = reply.info
    return [
        ("steps", episode.steps, len(episode.trajectory)),
        ("terminated", episode.terminated, reply.terminated),
        ("truncated", episode.truncated, reply.truncated),
        ("success", episode.success, info["success"]),
        ("score", episode.score, info["score"]),
        ("raw_score", episode.raw_score, info["raw_score"]),
        ("task", episode.task, info["task"]),
        ("task_type", episode.task_type, rules.task_type(episode.task)),
    ]


class Replayer:
    """An environment in this process, and the episodes that are replayed in it, one after the other.

    Episodes of one task are best replayed one after the other: the environment keeps the task that it has loaded.

    Args:
        settings: which environment; its `request` says whether it gives the expert's actions.
        recorded: whether the run recorded them.
        budget: the time that episodes may take.

    Attributes:
        expert: counts the steps of the last episode that agreed.
    """

    def __init__(self, settings: EnvSettings, recorded: bool, budget: Budget) -> None:
        entry = settings.entry
        self._settings = settings
        self._rules = ReplayRules(entry.canonical(), entry.source().task_type, recorded)
        self._budget = budget
        self._env: LocalEnv | None = None
        self.expert = ExpertSteps()

    def difference(self, episode: Episode) -> Difference | None:
        """Return the first difference of an episode; an environment that fails is replaced once.

        Raises:
            EngineError: it failed again; names the episode.
            ReplayTimeoutError: it took longer than an episode may; names it.
        """
        deadline = self._budget.deadline(episode)
        try:
            return self._replayed(episode, deadline)
        except EngineError as error:
            self.close()
            if isinstance(error, ReplayTimeoutError):
                raise _named(episode, error) from error
        try:
            return self._replayed(episode, deadline)
        except EngineError as error:
            self.close()
            raise _named(episode, error) from error

    def _replayed(self, episode: Episode, deadline: float) -> Difference | None:
        self.expert = ExpertSteps()
        return replay_episode(episode, self._opened(), self._rules, deadline, self.expert)

    def _opened(self) -> LocalEnv:
        if self._env is None:
            self._env = LocalEnv(self._settings)
        return self._env

    def close(self) -> None:
        """Close the environment; another is opened when it is needed."""
        env, self._env = self._env, None
        if env is not None:
            env.close()


def _named(episode: Episode, error: EngineError) -> EngineError:
    kind = ReplayTimeoutError if isinstance(error, ReplayTimeoutError) else EngineError
    return kind(f"{episode.key} cannot be replayed: {error}")
