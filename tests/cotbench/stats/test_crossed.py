"""Means over tasks and seeds: closed forms, the limits of one factor alone, and shares at the ends of their range."""

import numpy as np
import pandas
import pytest
import scipy.stats
import statsmodels.api
from statsmodels.formula.api import ols
from statsmodels.stats.proportion import proportion_confint

from cotbench.errors import UsageError
from cotbench.stats import estimates
from cotbench.stats.crossed import crossed_mean


def test_the_mean_squares_are_those_of_a_two_way_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 12)) + rng.normal(size=(4, 1)) + rng.normal(size=(1, 12))
    seed, task = np.meshgrid(range(4), range(12), indexing="ij")
    data = pandas.DataFrame({"y": table.ravel(), "seed": seed.ravel(), "task": task.ravel()})
    squares = statsmodels.api.stats.anova_lm(ols("y ~ C(seed) + C(task)", data).fit())
    of_seed, of_task, of_rest = squares["sum_sq"] / squares["df"]
    assert of_task > of_rest and of_seed > of_rest
    found = crossed_mean(table)
    variance = of_seed + of_task - of_rest
    assert found.error == pytest.approx((variance / 48) ** 0.5)
    assert found.df == pytest.approx(variance**2 / (of_task**2 / 11 + of_seed**2 / 3 + of_rest**2 / 33))
    low, high = scipy.stats.t.interval(0.95, found.df, loc=table.mean(), scale=found.error)
    assert (found.estimate().low, found.estimate().high) == (pytest.approx(low), pytest.approx(high))
    assert found.p() == pytest.approx(2 * scipy.stats.t.sf(abs(table.mean()) / found.error, found.df))
    assert (found.p() < 0.05) == (low > 0 or high < 0)


def test_seeds_that_are_alike_leave_the_t_test_over_tasks() -> None:
    column = np.random.default_rng(1).normal(0.2, 1, size=30)
    found = crossed_mean(np.tile(column, (5, 1)))
    assert found.p() == pytest.approx(scipy.stats.ttest_1samp(column, 0).pvalue) and found.df == pytest.approx(29)


def test_tasks_that_are_alike_leave_the_t_test_over_seeds() -> None:
    row = np.array([0.1, 0.3, 0.25, 0.5, 0.2])
    found = crossed_mean(np.repeat(row[:, None], 40, axis=1))
    assert found.p() == pytest.approx(scipy.stats.ttest_1samp(row, 0).pvalue) and found.df == pytest.approx(4)


def test_seeds_whose_counts_tie_are_no_sign_of_precision() -> None:
    wins = np.zeros((2, 40))
    wins[0, :3], wins[1, 10:13] = 1, 1  # Both seeds win three tasks, by chance: no variance between their means.
    found = crossed_mean(wins)
    assert found.error > 0 and found.p() > 0.001


def test_where_nothing_varies_signs_are_counted() -> None:
    same, nothing = crossed_mean(np.full((3, 8), 0.1)), crossed_mean(np.zeros((3, 8)))
    assert (same.p(), nothing.p()) == (scipy.stats.binomtest(8, 8).pvalue, 1.0)  # The sign test over tasks.
    assert (same.estimate().low, same.estimate().high) == (same.value, same.value)
    one = crossed_mean([[0.2], [0.4]])
    assert one.p() is None and one.estimate().low is None and one.share().low is None
    with pytest.raises(UsageError, match="two seeds"):
        crossed_mean([[0.0, 1.0]])


def test_a_share_has_wilsons_interval() -> None:
    never, rate = crossed_mean(np.zeros((3, 20))).share(), estimates.rate(0, 20)
    assert (never.n, never.low, never.high) == (20, 0.0, pytest.approx(rate.high))
    wins = np.array([1.0] * 5 + [0.0] * 15)
    found = crossed_mean(np.tile(wins, (3, 1)))
    few = found.value * (1 - found.value) / found.error**2  # As many independent observations: 19, as seeds are alike.
    assert few == pytest.approx(19)
    low, high = proportion_confint(0.25 * few, few, method="wilson")
    assert found.share().low == pytest.approx(low, abs=0.015) and found.share().high == pytest.approx(high, abs=0.02)
    nearly = crossed_mean(np.array([[1.0] * 19 + [0.0], [1.0] * 20])).share()
    assert 0 < nearly.low < nearly.mean < nearly.high <= 1 and nearly.high - nearly.mean < nearly.mean - nearly.low
