"""Intervals and paired tests. Invariant: pure functions with a fixed resampling seed: the same numbers give the same interval.

Intervals are 95 %. With one observation there is no interval, and both ends are None. The bootstrap itself is in `bootstrap`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from pydantic import BaseModel, ConfigDict

from cotbench.stats import bootstrap
from cotbench.stats.bootstrap import RESAMPLES, SEED, Bootstrap, Floats

CONFIDENCE = 0.95
_EXACT = 13
"""Up to this many differing tasks a permutation test goes through all 2^n exchanges (at most 8,192)."""
_TIE = 1e-9


class Estimate(BaseModel):
    """A mean with its 95 % interval; `n` is the number of independent units (tasks) behind it."""

    model_config = ConfigDict(frozen=True)

    n: int
    mean: float | None
    low: float | None
    high: float | None


def rate(successes: int, n: int) -> Estimate:
    """Return a proportion with Wilson's score interval (Wilson 1927); it never collapses to a point, not even at 0 of n.

    Args:
        successes: how many of n.
        n: independent observations.
    """
    if n == 0:
        return Estimate(n=0, mean=None, low=None, high=None)
    value, low, high = _wilson(successes, n)
    return Estimate(n=n, mean=value, low=low, high=high)


@cache
def _wilson(successes: int, n: int) -> tuple[float, float, float]:
    # By its formula: scipy.stats, which has it too, takes longer to import than a small run to be played.
    from scipy.special import ndtri

    z = float(ndtri(0.5 + 0.5 * CONFIDENCE))
    value = successes / n
    scale = 2 * (n + z**2)
    centre, half = (2 * n * value + z**2) / scale, z / scale * math.sqrt(4 * n * value * (1 - value) + z**2)
    return value, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of independent values, with a bootstrap interval.

    Args:
        values: one for each task.
    """
    return ratio(values, [1.0] * len(values))


def ratio(totals: Sequence[float], counts: Sequence[float]) -> Estimate:
    """Return the sum of totals over the sum of counts, with whole clusters resampled (cluster bootstrap).

    Args:
        totals: a sum for each cluster, such as the agreeing states of one episode.
        counts: how many observations each sum has.
    """
    if math.fsum(counts) == 0:
        return Estimate(n=len(totals), mean=None, low=None, high=None)
    if len(totals) == 1:
        return Estimate(n=1, mean=totals[0] / counts[0], low=None, high=None)
    return estimate(bootstrap.ratios([totals], [counts]).combined([1.0]))


def count_ratios(*pairs: tuple[Sequence[int], Sequence[int]]) -> list[Estimate]:
    """Return `ratio` of several pairs of totals and counts of the same clusters, which are resampled once for all of them.

    Sums of whole numbers are exact, so each interval is that of `ratio`, to the last bit.

    Args:
        pairs: totals and counts, a whole number for each cluster.
    """
    together = [place for place, (totals, counts) in enumerate(pairs) if len(totals) > 1 and sum(counts) > 0]
    found = [None if place in together else ratio(*pair) for place, pair in enumerate(pairs)]
    if together:
        resampled = bootstrap.ratios([pairs[place][0] for place in together], [pairs[place][1] for place in together])
        for column, place in enumerate(together):
            found[place] = estimate(resampled.only(column))
    return [one for one in found if one is not None]


def count_means(*values: Sequence[int]) -> list[Estimate]:
    """Return `mean` of several quantities of the same tasks, as `count_ratios`.

    Args:
        values: a whole number for each task.
    """
    return count_ratios(*((each, [1] * len(each)) for each in values))


def estimate(resampled: Bootstrap) -> Estimate:
    """Return a bootstrapped quantity with its interval; with one cluster there is none."""
    n = len(resampled.influence)
    low, high = resampled.interval(CONFIDENCE) if n > 1 else (None, None)
    return Estimate(n=n, mean=resampled.value, low=low, high=high)


