"""Closed forms, other libraries, and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from cotbench.stats import bootstrap, estimates


@pytest.mark.parametrize(("k", "n"), [(0, 4), (4, 4), (3, 10), (70, 140)])
def test_wilson_as_in_statsmodels(k: int, n: int) -> None:
    estimate = estimates.rate(k, n)
    low, high = proportion_confint(k, n, method="wilson")
    assert (estimate.n, estimate.mean) == (n, k / n)
    assert estimate.low == pytest.approx(low)
    assert estimate.high == pytest.approx(high)


def test_wilson_in_closed_form() -> None:
    z = scipy.stats.norm.ppf(0.975)
    assert estimates.rate(0, 10).high == pytest.approx(z * z / (10 + z * z))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (1, 9), (3, 4), (12, 2)])
def test_mcnemar_as_in_statsmodels(b: int, c: int) -> None:
    ours = estimates.mcnemar(b, c)
    if b + c:
        assert ours == pytest.approx(statsmodels_mcnemar([[7, b], [c, 3]], exact=True).pvalue)
    else:
        assert ours == 1.0


def test_mcnemar_in_closed_form() -> None:
    assert estimates.mcnemar(0, 5) == pytest.approx(2 * 0.5**5)


def _pairs(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    one = [True] * (both + first) + [False] * (second + neither)
    two = [True] * both + [False] * first + [True] * second + [False] * neither
    return one, two


def test_newcombe_without_correlation_is_square_and_add() -> None:
    # Where a margin is empty the correlation is 0, and the limits are Wilson's, squared and added (Newcombe 1998, method 10).
    estimate = estimates.paired_rate_difference(*_pairs(0, 0, 4, 6))
    none, some = estimates.rate(0, 10), estimates.rate(4, 10)
    assert estimate.mean == pytest.approx(0.4)
    assert none.high is not None and some.low is not None and some.high is not None
    assert estimate.low == pytest.approx(0.4 - math.hypot(0.4 - some.low, none.high))
    assert estimate.high == pytest.approx(0.4 + (some.high - 0.4))


def test_newcombe_mirrors() -> None:
    one, two = _pairs(10, 3, 7, 5)
    forth, back = estimates.paired_rate_difference(one, two), estimates.paired_rate_difference(two, one)
    assert forth.low == pytest.approx(-back.high)
    assert forth.high == pytest.approx(-back.low)


def test_newcombe_does_not_collapse_where_nothing_differs() -> None:
    estimate = estimates.paired_rate_difference(*_pairs(0, 0, 0, 4))
    assert estimate.mean == 0
    assert estimate.low < -0.3 and estimate.high > 0.3


def test_newcombe_covers() -> None:
    rng = np.random.default_rng(1)
    chances = [0.3, 0.1, 0.25, 0.35]  # both, first only, second only, neither
    true, hits, rounds = chances[2] - chances[1], 0, 600
    for counts in rng.multinomial(40, chances, size=rounds):
        estimate = estimates.paired_rate_difference(*_pairs(*counts.tolist()))
        hits += estimate.low <= true <= estimate.high
    assert 0.925 <= hits / rounds <= 0.985


def _widened(n: int) -> float:
    """The level at which scipy's BCa has our tails: those of t, for the n - 1 in the variance."""
    return 1 - 2 * scipy.stats.norm.cdf(scipy.stats.t.ppf(0.025, n - 1) * math.sqrt(n / (n - 1)))


@pytest.mark.parametrize("n", [8, 60])
def test_bootstrap_as_in_scipy(n: int) -> None:
    values = np.random.default_rng(2).exponential(size=n)
    ours = estimates.mean(values.tolist())
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", confidence_level=_widened(n), n_resamples=30_000, rng=3
    ).confidence_interval
    noise = 0.06 * (ours.high - ours.low)  # Of the 99th of 100 parts of 10,000 draws.
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=noise)
    assert ours.high == pytest.approx(theirs.high, abs=noise)


