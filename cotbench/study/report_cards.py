"""The number cards of a study's report: three numbers to remember. Invariant: each is an estimate that a figure or a table of
the page shows, too, of the main arm on the split of the first sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.report.page import Card
from cotbench.stats.estimates import Estimate
from cotbench.study.family import family_of
from cotbench.study.measures import conflict_levels, gap_levels
from cotbench.study.report_conflict import conflict_headline
from cotbench.study.scope import Scope
from cotbench.study.series import SeriesLevels


def cards_of(scopes: Sequence[Scope]) -> tuple[Card, ...]:
    """Return the cards: the gap at the end of the training, the change in consistency, and how often the own action is kept
    under a conflicting trace; what was not measured is left out.

    Args:
        scopes: the models and environments of the study.
    """
    return tuple(card for scope in scopes for card in _cards(scope, f"{scope.model}, {scope.env}: " * (len(scopes) > 1)))


def _cards(scope: Scope, before: str) -> list[Card]:
    arm, split = scope.main, scope.headline
    cell, where = scope.cell(arm, split), f"{before}{arm}, {split}"
    test = family_of(scope.data).find(scope, split, arm, "consistency")
    found = [
        (
            "Gap at the end of training",
            "CoT minus prompt, in alignment with the reference action",
            _last(gap_levels(scope, cell)),
            True,
        ),
        (
            "Change in consistency over training",
            "in the share of states at which prompt action and CoT action are the same",
            None if test is None else test.estimate,
            True,
        ),
    ]
    level = _last(conflict_levels(scope, cell))
    if level is not None:
        portion = conflict_headline(scope, scope.data.measures("conflict")[0])
        about = f"share of states, under {portion} of the trace of another state, at the end of training"
        found.append(("Own action kept under a conflicting trace", about, level, False))
    return [
        Card(title, estimate, f"{about}; {where}", signed)
        for title, about, estimate, signed in found
        if estimate is not None and estimate.mean is not None
    ]


def _last(levels: SeriesLevels | None) -> Estimate | None:
    """Return the level at the end of the training; None where only the start was measured."""
    return None if levels is None or levels.shares[-1] == 0 else levels.estimates[-1]
