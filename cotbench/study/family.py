"""The tests of a study, corrected together. Invariant: every verdict of a report (rises, falls, better, worse) is of a
comparison in here, with the p-value over tasks and seeds and Holm's adjusted one.

There are two families, and in each the chance of any false finding is at most 5 % (Holm 1979). The claims are what the study is
for, fixed by its config, in each environment and model: that the main arm's prompt alignment, CoT alignment, gap, consistency
and keeping of its action under a conflicting trace change over the training, on the first in-domain split; and that each arm
with masks differs from its baseline in CoT alignment and in CoT success, in domain and out of it. All else that the tables
compare is the second family: other splits, other arms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from cotbench.prompting.elicitation import Mode
from cotbench.stats.crossed import FEW_SEEDS
from cotbench.stats.estimates import Estimate
from cotbench.stats.multiple_testing import ALPHA, holm
from cotbench.stats.power import detectable_of_error
from cotbench.stats.trend import Level
from cotbench.study.data import StudyData
from cotbench.study.measures import (
    alignment_levels,
    arm_differences,
    conflict_levels,
    consistency_levels,
    gap_levels,
    start_of,
)
from cotbench.study.scope import Scope
from cotbench.study.series import SeriesLevels

Quantity = Literal[
    "prompt alignment",
    "CoT alignment",
    "gap",
    "consistency",
    "kept under conflict",
    "prompt success",
    "CoT success",
]
CHANGES: tuple[Quantity, ...] = ("prompt alignment", "CoT alignment", "gap", "consistency", "kept under conflict")
"""What is followed over the training; consistency and conflicts of the main arm alone."""
DIFFERENCES: tuple[Quantity, ...] = ("prompt alignment", "CoT alignment", "prompt success", "CoT success")
"""What arms are compared in at the end of the training."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test of a study: a change over the training, or an arm minus another at its end.

    Attributes:
        env: name of the environment; `model`, `split` and `arm` are the study's names too.
        against: the arm that is subtracted; None for a change from the first checkpoint to the last.
        quantity: what is compared.
        claim: whether it belongs to the family of the study's claims, or to the second one.
        estimate: over tasks and seeds, with one seed over tasks; None where nothing was measured.
        p: two-sided p-value of "no difference"; None where there is no test.
        p_holm: adjusted for the family.
        detectable: the true difference that would be significant (before adjustment) with a chance of 80 %, by the standard
            error found; None where there is none.
        seeds: of the training.
        note: why there is no estimate, or where the series begins; empty where there is nothing to say.
    """

    env: str
    model: str
    split: str
    arm: str
    against: str | None
    quantity: Quantity
    claim: bool
    estimate: Estimate | None
    p: float | None
    p_holm: float | None
    detectable: float | None
    seeds: int
    note: str = ""

    @property
    def name(self) -> str:
        """What is compared, in words; distinct in a study."""
        what = "change" if self.against is None else f"minus {self.against}"
        return f"{self.model}, {self.env} {self.split}: {self.quantity} of {self.arm}, {what}"

    @property
    def significant(self) -> bool:
        """Whether "no difference" is rejected at 5 % in the family."""
        return self.p_holm is not None and self.p_holm <= ALPHA

    @property
    def few_seeds(self) -> bool:
        """Whether there are too few seeds to say much of another training run."""
        return self.seeds < FEW_SEEDS

    @property
    def way(self) -> str:
        """Return which way the interval alone points: "rises", "falls", or nothing where it holds 0 or there is none."""
        if self.estimate is None or self.estimate.low is None or self.estimate.high is None:
            return ""
        return "rises" if self.estimate.low > 0 else "falls" if self.estimate.high < 0 else ""

    @property
    def verdict(self) -> str:
        """Return what the test says, as a verb: "rises", "falls", "does not clearly move"; with what holds it back."""
        if self.estimate is None or self.estimate.low is None:
            return "moves (no interval)"
        if not self.way:
            return "does not clearly move"
        held = f" (not after correction for {'the claims' if self.claim else 'all tests'})"
        return self.way if self.significant else self.way + held


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
    comparisons = [one for scope in scopes for one in (*_changes(scope), *_differences(scope))]
    claims, others = (_adjusted([one for one in comparisons if one.claim is claim]) for claim in (True, False))
    return Family((*claims, *others))


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    adjusted = holm({str(number): one.p for number, one in enumerate(comparisons)})
    found = [adjusted.get(str(number)) for number in range(len(comparisons))]
    return [
        one if holms is None else replace(one, p_holm=holms.adjusted) for one, holms in zip(comparisons, found, strict=True)
    ]


def _changes(scope: Scope) -> Iterator[Comparison]:
    for arm in scope.arms:
        for split in scope.splits:
            for quantity in CHANGES[: None if arm == scope.main else 3]:
                levels, modes = _followed(scope, arm, split, quantity)
                start = start_of(scope, scope.cell(arm, split), modes)
                note = "" if start is None else start.sentence()
                if levels is None and not note:
                    continue
                claim = arm == scope.main and split == scope.headline
                if levels is None or levels.trend is None:
                    if levels is None or note:
                        yield _comparison(scope, split, arm, None, quantity, claim, None, note)
                    continue
                over = levels.trend.over
                level = Level(levels.trend.change[over], levels.trend.p[over], levels.trend.errors[over])
                yield _comparison(scope, split, arm, None, quantity, claim, level, note)


def _followed(scope: Scope, arm: str, split: str, quantity: Quantity) -> tuple[SeriesLevels | None, tuple[Mode, ...]]:
    """Return a quantity's levels and the modes whose format they need."""
    cell = scope.cell(arm, split)
    if quantity == "prompt alignment":
        return alignment_levels(scope, cell, "prompt"), ("prompt",)
    if quantity == "CoT alignment":
        return alignment_levels(scope, cell, "cot"), ("cot",)
    if quantity == "gap":
        return gap_levels(scope, cell), ("prompt", "cot")
    if quantity == "consistency":
        return consistency_levels(scope, cell), ("prompt", "cot")
    return conflict_levels(scope, cell), ("cot",) if scope.data.measures("conflict") else ()


def _differences(scope: Scope) -> Iterator[Comparison]:
    compared = dict.fromkeys((scope.headline, *scope.out_of_domain))
    for arm in scope.arms:
        baseline = scope.baseline(arm)
        if baseline is None:
            continue
        masked = not scope.arm(arm).unmasked
        for split in scope.splits:
            levels = arm_differences(scope, arm, baseline, split)
            for quantity, level in zip(DIFFERENCES, levels, strict=True):
                claim = masked and split in compared and quantity.startswith("CoT")
                if level is not None:
                    yield _comparison(scope, split, arm, baseline, quantity, claim, level, "")


def _comparison(
    scope: Scope, split: str, arm: str, against: str | None, quantity: Quantity, claim: bool, level: Level | None, note: str
) -> Comparison:
    error = None if level is None else level.error
    return Comparison(
        env=scope.env,
        model=scope.model,
        split=split,
        arm=arm,
        against=against,
        quantity=quantity,
        claim=claim,
        estimate=None if level is None else level.estimate,
        p=None if level is None else level.p,
        p_holm=None,
        detectable=None if error is None else detectable_of_error(*error),
        seeds=len(scope.data.config.seeds),
        note=note,
    )