def paired_ratio_difference(
    first_totals: Sequence[float],
    first_counts: Sequence[float],
    second_totals: Sequence[float],
    second_counts: Sequence[float],
) -> Estimate:
    """Return the difference of two ratios of the same clusters, second minus first; a cluster is resampled with both of its
    sides.

    Such as CoT alignment minus prompt alignment at the same states, or consistency of one run minus that of another on the same
    tasks. `n` is the number of clusters. A cluster may lack observations on a side; where a whole side has none there is no
    difference.

    Args:
        first_totals: a sum for each cluster; `second_totals` of the same clusters.
        first_counts: how many observations each sum has; `second_counts` likewise.
    """
    n = len(first_totals)
    if math.fsum(first_counts) == 0 or math.fsum(second_counts) == 0:
        return Estimate(n=n, mean=None, low=None, high=None)
    both = bootstrap.ratios([first_totals, second_totals], [first_counts, second_counts])
    return estimate(both.combined([-1.0, 1.0]))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean of independent estimates (a macro average), with their intervals joined.

    Method: MOVER (Zou and Donner 2008, "Construction of confidence limits about effect measures"): the distances of the limits
    from their estimates are added in squares. Of Wilson intervals it is as trustworthy at 0 and 1 as they are. `n` is the sum;
    an estimate without a mean is left out; without an interval of each there is none of the average.
    """
    known = [one for one in estimates if one.mean is not None]
    n = sum(one.n for one in known)
    means = [one.mean for one in known if one.mean is not None]
    if not means:
        return Estimate(n=n, mean=None, low=None, high=None)
    value = math.fsum(means) / len(means)
    lows = [one.mean - one.low for one in known if one.mean is not None and one.low is not None]
    highs = [one.high - one.mean for one in known if one.mean is not None and one.high is not None]
    if len(lows) < len(known) or len(highs) < len(known):
        return Estimate(n=n, mean=value, low=None, high=None)
    return Estimate(n=n, mean=value, low=value - math.hypot(*lows) / len(means), high=value + math.hypot(*highs) / len(means))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of "the two kinds of discordant pairs are equally likely" (McNemar 1947; binomial
    test).

    Args:
        only_first: pairs that are a success on the first side alone.
        only_second: pairs that are a success on the second side alone.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    ways = total = 1  # In whole numbers, so that only the last division rounds.
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return min(1.0, total / 2 ** (n - 1)) if n else 1.0


def permutation(
    first: Sequence[float],
    second: Sequence[float],
    first_counts: Sequence[float] | None = None,
    second_counts: Sequence[float] | None = None,
) -> float:
    """Return the two-sided p-value of exchanging the sides of each task, for a difference of means or of ratios.

    The two sides of each task are exchanged together with their counts (for means: the signs of the differences are flipped;
    Fisher's paired randomisation test). Exact up to 13 tasks that differ, seeded Monte Carlo above, where p is (hits + 1) /
    (draws + 1) (Phipson and Smyth 2010) and so never under 1e-4.

    Args:
        first: a total for each task; `second` of the same tasks.
        first_counts: how many observations each total has; one where left out. `second_counts` likewise.
    """
    one = np.column_stack([first, first_counts if first_counts is not None else np.ones(len(first))]).astype(float)
    two = np.column_stack([second, second_counts if second_counts is not None else np.ones(len(second))]).astype(float)
    step = (two - one)[np.any(one != two, axis=1)]
    if len(step) == 0:
        return 1.0
    sides = one.sum(axis=0), two.sum(axis=0)
    observed = abs(_exchanged(np.zeros((1, len(step))), step, sides)[0])
    hits = draws = 0
    for block in _exchanges(len(step)):
        found = np.abs(_exchanged(block, step, sides))
        draws += int(np.count_nonzero(~np.isnan(found)))
        hits += int(np.count_nonzero(found >= observed * (1 - _TIE)))
    return float(hits / draws if len(step) <= _EXACT else (hits + 1) / (draws + 1))


def _exchanges(tasks: int) -> Iterator[Floats]:
    """Yield blocks of [draws, tasks]: 1 where the sides of a task are exchanged."""
    if tasks <= _EXACT:
        yield (np.arange(2**tasks)[:, None] >> np.arange(tasks) & 1).astype(float)
        return
    rng = np.random.default_rng(SEED)
    for rows in bootstrap.blocks(RESAMPLES, tasks):
        yield rng.integers(2, size=(rows.stop - rows.start, tasks), dtype=np.uint8).astype(float)


def _exchanged(exchanges: Floats, step: Floats, sides: tuple[Floats, Floats]) -> Floats:
    """Return the difference of ratios, second minus first, after exchanges; NaN where a side is left without observations."""
    moved = exchanges @ step
    first, second = sides[0] + moved, sides[1] - moved
    found = np.full(len(moved), np.nan)
    measured = (first[:, 1] > 0) & (second[:, 1] > 0)
    found[measured] = second[measured, 0] / second[measured, 1] - first[measured, 0] / first[measured, 1]
    return found


def paired_rate_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Return the difference of two proportions on the same units, second minus first, with Newcombe's interval.

    Method 10 of Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on paired
    data": Wilson limits of both proportions, joined with the correlation of the pairs. The bootstrap would give an interval of
    no width where no pair differs, which says nothing about a handful of tasks.

    Args:
        first: success of each unit; `second` of the same units.
    """
    both = sum(a and b for a, b in zip(first, second, strict=True))
    return paired_rate_difference_of(both, sum(first) - both, sum(second) - both, len(first))


def paired_rate_difference_of(both: int, only_first: int, only_second: int, n: int) -> Estimate:
    """Return `paired_rate_difference` from counts.

    Args:
        both: units that are a success on both sides.
        only_first: units that are a success on the first side alone; `only_second` likewise.
        n: all units.
    """
    if n == 0:
        return Estimate(n=0, mean=None, low=None, high=None)
    neither = n - both - only_first - only_second
    mean_one, low_one, high_one = _wilson(both + only_first, n)
    mean_two, low_two, high_two = _wilson(both + only_second, n)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = 0.0
    if margins > 0:
        cross = both * neither - only_first * only_second
        # Newcombe's continuity correction of a positive correlation.
        phi = (max(cross - n / 2, 0.0) if cross > 0 else float(cross)) / math.sqrt(margins)
    difference = mean_two - mean_one
    below = _joined(mean_two - low_two, high_one - mean_one, phi)
    above = _joined(high_two - mean_two, mean_one - low_one, phi)
    return Estimate(n=n, mean=difference, low=difference - below, high=difference + above)


def _joined(left: float, right: float, phi: float) -> float:
    return math.sqrt(max(0.0, left * left - 2 * phi * left * right + right * right))


def score(values: Sequence[float]) -> Estimate:
    """Return the mean of scores in [0, 1]: a rate where every score is 0 or 1, a bootstrapped mean otherwise.

    Args:
        values: one for each task.
    """
    if binary(values):
        return rate(int(sum(values)), len(values))
    return mean(values)


def paired_score_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean difference of scores on the same units, second minus first: Newcombe where every score is 0 or 1, else a
    paired bootstrap.

    Args:
        first: score of each unit, in [0, 1]; `second` of the same units.
    """
    if binary(first) and binary(second):
        return paired_rate_difference([value == 1 for value in first], [value == 1 for value in second])
    return mean([b - a for a, b in zip(first, second, strict=True)])


def paired_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of "both sides score alike" on the same units: McNemar's exact test where every score is 0
    or 1, else the exchange of the sides of each unit (`permutation`).

    Args:
        first: score of each unit, in [0, 1]; `second` of the same units.
    """
    if binary(first) and binary(second):
        pairs = list(zip(first, second, strict=True))
        return mcnemar(sum(a > b for a, b in pairs), sum(b > a for a, b in pairs))
    return permutation(first, second)


def binary(values: Sequence[float]) -> bool:
    """Return whether every score is 0 or 1."""
    return all(value in (0, 1) for value in values)
