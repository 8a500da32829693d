"""Ranks by significant differences. Invariant: pure; no entry stands below an entry from which its difference to it is not
significant while that entry leads a rank.

A rank reaches down to the last entry whose difference to the rank's leader is not significant; the next entry leads the next
rank, whose number is one more than the entries above it. Differences are paired on the same tasks; the p-values of all entries
below a leader are one family (Holm, 5 %).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cotbench.stats.bootstrap import RESAMPLES, SEED
from cotbench.stats.multiple_testing import ALPHA

Outcomes = NDArray[np.int8]
"""[entries, tasks]: 1 won, 0 not won."""
Tests = Callable[[int, NDArray[np.intp]], NDArray[np.float64]]
"""From a leader and others (rows) to the two-sided p-value of each difference."""
_BLOCK = 2_000


def ranks(order: Sequence[int], tests: Tests) -> dict[int, int]:
    """Rank entries.

    Args:
        order: entries (rows of the outcomes), the best first.
        tests: gives the p-values of a leader against others.

    Returns:
        From an entry to its rank, from 1.
    """
    found: dict[int, int] = {}
    start = 0
    while start < len(order):
        others = np.asarray(order[start + 1 :], dtype=np.intp)
        p_values = tests(order[start], others) if len(others) else np.zeros(0)
        not_rejected = np.flatnonzero(~_rejected(p_values))
        end = start + 1 + (int(not_rejected[-1]) + 1 if len(not_rejected) else 0)
        found |= dict.fromkeys(order[start:end], start + 1)
        start = end
    return found


def _rejected(p_values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which p-values of a family Holm's procedure rejects.

    The same as `multiple_testing.holm`, whose library runs the garbage collector at every call.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(order), 0, -1)
    rejected = np.zeros(len(order), dtype=np.bool_)
    rejected[order] = np.maximum.accumulate(steps) <= ALPHA
    return rejected


def mcnemar_of(won: Outcomes) -> Tests:
    """Return exact McNemar tests between rows; the same numbers as `estimates.mcnemar`, many at once."""

    def test(leader: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
        from scipy.special import bdtr

        one, two = won[leader][None, :], won[others]
        first = np.count_nonzero((one == 1) & (two == 0), axis=1)
        second = np.count_nonzero((one == 0) & (two == 1), axis=1)
        tail = np.asarray(bdtr(np.minimum(first, second), first + second, 0.5), dtype=np.float64)
        return np.minimum(1.0, 2 * tail)

    return test


def exchange_of(values: NDArray[np.float64]) -> Tests:
    """Return exchange tests of the difference of sums between rows.

    The two sides of each task are exchanged, in seeded draws that are the same for all (Fisher's paired randomisation test;
    p is (hits + 1) / (draws + 1)).

    Args:
        values: [entries, tasks]: what each task adds to the entry's mean, such as success / tasks of its environment.
    """

    def test(leader: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
        steps = (values[leader][None, :] - values[others]).T
        observed = np.abs(steps.sum(axis=0)) * (1 - 1e-9)
        rng = np.random.default_rng(SEED)
        hits = np.zeros(len(others))
        for start in range(0, RESAMPLES, _BLOCK):
            size = min(_BLOCK, RESAMPLES - start)
            signs = 2.0 * rng.integers(2, size=(size, len(steps)), dtype=np.int8) - 1.0
            hits += np.count_nonzero(np.abs(signs @ steps) >= observed, axis=0)
        p_values: NDArray[np.float64] = (hits + 1) / (RESAMPLES + 1)
        return p_values

    return test
