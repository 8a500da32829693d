"""A judge's verdicts on the two actions of a state, and the numbers over many states. Invariant: an action is preferred only
where the judge named it in every order; a state that could not be judged is an error and in no number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cotbench.failure import ErrorKind
from cotbench.prompting.elicitation import Mode
from cotbench.prompting.query import Decision
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _is_none(value: object) -> bool:
    return value is None


Result = Literal["cot", "prompt", "split", "no verdict"]


class JudgeVerdict(BaseModel):
    """One answer of a judge.

    Attributes:
        first: the mode whose action was shown first.
        preferred: the mode whose action the judge named; None where it named none.
        decision: the judge's decision.
    """

    model_config = _FROZEN

    first: Mode
    preferred: Mode | None
    decision: Decision


class Judgement(BaseModel):
    """The verdicts on one state.

    Attributes:
        prompt_action: the prompt action; `cot_action` is the executed one, of CoT mode; `expert_action` where it is known.
        error: why there are no verdicts.
        error_kind: whose failure that was; `traceback` of the exception behind it. Both are left out of JSON where None.
        verdicts: one for each order that was asked.
    """

    model_config = _FROZEN

    task: str
    step: int
    prompt_action: str
    cot_action: str
    expert_action: str | None = None
    error: str | None = None
    error_kind: ErrorKind | None = Field(None, exclude_if=_is_none)
    traceback: str | None = Field(None, exclude_if=_is_none)
    verdicts: tuple[JudgeVerdict, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """Task and step, unique within a run."""
        return self.task, self.step

    @property
    def result(self) -> Result | None:
        """The mode preferred in every order; `split` where the orders disagree; None after an error."""
        if self.error is not None:
            return None
        named = {verdict.preferred for verdict in self.verdicts}
        if None in named:
            return "no verdict"
        if len(named) > 1:
            return "split"
        return "cot" if "cot" in named else "prompt"

    @property
    def credit(self) -> float | None:
        """1 where the CoT action is preferred, 0 where the prompt action is, 0.5 for a split; None elsewhere."""
        return {"cot": 1.0, "prompt": 0.0, "split": 0.5}.get(self.result or "")

    @property
    def agreement(self) -> float | None:
        """The credit of the action that is the expert's; None where there is no verdict, or neither action is the expert's."""
        if self.credit is None or self.expert_action not in (self.prompt_action, self.cot_action):
            return None
        return self.credit if self.expert_action == self.cot_action else 1 - self.credit


class Preference(BaseModel):
    """A judge's preference over many states. Intervals are over the tasks that have such states (cluster bootstrap).

    Attributes:
        states: states judged: the sum of `cot` (its action preferred), `prompt`, `split` (the orders disagree) and `no_verdict`
            (at least one answer named no action).
        errors: states that could not be judged; in no number.
        tasks: tasks with a judged state.
        win_rate: of the CoT action over the states with verdicts, a split counted half.
        net: (cot - prompt) / states.
        verdicts: answers that named an action.
        position_bias: share of them that named the action shown first; 0.5 is none.
        expert_states: states with verdicts where one of the two actions is the expert's.
        expert_agreement: share of these where the judge preferred the expert's action, a split counted half.
    """

    model_config = _FROZEN

    states: int
    errors: int
    tasks: int
    cot: int
    prompt: int
    split: int
    no_verdict: int
    win_rate: Estimate
    net: Estimate
    verdicts: int
    position_bias: Estimate
    expert_states: int
    expert_agreement: Estimate


def preference(judgements: Sequence[Judgement]) -> Preference:
    """Return the numbers of judged states."""
    judged = [one for one in judgements if one.error is None]
    results = [one.result for one in judged]
    verdicts = [(one, verdict) for one in judged for verdict in one.verdicts if verdict.preferred is not None]
    signs = {"cot": 1.0, "prompt": -1.0}
    return Preference(
        states=len(judged),
        errors=len(judgements) - len(judged),
        tasks=len({one.task for one in judged}),
        cot=results.count("cot"),
        prompt=results.count("prompt"),
        split=results.count("split"),
        no_verdict=results.count("no verdict"),
        win_rate=_by_task(judged, lambda one: one.credit),
        net=_by_task(judged, lambda one: signs.get(one.result or "", 0.0)),
        verdicts=len(verdicts),
        position_bias=_clustered([(one.task, float(verdict.preferred == verdict.first)) for one, verdict in verdicts]),
        expert_states=sum(one.agreement is not None for one in judged),
        expert_agreement=_by_task(judged, lambda one: one.agreement),
    )


def _by_task(judged: Sequence[Judgement], value: Callable[[Judgement], float | None]) -> Estimate:
    """Return the mean of a value over the states that have it."""
    return _clustered([(one.task, known) for one in judged if (known := value(one)) is not None])


def _clustered(values: Sequence[tuple[str, float]]) -> Estimate:
    """Return the mean of (task, value) pairs, with an interval from resampling tasks."""
    totals: dict[str, float] = {}
    counts: dict[str, float] = {}
    for task, value in values:
        totals[task] = totals.get(task, 0.0) + value
        counts[task] = counts.get(task, 0.0) + 1
    return estimates.ratio(list(totals.values()), list(counts.values()))
