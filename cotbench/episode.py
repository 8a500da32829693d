"""One task played to its end, as it is written down. Invariant: an episode is complete or it is an error that says why; every
field but `seconds` is the same when the run is repeated.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from cotbench.elicitation import Mode
from cotbench.query import Decision

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RecordedDecision(BaseModel):
    """A `Decision`, with the canonical spelling under which its action is executed and compared."""

    model_config = _FROZEN

    canonical: str
    action: str
    trace: str | None = None
    raw: str = ""
    format_ok: bool = True
    trace_truncated: bool = False
    prompt_tokens: int = 0
    reused_tokens: int = 0
    trace_tokens: int = 0
    action_tokens: int = 0
    action_logprob: float | None = None
    dropped_observations: int = 0

    @classmethod
    def of(cls, decision: Decision, canonical: str) -> RecordedDecision:
        """The record of a decision that is not an error."""
        fields: dict[str, Any] = asdict(decision)
        fields.pop("error")
        return cls(canonical=canonical, **fields)

    def decision(self) -> Decision:
        """The decision as the agent gave it."""
        return Decision(**self.model_dump(exclude={"canonical"}))

    @property
    def generated_tokens(self) -> int:
        """Tokens written by the model."""
        return self.trace_tokens + self.action_tokens


class Step(BaseModel):
    """One executed action.

    Attributes:
        decision: what was executed.
        prompt_decision: in a CoT episode of mode `both`, the prompt action at the same state; not executed.
        expert_action: the expert's action at this state, where it is known.
        observation: what the environment then said.
        score: the score after the action, in [0, 1].
        invalid_action: why the action did nothing, or None.
    """

    model_config = _FROZEN

    decision: RecordedDecision
    prompt_decision: RecordedDecision | None = None
    expert_action: str | None = None
    observation: str
    score: float
    invalid_action: str | None = None


class Episode(BaseModel):
    """One task in one mode.

    Attributes:
        error: an infrastructure failure; then the other outcome fields mean nothing and the episode has no score.
        steps: actions executed.
        success: upstream's verdict.
        score: in [0, 1]; `raw_score` is upstream's number.
    """

    model_config = _FROZEN

    task: str
    task_type: str
    mode: Mode
    error: str | None = None
    goal: str = ""
    success: bool = False
    score: float = 0.0
    raw_score: float = 0.0
    steps: int = 0
    terminated: bool = False
    truncated: bool = False
    first_observation: str = ""
    trajectory: tuple[Step, ...] = ()
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Names the episode within its run."""
        return episode_key(self.task, self.mode)


def episode_key(task: str, mode: Mode) -> str:
    """The name of an episode within its run."""
    return f"{task}#{mode}"
