"""The table that a study's report begins with: each claim of the paper, what was found here, and the verdict. Invariant: a
verdict is that of a test of the study's family (`family`), or of an equivalence test with the study's margin; what no test
decides is "cannot tell", and with one seed everything is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from cotbench.prompting.elicitation import MODES
from cotbench.report.page import Cell, Table
from cotbench.stats.equivalence import Equivalence, of_t
from cotbench.stats.estimates import Estimate
from cotbench.study.comparisons import HALF, Comparison, Finding, Quantity, finding_of, outside
from cotbench.study.family import family_of
from cotbench.study.measures import (
    alignment_levels,
    conflict_levels,
    conflict_splits,
    consistency_levels,
    cot_level,
    gap_levels,
    success_gap_levels,
)
from cotbench.study.scope import Scope
from cotbench.study.series import SeriesLevels

ClaimVerdict = Literal["supported", "contradicted", "cannot tell"]

_NOT_MEASURED = "not measured"
_OUTCOMES: tuple[Literal["CoT alignment", "CoT success"], ...] = ("CoT alignment", "CoT success")
_MORE: dict[Finding, ClaimVerdict] = {
    "rises": "supported",
    "falls": "contradicted",
    "flat": "cannot tell",
    "not flat": "cannot tell",
    "undecided": "cannot tell",
}
"""From what a test decides to the verdict on a claim that something is above 0."""
_STAYS: dict[Finding, ClaimVerdict] = {
    "rises": "contradicted",
    "falls": "contradicted",
    "flat": "supported",
    "not flat": "contradicted",
    "undecided": "cannot tell",
}
"""The same for a claim that something does not change."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the paper with what a study found.

    Attributes:
        text: the claim.
        here: what was found, as text.
        verdict: on the claim.
        test: the comparison behind it; None where nothing was measured.
    """

    text: str
    here: str
    verdict: ClaimVerdict
    test: Comparison | None = None

    @property
    def difference(self) -> Estimate | None:
        """What was tested, with its interval."""
        return None if self.test is None else self.test.estimate


def claims_of(scope: Scope) -> list[Claim]:
    """Return the claims of the paper, each with the verdict of the study.

    Args:
        scope: one model in one environment.
    """
    return [*_over_the_training(scope), *_of_shares(scope), *_of_masks(scope)]


def claims_verdict(table: Table | None) -> str:
    """Return how many claims have which verdict, as a sentence; empty without a table.

    Args:
        table: of `claims_table`.
    """
    if table is None:
        return ""
    verdicts = [row[table.columns.index("verdict")] for row in table.rows]
    counts = {verdict: verdicts.count(verdict) for verdict in get_args(ClaimVerdict)}
    return (
        f"Of the paper's {len(verdicts)} claims, this study supports {counts['supported']}, contradicts "
        f"{counts['contradicted']} and cannot tell on {counts['cannot tell']}."
    )


def claims_table(scopes: Sequence[Scope]) -> Table | None:
    """Return the table of all claims, one a row; None where no claim was measured.

    Args:
        scopes: the models and environments of the study.
    """
    found = [(scope, claim) for scope in scopes for claim in claims_of(scope)]
    if all(claim.test is None for _, claim in found):
        return None
    rows: list[tuple[Cell, ...]] = []
    for scope, claim in found:
        before = f"{scope.model}, {scope.env}: " if len(scopes) > 1 else ""
        seen = "-" if claim.test is None or claim.test.detectable is None else f"{claim.test.detectable:.2f}"
        rows.append((before + claim.text, claim.here, claim.verdict, claim.difference, seen))
    config = scopes[0].data.config
    seeds = len(config.seeds)
    over = f"tasks and {seeds} seeds" if seeds > 1 else "tasks (one seed)"
    caption = (
        f"Arm {scopes[0].main}, on {scopes[0].headline} unless stated otherwise; 95 % intervals over {over}. Supported and "
        "contradicted are tests at 5 %, corrected together (Holm); flat and no loss are equivalence and non-inferiority tests "
        f"with a margin of {config.margin:g} that was set beforehand (where there is no more than that to lose, no loss could "
        "be seen: cannot tell); a flat gap is also contradicted where a checkpoint differs from the first one (corrected over "
        "the checkpoints). Detectable: the true difference that is found with a power of 80 %. "
        "The claims are those of arXiv:2606.26935, as its public summaries give them."
    )
    columns = ("claim of the paper", "here", "verdict", "difference", "detectable")
    return Table(
        "claims", "Claim by claim", caption, columns, tuple(rows), frozenset(("difference",)), bold=frozenset(("verdict",))
    )


def _over_the_training(scope: Scope) -> Iterator[Claim]:
    cell = scope.cell(scope.main, scope.headline)
    prompt, cot = (alignment_levels(scope, cell, mode) for mode in MODES)
    yield _rises(scope, "training improves the prompt action", "prompt alignment", prompt)
    yield _rises(scope, "training improves the CoT action", "CoT alignment", cot)
    yield _stays(scope, "the gap between them stays flat", "gap", gap_levels(scope, cell))
    yield _stays(scope, "the gap stays flat in whole episodes", "success gap", success_gap_levels(scope, cell))
    yield _rises(scope, "the two actions agree more and more", "consistency", consistency_levels(scope, cell))
    text = "a conflicting trace is ignored more and more"
    yield _rises(scope, text, "kept under conflict", conflict_levels(scope, cell))
    named = outside(scope)
    if named is not None:
        test = family_of(scope.data).find(scope, named, scope.main, "kept under conflict", scope.headline)
        measured = conflict_splits(scope)
        where = "out of domain" if measured == scope.out_of_domain else f"on {', '.join(measured)}"
        yield _more("... and out of domain more so", test, f"change {where} minus in domain")


def _of_shares(scope: Scope) -> Iterator[Claim]:
    shares: tuple[tuple[Quantity, str], ...] = (
        ("attention on the prompt", "actions attend mostly to the prompt"),
        ("gradient on the prompt", "an action's gradient lies mostly on the prompt"),
    )
    for quantity, text in shares:
        test = _find(scope, scope.headline, scope.main, quantity, HALF)
        mean = None if test is None or test.estimate is None else test.estimate.mean
        yield _more(text, test, "" if mean is None else f"{mean + 0.5:.2f} of it, less one half")


def _of_masks(scope: Scope) -> Iterator[Claim]:
    """Yield the claims on the arms with masks: those of the paper's own way to mask, where the study has one, else all."""
    masked = [arm for arm in scope.arms if not scope.arm(arm).unmasked and scope.baseline(arm) is not None]
    own = [arm for arm in masked if scope.arm(arm).paper_row is not None]
    named = outside(scope)
    for arm in own or masked:
        baseline = scope.baseline(arm)
        for measured in _OUTCOMES:
            what = measured.removeprefix("CoT ")
            here = f"{arm} minus {baseline}"
            if named is not None:
                test = _find(scope, named, arm, measured, baseline)
                yield _more(f"masking actions helps out of domain ({arm}, {what})", test, here)
            test = _find(scope, scope.headline, arm, measured, baseline)
            level = None if baseline is None else cot_level(scope, scope.cell(baseline, scope.headline), measured)
            yield _no_loss(scope, f"... and costs nothing in domain ({arm}, {what})", test, here, level)