def test_ratios_as_in_scipy() -> None:
    rng = np.random.default_rng(6)
    counts = rng.integers(1, 30, size=(2, 40))
    totals = rng.binomial(counts, [[0.6], [0.7]])

    def difference(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, axis: int = -1) -> np.ndarray:
        return c.sum(axis) / d.sum(axis) - a.sum(axis) / b.sum(axis)

    rows = (totals[0], counts[0], totals[1], counts[1])
    ours = estimates.paired_ratio_difference(*(row.tolist() for row in rows))
    theirs = scipy.stats.bootstrap(
        rows, difference, method="BCa", paired=True, confidence_level=_widened(40), n_resamples=20_000, rng=3
    ).confidence_interval
    width = ours.high - ours.low
    assert ours.n == 40 and ours.mean == pytest.approx(totals[1].sum() / counts[1].sum() - totals[0].sum() / counts[0].sum())
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_a_paired_difference_of_ratios_knows_the_pairs() -> None:
    rng = np.random.default_rng(7)
    counts = [10.0] * 30
    first = rng.integers(0, 9, size=30).astype(float).tolist()
    above = estimates.paired_ratio_difference(first, counts, [value + 1 for value in first], counts)
    assert above.mean == pytest.approx(0.1) and above.low == pytest.approx(0.1) and above.high == pytest.approx(0.1)
    second = rng.integers(0, 9, size=30).astype(float).tolist()
    equal = estimates.paired_ratio_difference(first, counts, second, counts)
    plain = estimates.ratio([b - a for a, b in zip(first, second, strict=True)], counts)
    assert (equal.mean, equal.low, equal.high) == (
        pytest.approx(plain.mean),
        pytest.approx(plain.low),
        pytest.approx(plain.high),
    )
    back = estimates.paired_ratio_difference(second, counts, first, counts)
    assert (back.low, back.high) == (pytest.approx(-equal.high), pytest.approx(-equal.low))


def test_a_difference_of_ratios_where_observations_lack() -> None:
    assert estimates.paired_ratio_difference([1.0, 2.0], [2.0, 4.0], [0.0, 0.0], [0.0, 0.0]).mean is None
    some = estimates.paired_ratio_difference([1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [2.0, 0.0, 1.0], [2.0, 0.0, 1.0])
    assert some.mean == pytest.approx(0.5) and some.n == 3 and some.low is not None
    one = estimates.paired_ratio_difference([1.0], [2.0], [2.0], [2.0])
    assert (one.n, one.mean, one.low) == (1, 0.5, None)


def test_many_clusters_are_resampled_in_blocks_as_few_are_at_once() -> None:
    values = np.random.default_rng(8).normal(size=1500)
    spread = 1.96 * values.std() / math.sqrt(1500)
    many = estimates.mean(values.tolist())
    assert many.low == pytest.approx(values.mean() - spread, abs=0.05 * spread)
    assert many.high == pytest.approx(values.mean() + spread, abs=0.05 * spread)


def test_a_rate_never_leaves_its_range() -> None:
    for values in ([1.0] * 9 + [0.3], [0.0, 1.0], [0.0, 0.0, 1.0], [0.9, 1.0, 1.0, 1.0]):
        estimate = estimates.mean(values)
        assert min(values) <= estimate.low <= estimate.mean <= estimate.high <= max(values)


def test_clusters_that_agree_give_an_interval_of_no_width() -> None:
    estimate = estimates.ratio([0.7, 1.4, 2.1], [1.0, 2.0, 3.0])
    assert estimate.low == estimate.mean == estimate.high


@pytest.mark.parametrize("bound", [-0.1, 0.0, 0.05, 0.2])
def test_a_one_sided_p_value_is_where_the_interval_ends(bound: float) -> None:
    values = np.random.default_rng(9).exponential(0.3, size=25) - 0.2
    resampled = bootstrap.ratios([values], [[1.0] * 25]).combined([1.0])
    p = resampled.p_at_most(bound)
    assert p + resampled.p_at_least(bound) == pytest.approx(1)
    level = abs(1 - 2 * p)
    low, high = resampled.interval(level)
    if 0.001 < p < 0.999:
        assert (low if p < 0.5 else high) == pytest.approx(bound, abs=0.002)


def _by_enumeration(first: list[tuple[float, float]], second: list[tuple[float, float]]) -> float:
    def difference(exchanged: tuple[bool, ...]) -> float:
        sides = [(b, a) if swap else (a, b) for a, b, swap in zip(first, second, exchanged, strict=True)]
        one, two = ([sum(side[which][part] for side in sides) for part in (0, 1)] for which in (0, 1))
        return abs(two[0] / two[1] - one[0] / one[1])

    observed = difference((False,) * len(first))
    every = [difference(exchanged) for exchanged in itertools.product((False, True), repeat=len(first))]
    return sum(value >= observed - 1e-12 for value in every) / len(every)


def test_permutation_by_enumeration() -> None:
    rng = np.random.default_rng(10)
    counts = rng.integers(1, 9, size=(2, 7)).astype(float)
    totals = rng.binomial(counts.astype(int), [[0.4], [0.8]]).astype(float)
    ours = estimates.permutation(*totals.tolist(), *counts.tolist())
    pairs = [list(zip(totals[side].tolist(), counts[side].tolist(), strict=True)) for side in (0, 1)]
    assert ours == pytest.approx(_by_enumeration(*pairs))
    ones = [[(value, 1.0) for value in totals[side].tolist()] for side in (0, 1)]
    assert estimates.permutation(*totals.tolist()) == pytest.approx(_by_enumeration(*ones))


def test_permutation_in_closed_form() -> None:
    assert estimates.permutation([0.0] * 6, [1.0] * 6) == pytest.approx(2 * 0.5**6)
    assert estimates.permutation([0.3, 0.4], [0.3, 0.4]) == 1.0
    assert estimates.permutation([], []) == 1.0
    # Tasks without a difference say nothing.
    assert estimates.permutation([0.0] * 6 + [0.5] * 50, [1.0] * 6 + [0.5] * 50) == pytest.approx(2 * 0.5**6)


def test_permutation_of_binary_outcomes_is_mcnemar() -> None:
    one, two = _pairs(10, 2, 9, 5)
    assert estimates.permutation([*map(float, one)], [*map(float, two)]) == pytest.approx(estimates.mcnemar(2, 9))


@pytest.mark.parametrize("n", [12, 40])
def test_permutation_as_in_scipy(n: int) -> None:
    differences = np.random.default_rng(11).normal(0.35, 1, size=n)
    theirs = scipy.stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=3)
    assert estimates.permutation([0.0] * n, differences.tolist()) == pytest.approx(theirs.pvalue, abs=0 if n < 14 else 0.012)


