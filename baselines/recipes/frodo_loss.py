"""The losses of FRODO's answerer, which is to act on the trace that it is given. Invariant: each is a function of three summed
log-probabilities of actions at one state: a* after t*, a' after t', and a* after t', where t* is the right trace and t' the
counterfactual one.

Source: "Making Reasoning Matter" (arXiv 2402.13950), reasoning module. The hinge compares log-probabilities, which are to be
larger after the right trace. The authors' public code takes the positive loss in the place of the log-probability, so that its
hinge lowers log p(a*|p,t*) - log p(a*|p,t'); that is not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cotbench.baselines.training.branch_loss import Figures
from cotbench.baselines.training.transfer import to_device


def hinge(right: Any, crossed: Any, margin: float) -> Any:
    """Return max(0, margin - (right - crossed)), of the shape of its arguments.

    Args:
        right: log p(a*|p,t*), in nats.
        crossed: log p(a*|p,t').
        margin: by how many nats the first is to be above the second.
    """
    return (margin - (right - crossed)).clamp(min=0)


@dataclass(frozen=True, slots=True)
class AnswererLoss:
    """The answerer's loss at a state: -log p(a*|p,t*) - v log p(a'|p,t') + w max(0, m - [log p(a*|p,t*) - log p(a*|p,t')]).

    Where an action is masked, its branch (a* after t') has no supervised tokens and the hinge is left out: there is nothing
    left of which it could ask for a margin. What is logged is of the states whose action is not masked.

    Attributes:
        margin: m, in nats.
        counterfactual_weight: v.
        hinge_weight: w.
    """

    margin: float = 1.0
    counterfactual_weight: float = 1.0
    hinge_weight: float = 1.0

    @property
    def size(self) -> int:
        """Number of branches of a state: (a* after t*, a' after t', a* after t')."""
        return 3

    def __call__(self, logprobs: Any, references: Any, supervised: Any) -> tuple[Any, Figures]:
        """See `GroupLoss`."""
        right, counterfactual, crossed = logprobs.unbind(1)
        compared = supervised[:, 2]
        rows = to_device(compared.nonzero()[:, 0], logprobs.device)  # Found on the CPU: a GPU would be waited for.
        hinges = hinge(right, crossed, self.margin) * to_device(compared, logprobs.device)
        loss = -right - self.counterfactual_weight * counterfactual + self.hinge_weight * hinges
        figures = {
            "right_logprob": right[rows],
            "counterfactual_logprob": counterfactual[rows],
            "trace_effect": (right - crossed)[rows],
            "hinge": hinges[rows],
            "hinge_active": (hinges > 0).to(hinges.dtype)[rows],
        }
        return loss, figures
