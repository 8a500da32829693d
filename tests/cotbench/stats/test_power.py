"""What a comparison can see: the anchors that are known, simulation, and the limits."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from cotbench.stats.crossed import crossed_mean
from cotbench.stats.power import (
    Design,
    detectable_difference,
    independent_states,
    paired_variance,
    pairs_needed,
    smallest_margin,
)


@pytest.mark.parametrize(
    ("first", "second", "pairs"), [(0.55, 0.63, 300), (0.58, 0.62, 1180), (0.86, 0.89, 960), (0.25, 0.27, 3780)]
)
def test_pairs_that_the_papers_gains_need(first: float, second: float, pairs: int) -> None:
    assert pairs_needed(first, second) == pytest.approx(pairs, rel=0.02)


@pytest.mark.parametrize(("n", "difference"), [(87, 0.16), (40, 0.24), (1000, 0.05)])
def test_differences_that_splits_of_today_can_see(n: int, difference: float) -> None:
    assert detectable_difference(Design(n, correlation=0.42)) == pytest.approx(difference, abs=0.007)


def test_over_tasks_alone_it_is_the_power_of_the_t_test() -> None:
    design = Design(60, rates=(0.3, 0.3), correlation=0.2)
    size = TTestPower().solve_power(nobs=60, alpha=0.05, power=0.8)
    assert detectable_difference(design) == pytest.approx(size * paired_variance(0.3, 0.3, 0.2) ** 0.5, rel=1e-3)


def test_more_tasks_see_no_more_than_the_seeds_allow() -> None:
    of_seeds_alone = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8) * 2**0.5 * 0.02
    assert detectable_difference(Design(10**9, 5)) == pytest.approx(of_seeds_alone, rel=1e-3)
    found = [detectable_difference(Design(1000, seeds)) for seeds in (2, 3, 5, 10)]
    assert found == sorted(found, reverse=True)
    assert smallest_margin(Design(1000, 5)) > detectable_difference(Design(1000, 5))


def test_simulated_power() -> None:
    design, rng = Design(300, 5, rates=(0.5, 0.5)), np.random.default_rng(0)
    truth, seen, rounds = detectable_difference(design), 0, 400
    for _ in range(rounds):
        # A task's difference is the same in every seed, as the design says; its variance is 0.25.
        differences = rng.normal(truth, 0.5, size=(1, 300)) + rng.normal(0, 0.02 * 2**0.5, size=(5, 1))
        p = crossed_mean(differences).p()
        seen += p is not None and p < 0.05
    assert seen / rounds == pytest.approx(0.8, abs=0.06)


def test_states_of_one_task_are_worth_less() -> None:
    assert independent_states(60, 120) == 60
    assert independent_states(600, 120, clustering=0.1) == pytest.approx(600 / 1.4)
    assert independent_states(600, 120, clustering=1.0) == pytest.approx(120)