def test_permutation_at_many_tasks_is_never_zero() -> None:
    assert estimates.permutation([0.0] * 40, [1.0] * 40) == pytest.approx(1 / 10_001)


def test_the_same_numbers_give_the_same_interval() -> None:
    values = [0.1, 0.5, 0.9, 0.2]
    assert estimates.mean(values) == estimates.mean(list(values))


def test_clusters_are_resampled_whole() -> None:
    # Ten clusters of ten equal observations know as much as ten observations, not as a hundred.
    totals, counts = [10.0] * 5 + [0.0] * 5, [10.0] * 10
    clustered = estimates.ratio(totals, counts)
    single = estimates.mean([1.0] * 5 + [0.0] * 5)
    assert (clustered.n, clustered.mean) == (10, 0.5)
    assert clustered.low == pytest.approx(single.low)
    assert clustered.high == pytest.approx(single.high)


def test_one_observation_has_no_interval() -> None:
    estimate = estimates.mean([0.7])
    assert (estimate.n, estimate.mean, estimate.low, estimate.high) == (1, 0.7, None, None)


def test_no_observation_has_no_mean() -> None:
    for empty in (estimates.mean([]), estimates.rate(0, 0), estimates.ratio([0.0], [0.0])):
        assert empty.mean is None and empty.low is None


def test_scores_of_zero_and_one_are_rates() -> None:
    assert estimates.score([0.0, 1.0, 1.0]) == estimates.rate(2, 3)
    assert estimates.score([0.0, 0.5, 1.0]) == estimates.mean([0.0, 0.5, 1.0])
    assert estimates.paired_score_difference([0.0, 1.0], [1.0, 1.0]) == estimates.paired_rate_difference(
        [False, True], [True, True]
    )
    assert estimates.paired_score_difference([0.2, 0.4], [0.3, 0.9]).mean == pytest.approx(0.3)


def test_the_average_joins_intervals_in_squares() -> None:
    one, two = estimates.rate(3, 10), estimates.rate(20, 20)
    joined = estimates.average([one, two])
    assert joined.n == 30 and joined.mean == pytest.approx(0.65)
    assert joined.low == pytest.approx(0.65 - ((0.3 - one.low) ** 2 + (1 - two.low) ** 2) ** 0.5 / 2)
    assert joined.high == pytest.approx(0.65 + ((one.high - 0.3) ** 2 + (two.high - 1) ** 2) ** 0.5 / 2)
    alone = estimates.average([one])
    assert (alone.low, alone.high) == (pytest.approx(one.low), pytest.approx(one.high))
    nothing = estimates.rate(0, 0)
    assert estimates.average([one, nothing]).mean == pytest.approx(0.3)
    assert estimates.average([nothing]).mean is None
    assert estimates.average([one, estimates.mean([0.5])]).low is None


def test_the_average_covers_the_truth() -> None:
    rng, truth, sizes = np.random.default_rng(4), (0.1, 0.5, 0.9), (12, 30, 20)
    drawn = rng.binomial(sizes, truth, size=(800, 3))
    averages = [estimates.average([estimates.rate(int(k), n) for k, n in zip(row, sizes, strict=True)]) for row in drawn]
    inside = sum(one.low <= 0.5 <= one.high for one in averages)
    assert 0.93 <= inside / 800 <= 0.985
