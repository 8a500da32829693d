"""Whether a judge's preference counts. Invariant: the gate looks at how a judge judges, never at which mode it prefers.

A judge passes where it names the action shown first neither much more nor much less often than the other one, and sides with
the expert significantly more often than a coin where one of the two actions is the expert's. What another judge prefers is
shown, and no sentence or claim is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cotbench.judge.judgement import Judgement, preference
from cotbench.stats.estimates import mcnemar
from cotbench.stats.formatting import format_estimate

MOST_BIAS = 0.2
"""How far the share of verdicts for the action shown first may lie from 0.5. Where both orders are asked, beyond it more than
40 % of the pairs are decided by the order alone."""
LEVEL = 0.05
"""Of the two-sided exact sign test over tasks: in how many the judge sides with the expert in more than half of the states."""

GATE = (
    f"it names the action shown first in {0.5 - MOST_BIAS:g} to {0.5 + MOST_BIAS:g} of its verdicts, and sides with the expert "
    f"in significantly more tasks than against it (exact sign test, {LEVEL:.0%})"
)
"""The gate in words."""

GateVerdict = Literal["passes", "does not pass", "not gated"]


@dataclass(frozen=True, slots=True)
class JudgeGate:
    """The verdict on a judge.

    Attributes:
        verdict: `not gated` where its position bias passes and no expert's action is known.
        reason: the numbers behind it, in words.
    """

    verdict: GateVerdict
    reason: str

    @property
    def passes(self) -> bool:
        """True where the judge's preference counts."""
        return self.verdict == "passes"

    def __str__(self) -> str:
        return f"the judge {self.verdict}: {self.reason}" if self.verdict != "not gated" else f"not gated: {self.reason}"


def judge_gate(judgements: Sequence[Judgement]) -> JudgeGate:
    """Return the verdict on a judge.

    Args:
        judgements: of one judge; those with an error or without verdicts are passed over.
    """
    found = preference(judgements)
    if found.position_bias.mean is None:
        return JudgeGate("does not pass", "it named no action")
    bias = f"the action shown first in {format_estimate(found.position_bias)} of its verdicts"
    if abs(found.position_bias.mean - 0.5) > MOST_BIAS:
        return JudgeGate("does not pass", f"it named {bias}, not in {0.5 - MOST_BIAS:g} to {0.5 + MOST_BIAS:g}")
    if found.expert_states == 0:
        return JudgeGate("not gated", f"it named {bias}, and at no judged state one of the actions is known to be the expert's")
    above, below = _sides(judgements)
    p = mcnemar(above, below)
    agreement = (
        f"it sides with the expert at {format_estimate(found.expert_agreement)} of {found.expert_states} states, in {above} "
        f"tasks more often than not and in {below} less (sign test, p = {p:.2g})"
    )
    if above <= below or p >= LEVEL:
        return JudgeGate("does not pass", agreement)
    return JudgeGate("passes", f"{agreement}, and named {bias}")


def _sides(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """Return in how many tasks the mean agreement with the expert is above 0.5, and in how many below."""
    by_task: dict[str, list[float]] = {}
    for one in judgements:
        if one.agreement is not None:
            by_task.setdefault(one.task, []).append(one.agreement - 0.5)
    sums = [sum(values) for values in by_task.values()]
    return sum(total > 0 for total in sums), sum(total < 0 for total in sums)
