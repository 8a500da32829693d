"""The comparisons of a study: changes over the training, arms against each other, shares against one half. Invariant: which of
them are the study's claims follows from its config alone, never from what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cotbench.prompting.elicitation import Mode
from cotbench.stats.crossed import FEW_SEEDS
from cotbench.stats.equivalence import Equivalence
from cotbench.stats.estimates import Estimate
from cotbench.stats.multiple_testing import ALPHA
from cotbench.stats.power import detectable_of_error
from cotbench.stats.trend import Level
from cotbench.study.measures import (
    alignment_levels,
    arm_differences,
    conflict_domains,
    conflict_levels,
    consistency_levels,
    gap_levels,
    outside_differences,
    share_level,
    start_of,
    success_gap_levels,
)
from cotbench.study.scope import Scope
from cotbench.study.series import SeriesLevels

Quantity = Literal[
    "prompt alignment",
    "CoT alignment",
    "gap",
    "consistency",
    "kept under conflict",
    "success gap",
    "prompt success",
    "CoT success",
    "attention on the prompt",
    "gradient on the prompt",
]
CHANGES: tuple[Quantity, ...] = (
    "prompt alignment",
    "CoT alignment",
    "gap",
    "consistency",
    "kept under conflict",
    "success gap",
)
"""What is followed over the training; from consistency on of the main arm alone."""
DIFFERENCES: tuple[Quantity, ...] = ("prompt alignment", "CoT alignment", "prompt success", "CoT success")
"""What arms are compared in at the end of the training."""
SHARES: dict[str, Quantity] = {"attention": "attention on the prompt", "gradient": "gradient on the prompt"}
"""Probe -> its share that is compared with one half."""
OUTSIDE = "out of domain"
"""Stands for all splits out of domain, pooled, where there are several."""
HALF = "one half"

Finding = Literal["rises", "falls", "flat", "not flat", "undecided"]
"""What a test decides. Not flat: a checkpoint differs from the first one, corrected over the checkpoints alone."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test of a study: a change over the training, or an arm minus another at its end.

    Attributes:
        env: name of the environment; `model` and `arm` are the study's names too.
        split: may be `OUTSIDE`.
        against: the arm that is subtracted, or `HALF`, or for a change out of domain the split in domain; None for a change
            from the first checkpoint to the last.
        quantity: what is compared.
        claim: whether it belongs to the family of the study's claims, or to the second one.
        estimate: over tasks and seeds, with one seed over tasks; None where nothing was measured.
        p: two-sided p-value of "no difference"; None where there is no test.
        p_holm: adjusted for the family.
        detectable: the true difference that would be significant (before adjustment) with a chance of 80 %, by the standard
            error found; None where there is none.
        seeds: of the training, on each side.
        note: why there is no estimate, or where the series begins; empty where there is nothing to say.
        error: standard error and degrees of freedom; None where there is none.
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
    error: tuple[float, float] | None = None

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
    def way(self) -> Literal["rises", "falls", ""]:
        """Return which way the interval alone points: "rises", "falls", or nothing where it holds 0 or there is none."""
        if self.estimate is None or self.estimate.low is None or self.estimate.high is None:
            return ""
        return "rises" if self.estimate.low > 0 else "falls" if self.estimate.high < 0 else ""

    @property
    def verdict(self) -> str:
        """Return what the test decides, as a verb: "rises", "falls", "does not clearly move"; with what holds it back."""
        if self.estimate is None or self.estimate.low is None:
            return "moves (no interval)"
        if self.seeds < 2:
            return "is undecided (one seed)"
        found = finding_of(self)
        if found != "undecided" or not self.way:
            return "does not clearly move" if found == "undecided" else found
        tests = "the claims" if self.claim else "all tests"
        return f"does not clearly move (its interval excludes 0, but not after correction for {tests})"


def finding_of(test: Comparison | None, flat: Equivalence | None = None) -> Finding:
    """Return what a test decides: the claims, the sentences and the tables of a report all take it from here.

    With one seed nothing is decided, whatever the interval over tasks is: it holds for these trained models, not for another
    training run.

    Args:
        test: the test of "no difference"; None where nothing was measured.
        flat: the equivalence test of all checkpoints, for a quantity that may be flat.
    """
    if test is None or test.estimate is None or test.seeds < 2:
        return "undecided"
    if flat is not None and flat.verdict == "equivalent":
        return "flat"
    if test.significant and test.way:
        return test.way
    return "not flat" if flat is not None and flat.verdict == "different" and test.p is not None else "undecided"


def comparisons_of(scope: Scope) -> list[Comparison]:
    """Return the comparisons of one model in one environment, without their adjusted p-values.

    Args:
        scope: one model in one environment.
    """
    return [*_changes(scope), *_conflict_outside(scope), *_shares(scope), *_differences(scope)]


def outside(scope: Scope) -> str | None:
    """Return the name of all that is out of domain: of the only such split, else `OUTSIDE`; None where there is none."""
    names = scope.out_of_domain
    return None if not names else names[0] if len(names) == 1 else OUTSIDE


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
                level = Level(levels.trend.change[over], levels.trend.p[over], levels.trend.errors[over], levels.trend.seeds)
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
    if quantity == "success gap":
        return success_gap_levels(scope, cell), ()
    return conflict_levels(scope, cell), ("cot",) if scope.data.measures("conflict") else ()


def _conflict_outside(scope: Scope) -> Iterator[Comparison]:
    """Yield the change of keeping one's action under a conflicting trace, out of domain minus in domain."""
    named = outside(scope)
    if named is not None and named != scope.headline:
        level = conflict_domains(scope, scope.main)
        if level is not None:
            yield _comparison(scope, named, scope.main, scope.headline, "kept under conflict", True, level, "")


def _shares(scope: Scope) -> Iterator[Comparison]:
    """Yield the main arm's shares of attention and gradient on the prompt at the end of the training, minus one half."""
    for probe, quantity in SHARES.items():
        level = share_level(scope, scope.cell(scope.main, scope.headline), probe)
        if level is not None:
            yield _comparison(scope, scope.headline, scope.main, HALF, quantity, True, level, "")


def _differences(scope: Scope) -> Iterator[Comparison]:
    named = outside(scope)
    compared = {scope.headline, named}
    for arm in scope.arms:
        baseline = scope.baseline(arm)
        if baseline is None:
            continue
        masked = not scope.arm(arm).unmasked
        for split in (*scope.splits, *([OUTSIDE] if named == OUTSIDE else [])):
            pooled = split == OUTSIDE
            levels = (outside_differences if pooled else arm_differences)(scope, arm, baseline, *([] if pooled else [split]))
            for quantity, level in zip(DIFFERENCES, levels, strict=True):
                claim = masked and split in compared and quantity.startswith("CoT")
                note = _format_note(scope, (arm, baseline), split, quantity) if level is None else ""
                if level is not None or note:
                    yield _comparison(scope, split, arm, baseline, quantity, claim, level, note)


def _format_note(scope: Scope, arms: Sequence[str], split: str, quantity: Quantity) -> str:
    """Return that an arm never keeps the format; empty where that is not why it is not compared."""
    modes: dict[Quantity, tuple[Mode, ...]] = {"prompt alignment": ("prompt",), "CoT alignment": ("cot",)}
    for arm in arms:
        start = start_of(scope, scope.cell(arm, split), modes.get(quantity, ()))
        if start is not None and start.begins is None:
            return f"{arm}: {start.sentence()}"
    return ""


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
        seeds=len(scope.data.config.seeds) if level is None else level.seeds,
        note=note,
        error=error,
    )
