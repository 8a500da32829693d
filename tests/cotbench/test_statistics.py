"""Closed forms, other libraries, and simulated coverage."""

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from cotbench import statistics


@pytest.mark.parametrize(("k", "n"), [(0, 4), (4, 4), (3, 10), (70, 140)])
def test_wilson_as_in_statsmodels(k: int, n: int) -> None:
    estimate = statistics.rate(k, n)
    low, high = proportion_confint(k, n, method="wilson")
    assert (estimate.n, estimate.mean) == (n, k / n)
    assert estimate.low == pytest.approx(low)
    assert estimate.high == pytest.approx(high)


def test_wilson_in_closed_form() -> None:
    z = scipy.stats.norm.ppf(0.975)
    assert statistics.rate(0, 10).high == pytest.approx(z * z / (10 + z * z))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (1, 9), (3, 4), (12, 2)])
def test_mcnemar_as_in_statsmodels(b: int, c: int) -> None:
    ours = statistics.mcnemar(b, c)
    if b + c:
        assert ours == pytest.approx(statsmodels_mcnemar([[7, b], [c, 3]], exact=True).pvalue)
    else:
        assert ours == 1.0


def test_mcnemar_in_closed_form() -> None:
    assert statistics.mcnemar(0, 5) == pytest.approx(2 * 0.5**5)


def _pairs(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    one = [True] * (both + first) + [False] * (second + neither)
    two = [True] * both + [False] * first + [True] * second + [False] * neither
    return one, two


def test_newcombe_without_correlation_is_square_and_add() -> None:
    # Where a margin is empty the correlation is 0, and the limits are Wilson's, squared and added (Newcombe 1998, method 10).
    estimate = statistics.paired_rate_difference(*_pairs(0, 0, 4, 6))
    none, some = statistics.rate(0, 10), statistics.rate(4, 10)
    assert estimate.mean == pytest.approx(0.4)
    assert none.high is not None and some.low is not None and some.high is not None
    assert estimate.low == pytest.approx(0.4 - math.hypot(0.4 - some.low, none.high))
    assert estimate.high == pytest.approx(0.4 + (some.high - 0.4))


def test_newcombe_mirrors() -> None:
    one, two = _pairs(10, 3, 7, 5)
    forth, back = statistics.paired_rate_difference(one, two), statistics.paired_rate_difference(two, one)
    assert forth.low == pytest.approx(-back.high)
    assert forth.high == pytest.approx(-back.low)


def test_newcombe_does_not_collapse_where_nothing_differs() -> None:
    estimate = statistics.paired_rate_difference(*_pairs(0, 0, 0, 4))
    assert estimate.mean == 0
    assert estimate.low < -0.3 and estimate.high > 0.3


def test_newcombe_covers() -> None:
    rng = np.random.default_rng(1)
    chances = [0.3, 0.1, 0.25, 0.35]  # both, first only, second only, neither
    true, hits, rounds = chances[2] - chances[1], 0, 600
    for counts in rng.multinomial(40, chances, size=rounds):
        estimate = statistics.paired_rate_difference(*_pairs(*counts.tolist()))
        hits += estimate.low <= true <= estimate.high
    assert 0.925 <= hits / rounds <= 0.985


def test_bootstrap_as_in_scipy() -> None:
    values = np.random.default_rng(2).exponential(size=60)
    ours = statistics.mean(values.tolist())
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=3).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_the_same_numbers_give_the_same_interval() -> None:
    values = [0.1, 0.5, 0.9, 0.2]
    assert statistics.mean(values) == statistics.mean(list(values))


def test_clusters_are_resampled_whole() -> None:
    # Ten clusters of ten equal observations know as much as ten observations, not as a hundred.
    totals, counts = [10.0] * 5 + [0.0] * 5, [10.0] * 10
    clustered = statistics.ratio(totals, counts)
    single = statistics.mean([1.0] * 5 + [0.0] * 5)
    assert (clustered.n, clustered.mean) == (10, 0.5)
    assert clustered.low == pytest.approx(single.low)
    assert clustered.high == pytest.approx(single.high)


def test_one_observation_has_no_interval() -> None:
    estimate = statistics.mean([0.7])
    assert (estimate.n, estimate.mean, estimate.low, estimate.high) == (1, 0.7, None, None)


def test_no_observation_has_no_mean() -> None:
    for empty in (statistics.mean([]), statistics.rate(0, 0), statistics.ratio([0.0], [0.0])):
        assert empty.mean is None and empty.low is None


def test_scores_of_zero_and_one_are_rates() -> None:
    assert statistics.score([0.0, 1.0, 1.0]) == statistics.rate(2, 3)
    assert statistics.score([0.0, 0.5, 1.0]) == statistics.mean([0.0, 0.5, 1.0])
    assert statistics.paired_score_difference([0.0, 1.0], [1.0, 1.0]) == statistics.paired_rate_difference(
        [False, True], [True, True]
    )
    assert statistics.paired_score_difference([0.2, 0.4], [0.3, 0.9]).mean == pytest.approx(0.3)


def test_the_average_joins_intervals_in_squares() -> None:
    one, two = statistics.rate(3, 10), statistics.rate(20, 20)
    joined = statistics.average([one, two])
    assert joined.n == 30 and joined.mean == pytest.approx(0.65)
    assert joined.low == pytest.approx(0.65 - ((0.3 - one.low) ** 2 + (1 - two.low) ** 2) ** 0.5 / 2)
    assert joined.high == pytest.approx(0.65 + ((one.high - 0.3) ** 2 + (two.high - 1) ** 2) ** 0.5 / 2)
    alone = statistics.average([one])
    assert (alone.low, alone.high) == (pytest.approx(one.low), pytest.approx(one.high))
    nothing = statistics.rate(0, 0)
    assert statistics.average([one, nothing]).mean == pytest.approx(0.3)
    assert statistics.average([nothing]).mean is None
    assert statistics.average([one, statistics.mean([0.5])]).low is None


def test_the_average_covers_the_truth() -> None:
    rng, truth, sizes = np.random.default_rng(4), (0.1, 0.5, 0.9), (12, 30, 20)
    drawn = rng.binomial(sizes, truth, size=(800, 3))
    estimates = [statistics.average([statistics.rate(int(k), n) for k, n in zip(row, sizes, strict=True)]) for row in drawn]
    inside = sum(one.low <= 0.5 <= one.high for one in estimates)
    assert 0.93 <= inside / 800 <= 0.985