def _find(scope: Scope, split: str, arm: str, quantity: Quantity, against: str | None) -> Comparison | None:
    return family_of(scope.data).find(scope, split, arm, quantity, against)


def _rises(scope: Scope, text: str, quantity: Quantity, levels: SeriesLevels | None) -> Claim:
    return _more(text, _find(scope, scope.headline, scope.main, quantity, None), _from_to(levels))


def _more(text: str, test: Comparison | None, here: str) -> Claim:
    """Return a claim that something is above 0, with its verdict."""
    open_ = _open(text, test, here)
    if open_ is not None or test is None:
        return open_ or Claim(text, _NOT_MEASURED, "cannot tell")
    return Claim(text, here, _MORE[finding_of(test)], test)


def _stays(scope: Scope, text: str, quantity: Quantity, levels: SeriesLevels | None) -> Claim:
    """Return a claim that a quantity does not change over the training, with its verdict."""
    test = _find(scope, scope.headline, scope.main, quantity, None)
    here = _from_to(levels, signed=True)
    open_ = _open(text, test, here)
    if open_ is not None or test is None or levels is None or levels.trend is None:
        return open_ or Claim(text, here or _NOT_MEASURED, "cannot tell")
    return Claim(text, here, _STAYS[finding_of(test, levels.trend.flat_all[levels.trend.over])], test)


def _no_loss(scope: Scope, text: str, test: Comparison | None, here: str, level: float | None) -> Claim:
    """Return a claim that an arm does not lose more than the study's margin, with its verdict (a test of non-inferiority).

    Args:
        scope: one model in one environment.
        text: the claim.
        test: of the difference; None where nothing was measured.
        here: what was found.
        level: of the arm that it is compared with; where that is no more than the margin, less than the margin is lost whatever
            happens, which supports nothing.
    """
    open_ = _open(text, test, here)
    if open_ is not None or test is None:
        return open_ or Claim(text, _NOT_MEASURED, "cannot tell")
    bound = _lower_bound(test, scope.data.config.margin)
    if bound is not None and bound > -scope.data.config.margin:
        if level is not None and level <= scope.data.config.margin:
            return Claim(text, f"{here}, which has {level:.2f} to lose", "cannot tell", test)
        return Claim(text, here, "supported", test)
    return Claim(text, here, "contradicted" if finding_of(test) == "falls" else "cannot tell", test)


def _lower_bound(test: Comparison, margin: float) -> float | None:
    """Return the lower end of the 90 % interval."""
    if test.error is None or test.estimate is None or test.estimate.mean is None:
        return None
    found: Equivalence = of_t(test.estimate.mean, *test.error, margin)
    return found.low


def _open(text: str, test: Comparison | None, here: str) -> Claim | None:
    """Return the claim where there is no test to decide it, with the reason; None where there is one."""
    if test is None:
        return Claim(text, _NOT_MEASURED, "cannot tell")
    if test.estimate is None:
        return Claim(text, test.note or _NOT_MEASURED, "cannot tell", test)
    if test.seeds < 2:
        return Claim(text, here, "cannot tell", test)
    return None


def _from_to(levels: SeriesLevels | None, signed: bool = False) -> str:
    if levels is None or levels.estimates[0].mean is None or levels.estimates[-1].mean is None:
        return ""
    form = "+.2f" if signed else ".2f"
    begins = "" if levels.shares[0] == 0 else f" (at {levels.shares[0]:.0%})"
    return f"{levels.estimates[0].mean:{form}}{begins} to {levels.estimates[-1].mean:{form}}"
