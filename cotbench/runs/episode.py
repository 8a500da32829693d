"""Episodes: one task played to its end, and `episodes.jsonl`, the file of a run's episodes. Invariant: an episode is complete,
or it has an `error`; every field but `seconds` is the same when the run is repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cotbench.errors import RunFolderError
from cotbench.failure import ErrorKind
from cotbench.prompting.elicitation import Mode
from cotbench.prompting.query import Decision
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.jsonl_store import JsonlStore
from cotbench.runs.manifest import MANIFEST
from cotbench.runs.records import Records

EPISODES = "episodes.jsonl"
_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _is_zero(value: object) -> bool:
    return value == 0


def _is_none(value: object) -> bool:
    return value is None


class Step(BaseModel):
    """Hold one executed action.

    Attributes:
        action: what was executed: the decision's action in its canonical spelling.
        decision: what the agent answered.
        prompt_action: in a CoT episode of mode `both`, the prompt action at the same state, canonical; not executed.
        prompt_decision: the decision that it is the action of.
        expert_action: the expert's action at this state, where it is known.
        observation: what the environment returned.
        score: the score after the action, in [0, 1].
        invalid_action: why the action did nothing, or None.
    """

    model_config = _FROZEN

    action: str
    decision: Decision
    prompt_action: str | None = None
    prompt_decision: Decision | None = None
    expert_action: str | None = None
    observation: str
    score: float
    invalid_action: str | None = None

    @property
    def revised(self) -> bool:
        """Return whether the trace changed the action: the prompt action is known and another one."""
        return self.prompt_action is not None and self.prompt_action != self.action


class Episode(BaseModel):
    """Hold one task played in one mode.

    Attributes:
        task, task_type: the task's id, and its kind within the environment.
        mode: `prompt` or `cot`.
        rollout: which play of the task in this mode this is, from 0; left out of JSON when 0.
        error: why it could not be played to its end; then the other outcome fields mean nothing and the episode has no score.
        error_kind: whose failure that was; left out of JSON where None: there is no error, or an older version wrote it.
        traceback: of the exception behind the error; left out of JSON where there was none. It names files of the machine
            that played, so it is in no submission.
        steps: actions executed.
        restarts: how often the engine was lost, and brought back to where it was in a new process.
        functions: what could be called from the first turn on, as JSON schemas, one a line.
        first_observation: what the environment returned before the first action.
        trajectory: the executed actions, in order.
        goal: the task's sentence, as the environment tells it.
        success: upstream's verdict.
        score: in [0, 1]; `raw_score` is upstream's number.
        terminated: the task ended; `truncated`: the step budget ran out.
        seconds: wall clock.
    """

    model_config = _FROZEN

    task: str
    task_type: str
    mode: Mode
    rollout: int = Field(0, ge=0, exclude_if=_is_zero)
    error: str | None = None
    error_kind: ErrorKind | None = Field(None, exclude_if=_is_none)
    traceback: str | None = Field(None, exclude_if=_is_none)
    goal: str = ""
    success: bool = False
    score: float = 0.0
    raw_score: float = 0.0
    steps: int = 0
    terminated: bool = False
    truncated: bool = False
    restarts: int = 0
    functions: str = ""
    first_observation: str = ""
    trajectory: tuple[Step, ...] = ()
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Return the episode's name within its run."""
        return episode_key(self.task, self.mode, self.rollout)


def episode_key(task: str, mode: Mode, rollout: int = 0) -> str:
    """Return an episode's name within its run: `task#mode`, with `@k` behind it for rollout k > 0."""
    return f"{task}#{mode}" + (f"@{rollout}" if rollout else "")


def row_of(episode: Episode) -> EpisodeRow:
    """Return the row of an episode."""
    steps = episode.trajectory
    decisions = [step.decision for step in steps]
    prompted = [step for step in steps if step.prompt_action is not None]
    prompt_decisions = [step.prompt_decision for step in steps if step.prompt_decision is not None]
    known = [step for step in prompted if step.expert_action is not None]
    changed = [step for step in known if step.revised]
    lengths = [len(episode.goal), len(episode.first_observation)]
    for step in steps:
        texts = (step.action, step.prompt_action, step.expert_action, step.decision.trace, step.observation)
        lengths += [len(text) for text in texts if text is not None]
    return EpisodeRow(
        key=episode.key,
        task=episode.task,
        task_type=sys.intern(episode.task_type),
        mode=episode.mode,
        error=episode.error,
        error_kind=episode.error_kind,
        success=episode.success,
        score=episode.score,
        steps=episode.steps,
        restarts=episode.restarts,
        last_answer=decisions[-1].action if episode.success and decisions else None,
        invalid_actions=sum(step.invalid_action is not None for step in steps),
        generated_tokens=sum(decision.generated_tokens for decision in decisions),
        prefilled_tokens=sum(decision.prefilled_tokens for decision in decisions),
        reused_tokens=sum(decision.reused_tokens for decision in decisions),
        format_kept=sum(decision.format_ok for decision in decisions),
        truncated_traces=sum(decision.trace_truncated for decision in decisions),
        dropped_observations=any(decision.dropped_observations for decision in decisions),
        longest_shown=max((len(step.observation) for step in steps[:-1]), default=0),
        compared=len(prompted),
        revised=sum(step.revised for step in prompted),
        prompt_decisions=len(prompt_decisions),
        prompt_generated_tokens=sum(decision.generated_tokens for decision in prompt_decisions),
        prompt_prefilled_tokens=sum(decision.prefilled_tokens for decision in prompt_decisions),
        expert_compared=len(known),
        expert_revised=len(changed),
        helped=sum(step.action == step.expert_action for step in changed),
        hurt=sum(step.prompt_action == step.expert_action for step in changed),
        characters=sum(lengths),
        longest_text=max(lengths),
        rollout=episode.rollout,
        prompt_reused_tokens=sum(decision.reused_tokens for decision in prompt_decisions),
    )


class Journal(JsonlStore[Episode, EpisodeRow]):
    """A run folder's episodes, open for writing."""

    name = EPISODES
    manifest = MANIFEST
    model = Episode
    noun = "an episode"

    @classmethod
    def row(cls, record: Episode) -> EpisodeRow:
        """Return the small numbers of an episode."""
        return row_of(record)


def read_episodes(folder: Path) -> Records[Episode, EpisodeRow]:
    """Return the episodes of a run folder, each once; a success after an error replaces it. Changes nothing.

    The episodes are read from the file when they are wanted; in memory are their rows alone.

    Raises:
        RunFolderError: no run there, or a damaged line.
    """
    if not (folder / EPISODES).is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no {EPISODES}")
    return Journal.read(folder)


def rows_of(episodes: Iterable[Episode]) -> list[EpisodeRow]:
    """Return the rows of episodes: those at hand where they come from a file.

    Args:
        episodes: of a run.
    """
    return episodes.rows if isinstance(episodes, Records) else [row_of(episode) for episode in episodes]
