"""A claim of the paper and the verdict of a study on it. Invariant: "supported" and "contradicted" need a test that stands after
Holm's correction over all claims of the study; everything else is "cannot tell", with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cotbench.stats.equivalence import Equivalence
from cotbench.stats.estimates import Estimate
from cotbench.stats.multiple_testing import Adjusted, holm

ClaimVerdict = Literal["supported", "contradicted", "cannot tell"]
ClaimKind = Literal["rises", "flat", "larger"]
"""What is claimed of a quantity: it rises over the training; its change over the training is none; it is above a value."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a study measured for a claim.

    Attributes:
        here: what was found, as text, such as "0.20 to 0.60".
        estimate: of what is claimed: a change, or a difference; its interval is over tasks and seeds where there are several.
        p: two-sided p-value of "it is none"; None where there is no test.
        seeds: number of trainings behind it.
        flat: for a claim of kind `flat`: the equivalence test over all checkpoints.
        detectable: the true change that this measurement would see with a chance of 80 %; None where it is not known.
    """

    here: str
    estimate: Estimate
    p: float | None
    seeds: int
    flat: Equivalence | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class TestedClaim:
    """A claim with its evidence.

    Attributes:
        name: unique within its study.
        text: the claim, as the paper makes it.
        kind: see `ClaimKind`.
        evidence: a text says why nothing was measured.
    """

    name: str
    text: str
    kind: ClaimKind
    evidence: Evidence | str


@dataclass(frozen=True, slots=True)
class JudgedClaim:
    """A claim with its verdict.

    Attributes:
        reason: of "cannot tell"; empty for the others.
        adjusted: Holm's p-value behind the verdict; None where nothing was tested.
    """

    claim: TestedClaim
    verdict: ClaimVerdict
    reason: str = ""
    adjusted: float | None = None


def judge_claims(claims: Sequence[TestedClaim]) -> list[JudgedClaim]:
    """Return the verdicts on all claims of a study, which are one family of tests.

    Args:
        claims: each with its evidence.
    """
    family = holm({name: p for claim in claims for name, p in _tests(claim).items()})
    return [_judged(claim, family) for claim in claims]


def _tests(claim: TestedClaim) -> dict[str, float | None]:
    """Return the p-values that a claim adds to the family: of "no change", and for `flat` of "a change beyond the margin"."""
    if isinstance(claim.evidence, str):
        return {}
    tests = {claim.name: claim.evidence.p}
    if claim.kind == "flat":
        tests[_flat(claim)] = _equivalence_p(claim.evidence.flat)
    return tests


def _flat(claim: TestedClaim) -> str:
    return f"{claim.name}, flat"


def _equivalence_p(test: Equivalence | None) -> float | None:
    return None if test is None or test.p_low is None or test.p_high is None else max(test.p_low, test.p_high)


def _judged(claim: TestedClaim, family: dict[str, Adjusted]) -> JudgedClaim:
    found = claim.evidence
    if isinstance(found, str):
        return JudgedClaim(claim, "cannot tell", found)
    if found.seeds < 2:
        return JudgedClaim(claim, "cannot tell", "one seed says nothing of another training")
    change = family.get(claim.name)
    if claim.kind == "flat":
        flat = family.get(_flat(claim))
        if flat is not None and flat.rejected:
            return JudgedClaim(claim, "supported", adjusted=flat.adjusted)
        if change is not None and change.rejected:
            return JudgedClaim(claim, "contradicted", adjusted=change.adjusted)
        return JudgedClaim(claim, "cannot tell", _open(found), None if flat is None else flat.adjusted)
    if change is None or not change.rejected or found.estimate.mean is None:
        return JudgedClaim(claim, "cannot tell", _open(found), None if change is None else change.adjusted)
    return JudgedClaim(claim, "supported" if found.estimate.mean > 0 else "contradicted", adjusted=change.adjusted)


def _open(found: Evidence) -> str:
    """Return why a measurement decides nothing."""
    return "nothing varies, so there is no test" if found.p is None else "the interval leaves it open"
