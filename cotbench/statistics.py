"""Intervals and paired tests. Invariant: pure functions with a fixed resampling seed: the same numbers give the same interval.

Intervals are 95 %. With one observation there is no interval, and both ends are None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 20260625
_CHUNK = 4_000_000


class Estimate(BaseModel):
    """A mean with its 95 % interval; `n` is the number of independent units (tasks) behind it."""

    model_config = ConfigDict(frozen=True)

    n: int
    mean: float | None
    low: float | None
    high: float | None


def rate(successes: int, n: int) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927); it never collapses to a point, not even at 0 of n."""
    if n == 0:
        return Estimate(n=0, mean=None, low=None, high=None)
    value, low, high = _wilson(successes, n)
    return Estimate(n=n, mean=value, low=low, high=high)


def _wilson(successes: int, n: int) -> tuple[float, float, float]:
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return successes / n, float(interval.low), float(interval.high)


def mean(values: Sequence[float]) -> Estimate:
    """The mean of independent values, with a percentile bootstrap interval."""
    return ratio(values, [1.0] * len(values))


def ratio(totals: Sequence[float], counts: Sequence[float]) -> Estimate:
    """Sum of totals over sum of counts, the clusters resampled whole (cluster bootstrap, percentile).

    Args:
        totals: a sum for each cluster, such as the agreeing states of one episode.
        counts: how many observations each sum has.
    """
    clusters = len(totals)
    if clusters == 0 or sum(counts) == 0:
        return Estimate(n=clusters, mean=None, low=None, high=None)
    value = math.fsum(totals) / math.fsum(counts)
    if clusters == 1:
        return Estimate(n=1, mean=value, low=None, high=None)
    top, bottom = np.asarray(totals, dtype=float), np.asarray(counts, dtype=float)
    rng = np.random.default_rng(_SEED)
    resampled: list[Any] = []
    rows = max(1, _CHUNK // clusters)
    for start in range(0, RESAMPLES, rows):
        drawn = rng.integers(clusters, size=(min(rows, RESAMPLES - start), clusters))
        below = bottom[drawn].sum(axis=1)
        resampled.append(top[drawn].sum(axis=1)[below > 0] / below[below > 0])
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(resampled), [tail, 100 - tail])
    return Estimate(n=clusters, mean=value, low=float(low), high=float(high))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of independent estimates (a macro average), with their intervals joined.

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
    """Exact two-sided p-value that the two kinds of discordant pairs are equally likely (McNemar 1947; binomial test)."""
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_rate_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Difference of two proportions on the same units, second minus first, with Newcombe's interval.

    Method 10 of Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on
    paired data": Wilson limits of both proportions, joined with the correlation of the pairs. The bootstrap would give an
    interval of no width where no pair differs, which says nothing about a handful of tasks.
    """
    n = len(first)
    if n == 0:
        return Estimate(n=0, mean=None, low=None, high=None)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    only_first = sum(first) - both
    only_second = sum(second) - both
    neither = n - both - only_first - only_second
    mean_one, low_one, high_one = _wilson(sum(first), n)
    mean_two, low_two, high_two = _wilson(sum(second), n)
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
    """The mean of scores in [0, 1]: a rate where every score is 0 or 1, a bootstrapped mean otherwise."""
    if _binary(values):
        return rate(int(sum(values)), len(values))
    return mean(values)


def paired_score_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean difference of scores on the same units, second minus first: Newcombe where every score is 0 or 1, else a paired
    percentile bootstrap.
    """
    if _binary(first) and _binary(second):
        return paired_rate_difference([value == 1 for value in first], [value == 1 for value in second])
    return mean([b - a for a, b in zip(first, second, strict=True)])


def _binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)
