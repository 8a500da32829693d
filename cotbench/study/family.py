"""The tests of a study, corrected together. Invariant: every verdict of a report (rises, falls, better, worse) is of a
comparison in here, with the p-value over tasks and seeds and Holm's adjusted one.

There are two families, and in each the chance of any false finding is at most 5 % (Holm 1979). The claims are what the study is
for, fixed by its config, in each environment and model: that the main arm's prompt alignment, CoT alignment, gaps (alignment
and success), consistency and keeping of its action under a conflicting trace change over the training, on the first in-domain
split; that the latter changes in another way out of domain; that attention and gradient of its actions lie on the prompt by
more or less than one half; and that each arm with masks differs from its baseline in CoT alignment and in CoT success, in
domain and out of it. All else that the tables compare is the second family: other splits, other arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cotbench.stats.multiple_testing import holm
from cotbench.study.comparisons import Comparison, Quantity, comparisons_of
from cotbench.study.data import StudyData
from cotbench.study.scope import Scope


@dataclass(frozen=True, slots=True)
class Family:
    """All comparisons of a study, the claims first."""

    comparisons: tuple[Comparison, ...]

    @property
    def claims(self) -> tuple[Comparison, ...]:
        """The comparisons that are the study's claims."""
        return tuple(one for one in self.comparisons if one.claim)

    def find(self, scope: Scope, split: str, arm: str, quantity: Quantity, against: str | None = None) -> Comparison | None:
        """Return the comparison of these names; None where there is none.

        Args:
            scope: one model in one environment.
            split: name of the split.
            arm: name of the arm.
            quantity: what is compared.
            against: the arm that is subtracted; None for a change over the training.
        """
        wanted = (scope.env, scope.model, split, arm, against, quantity)
        return next(
            (one for one in self.comparisons if (one.env, one.model, one.split, one.arm, one.against, one.quantity) == wanted),
            None,
        )


def family_of(data: StudyData) -> Family:
    """Return all comparisons of a study, each with its p-value adjusted in its family; computed once for a study's data."""
    if not data.families:
        data.families.append(_family(data))
    found: Family = data.families[0]
    return found


def _family(data: StudyData) -> Family:
    scopes = [Scope(data, env, model) for env in data.config.envs for model in data.config.models]
    comparisons = [one for scope in scopes for one in comparisons_of(scope)]
    claims, others = (_adjusted([one for one in comparisons if one.claim is claim]) for claim in (True, False))
    return Family((*claims, *others))


def _adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    adjusted = holm({str(number): one.p for number, one in enumerate(comparisons)})
    found = [adjusted.get(str(number)) for number in range(len(comparisons))]
    return [
        one if holms is None else replace(one, p_holm=holms.adjusted) for one, holms in zip(comparisons, found, strict=True)
    ]
