"""Simulated coverage: how often 95 % intervals hold the truth, at the sizes and shapes of runs.

The short version sees a gross error; the long one (pytest -m slow) holds 95 % within 1.5 points.
"""

import numpy as np
import pytest

from cotbench.stats import bootstrap, estimates
from cotbench.stats.bootstrap import Floats
from cotbench.stats.estimates import Estimate
from cotbench.stats.trend import CheckpointSeries, trend

ROUNDS = [pytest.param(150, 0.04, id="short"), pytest.param(3000, 0.015, id="long", marks=pytest.mark.slow)]


def _covered(found: list[Estimate], truth: float) -> float:
    return sum(one.low is not None and one.low <= truth <= one.high for one in found) / len(found)


def _states(rng: np.random.Generator, rate: float, alike: float, n: int) -> tuple[Floats, Floats, Floats]:
    """Tasks of 3 to 30 states each; a task's own rate is drawn around `rate`, the more so the smaller `alike`."""
    counts = rng.integers(3, 31, size=n)
    own = rng.beta(rate * alike, (1 - rate) * alike, size=n)
    return rng.binomial(counts, own).astype(float), counts.astype(float), own


@pytest.mark.parametrize(("rounds", "slack"), ROUNDS)
@pytest.mark.parametrize("n", [60, 120])
@pytest.mark.parametrize("rate", [0.6, 0.85])
def test_ratio(rate: float, n: int, rounds: int, slack: float) -> None:
    rng = np.random.default_rng(n)
    drawn = [_states(rng, rate, 5.0, n) for _ in range(rounds)]
    assert _covered([estimates.ratio(t.tolist(), c.tolist()) for t, c, _ in drawn], rate) == pytest.approx(0.95, abs=slack)


@pytest.mark.parametrize(("rounds", "slack"), ROUNDS)
@pytest.mark.parametrize("n", [60, 120])
def test_paired_ratio_difference(n: int, rounds: int, slack: float) -> None:
    rng, found = np.random.default_rng(n), []
    for _ in range(rounds):
        first, counts, own = _states(rng, 0.5, 4.0, n)
        others = rng.integers(3, 31, size=n)
        second = rng.binomial(others, 0.2 + 0.8 * own)
        found.append(estimates.paired_ratio_difference(first.tolist(), counts.tolist(), second.tolist(), others.tolist()))
    assert _covered(found, 0.1) == pytest.approx(0.95, abs=slack)


@pytest.mark.parametrize(("rounds", "slack"), ROUNDS)
@pytest.mark.parametrize("n", [60, 120])
def test_slope(n: int, rounds: int, slack: float) -> None:
    rng, progress, found = np.random.default_rng(n), np.linspace(0, 1, 5), []
    for _ in range(rounds):
        counts = rng.integers(3, 31, size=n)
        own = rng.beta(2, 3, size=n)  # A task's rate rises by 0.5 times 1 - its rate: 0.3 on average.
        totals = rng.binomial(counts, own + 0.5 * progress[:, None] * (1 - own))
        course = CheckpointSeries(progress.tolist(), [totals.tolist()], [[counts.tolist()] * 5])
        found.append(trend(course, overs=["tasks"]).slope["tasks"])
    assert _covered(found, 0.3) == pytest.approx(0.95, abs=slack)


@pytest.mark.parametrize(("rounds", "slack"), ROUNDS)
@pytest.mark.parametrize(("n", "rate"), [(60, 0.45), (60, 0.9), (120, 0.8)])
def test_rate(n: int, rate: float, rounds: int, slack: float) -> None:
    # Wilson's coverage jumps between neighbouring sizes; it is 95 % of the sizes together.
    rng = np.random.default_rng(n)
    sizes = rng.integers(n - 10, n + 11, size=rounds)
    found = [estimates.rate(int(rng.binomial(size, rate)), int(size)) for size in sizes]
    assert _covered(found, rate) == pytest.approx(0.95, abs=slack)


@pytest.mark.parametrize(("rounds", "slack"), ROUNDS)
@pytest.mark.parametrize("n", [60, 120])
def test_paired_rate_difference(n: int, rounds: int, slack: float) -> None:
    rng, found = np.random.default_rng(n), []
    for both, first, second, neither in rng.multinomial(n, [0.4, 0.08, 0.2, 0.32], size=rounds).tolist():
        one = [True] * (both + first) + [False] * (second + neither)
        two = [True] * both + [False] * first + [True] * second + [False] * neither
        found.append(estimates.paired_rate_difference(one, two))
    assert _covered(found, 0.12) == pytest.approx(0.95, abs=slack)


@pytest.mark.parametrize(("n", "rate", "alike"), [(10, 0.6, 2.5), (20, 0.9, 2.5)])
def test_few_tasks_are_covered_better_than_by_percentiles(n: int, rate: float, alike: float) -> None:
    rng, ours, percentiles = np.random.default_rng(n), [], []
    for _ in range(500):
        totals, counts, _ = _states(rng, rate, alike, n)
        resampled = bootstrap.ratios([totals], [counts]).combined([1.0])
        ours.append(estimates.estimate(resampled))
        low, high = np.percentile(resampled.draws, [2.5, 97.5])
        percentiles.append(Estimate(n=n, mean=resampled.value, low=float(low), high=float(high)))
    assert _covered(ours, rate) > 0.915
    assert _covered(percentiles, rate) < _covered(ours, rate) - 0.03


@pytest.mark.parametrize("rounds", [40, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("seeds", "differ"), [(3, 0.0), (3, 0.15), (5, 0.08)])
def test_over_both_is_not_too_narrow(seeds: int, differ: float, rounds: int) -> None:
    rng, progress, n = np.random.default_rng(seeds), [0.0, 0.5, 1.0], 60
    both, tasks = [], []
    for _ in range(rounds):
        own = rng.beta(2, 3, size=n) * 0.5
        rises = np.clip(rng.normal(0.25, differ, size=seeds), 0, 0.5)
        chances = own + np.multiply.outer(rises, progress)[:, :, None]
        won = rng.random((seeds, 3, n)) < chances
        slope = trend(CheckpointSeries(progress, won.tolist(), np.ones(won.shape).tolist())).slope
        both.append(slope["both"])
        tasks.append(slope["tasks"])
    assert _covered(both, 0.25) >= (0.9 if rounds < 100 else 0.925)
    if differ > 0.1:  # What is forgotten where seeds differ and only tasks are resampled.
        assert _covered(tasks, 0.25) < 0.8
