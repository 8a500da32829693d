"""Slopes in closed form, two other libraries, and what may be called flat."""

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
import statsmodels.api
from statsmodels.stats.weightstats import DescrStatsW

from cotbench.errors import UsageError
from cotbench.stats import bootstrap, equivalence
from cotbench.stats.crossed import crossed_mean
from cotbench.stats.trend import CheckpointSeries, level, trend

PROGRESS = (0.0, 0.25, 0.5, 1.0)


def _course(values: Sequence[object], progress: Sequence[float] = PROGRESS) -> CheckpointSeries:
    """One observation a task: [seeds][checkpoints][tasks]."""
    table = np.array(values, dtype=float)
    return CheckpointSeries(progress, table.tolist(), np.ones(table.shape).tolist())


def _drawn(seeds: int, tasks: int, rise: float = 0.3, differ: float = 0.0, seed: int = 0) -> CheckpointSeries:
    rng = np.random.default_rng(seed)
    rises = rng.normal(rise, differ, size=seeds)
    chances = rng.uniform(0.1, 0.5, size=tasks) + np.multiply.outer(rises, PROGRESS)[:, :, None]
    counts = np.broadcast_to(rng.integers(2, 20, size=tasks), chances.shape)
    return CheckpointSeries(PROGRESS, rng.binomial(counts, np.clip(chances, 0, 1)).tolist(), counts.tolist())


def test_exact_lines_have_their_slopes() -> None:
    rises = np.array([0.1, 0.2, 0.3, 0.6])
    found = trend(_course([np.multiply.outer(PROGRESS, rises) + 0.2]))
    assert found.slope["tasks"].mean == pytest.approx(0.3) and found.change["tasks"].mean == pytest.approx(0.3)
    assert found.slope["tasks"].n == 4 and found.tasks == 4 and found.seeds == 1
    assert found.slope["tasks"].low == pytest.approx(found.change["tasks"].low)
    assert 0.1 <= found.slope["tasks"].low < 0.3 < found.slope["tasks"].high <= 0.6
    assert [level.mean for level in found.levels["tasks"]] == pytest.approx([0.2 + 0.3 * at for at in PROGRESS])
    assert list(found.slope) == ["tasks"] and found.flat == {}


def test_every_task_alike_leaves_no_width() -> None:
    slope = trend(_course([np.multiply.outer(PROGRESS, [0.4] * 5)])).slope["tasks"]
    assert (slope.mean, slope.low, slope.high) == (pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.4))


def test_the_slope_is_that_of_least_squares() -> None:
    course = _drawn(2, 30)
    rates = [np.array(t).sum(1) / np.array(c).sum(1) for t, c in zip(course.totals, course.counts, strict=True)]
    slopes = [scipy.stats.linregress(PROGRESS, rate).slope for rate in rates]
    found = trend(course)
    for over in ("tasks", "seeds", "both"):
        assert found.slope[over].mean == pytest.approx(np.mean(slopes))
        assert found.change[over].mean == pytest.approx(np.mean([rate[-1] - rate[0] for rate in rates]))
    assert found.levels["seeds"][1].mean == pytest.approx(np.mean([rate[1] for rate in rates]))


def test_over_tasks_a_gee_says_the_same() -> None:
    rng = np.random.default_rng(1)
    won = (rng.random((4, 90)) < rng.uniform(0.1, 0.6, size=90) + 0.3 * np.array(PROGRESS)[:, None]).astype(float)
    found = trend(_course([won])).slope["tasks"]
    design = statsmodels.api.add_constant(np.repeat(PROGRESS, 90))
    fit = statsmodels.api.GEE(won.ravel(), design, groups=np.tile(np.arange(90), 4)).fit()
    assert found.mean == pytest.approx(fit.params[1])
    assert found.high - found.low == pytest.approx(2 * 1.96 * fit.bse[1], rel=0.06)


def test_over_seeds_a_t_interval() -> None:
    course = _drawn(4, 40, differ=0.05)
    single = [
        trend(CheckpointSeries(PROGRESS, [t], [c])).slope["tasks"].mean
        for t, c in zip(course.totals, course.counts, strict=True)
    ]
    found = trend(course, margin=0.4)
    low, high = scipy.stats.t.interval(0.95, 3, loc=np.mean(single), scale=scipy.stats.sem(single))
    assert (found.slope["seeds"].n, found.slope["seeds"].low) == (4, pytest.approx(low))
    assert found.slope["seeds"].high == pytest.approx(high)
    p, (_, p_low, _), (_, p_high, _) = DescrStatsW(single).ttost_mean(-0.4, 0.4)
    flat = found.flat["seeds"]
    assert flat.method == "t"
    assert (flat.p_low, flat.p_high) == (pytest.approx(p_low), pytest.approx(p_high))
    assert (flat.low, flat.high) == pytest.approx(DescrStatsW(single).tconfint_mean(alpha=0.1))
    assert (flat.verdict == "equivalent") == (p < 0.05)


def test_over_both_nothing_is_forgotten() -> None:
    alike, differing = (trend(_drawn(3, 60, differ=differ, seed=2)).slope for differ in (0.0, 0.3))

    def width(slopes: object, over: str) -> float:
        return slopes[over].high - slopes[over].low

    assert width(differing, "both") > 3 * width(differing, "tasks")
    assert width(differing, "both") > 3 * width(alike, "both")
    assert alike["both"].n == 60 and alike["seeds"].n == 3


def test_of_one_observation_a_task_it_is_the_crossed_mean() -> None:
    rng = np.random.default_rng(3)
    course = _course((rng.random((4, 4, 25)) < 0.5).tolist())
    table = np.array(course.totals)
    found, by_hand = trend(course), crossed_mean(table[:, -1] - table[:, 0])
    assert found.change["both"].low == pytest.approx(by_hand.estimate().low)
    assert found.p["both"] == pytest.approx(by_hand.p())
    assert found.errors["both"] == pytest.approx((by_hand.error, by_hand.df))
    assert level(course, -1, "both", course).estimate.mean == 0
    assert level(course, 2, "both").estimate == found.levels["both"][2]
    assert found.levels["both"][2].low == pytest.approx(crossed_mean(table[:, 2]).share().low)


def test_flat_is_said_of_all_checkpoints() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 0.02, size=(5, 4, 200))
    tent = np.array([0.0, 0.3, 0.3, 0.0])[:, None]
    straight, bent = trend(_course(noise + 0.5), margin=0.1), trend(_course(noise + 0.5 + tent), margin=0.1)
    for over in ("tasks", "both"):
        assert straight.flat_all[over].verdict == "equivalent"
        # What comes back to where it began is not flat, though its change is.
        assert bent.flat_change[over].verdict == "equivalent" and bent.flat_all[over].verdict == "different"
        assert bent.flat_all[over].high > 0.29 and bent.flat_all[over].p_high > 0.9
    wide = trend(_course(rng.normal(0.5, 1.0, size=(3, 4, 20))), margin=0.05)
    assert wide.flat_all["both"].verdict == "undecided"


def test_a_gap_is_resampled_with_both_of_its_sides() -> None:
    prompt = _drawn(1, 50)
    above = np.array(prompt.totals) + 0.1 * np.array(prompt.counts) * (1 + np.array(PROGRESS))[:, None]
    gap = trend(CheckpointSeries(PROGRESS, above.tolist(), prompt.counts), baseline=prompt)
    assert gap.slope["tasks"].mean == pytest.approx(0.1)
    assert gap.slope["tasks"].low == pytest.approx(0.1) == gap.slope["tasks"].high
    assert [level.mean for level in gap.levels["tasks"]] == pytest.approx([0.1 * (1 + at) for at in PROGRESS])


def test_one_task_has_a_slope_and_no_interval() -> None:
    found = trend(_course([[[0.1], [0.2], [0.3], [0.4]]] * 2), margin=0.5)
    for over in ("tasks", "both"):
        assert found.slope[over].low is None and found.flat[over].verdict == "undecided"
        assert found.flat[over].p_low is None


def test_what_is_no_trend_is_refused() -> None:
    for progress, message in (((0.5,), "1 checkpoints"), ((1.0, 0.0), "ascending"), ((0.0, 0.5, 1.0), "3 checkpoints")):
        with pytest.raises(UsageError, match=message):
            trend(CheckpointSeries(progress, [[[1.0, 0.0]] * 2], [[[1.0, 1.0]] * 2]))
    with pytest.raises(UsageError, match="two checkpoints"):
        trend(CheckpointSeries((0.5,), [[[1.0, 0.0]]], [[[1.0, 1.0]]]))
    with pytest.raises(UsageError, match="no observation"):
        trend(CheckpointSeries((0, 1), [[[1.0], [0.0]]], [[[1.0], [0.0]]]))
    with pytest.raises(UsageError, match="the same seeds"):
        trend(_drawn(1, 5), baseline=_drawn(1, 6))
    with pytest.raises(UsageError, match="margin above 0"):
        trend(_drawn(1, 5), margin=0.0)


def test_two_one_sided_t_tests_in_closed_form() -> None:
    # 0.02 with standard error 0.03 and 20 degrees: t = 4 above -0.1, and t = -2.667 under 0.1.
    found = equivalence.of_t(0.02, 0.03, 20, 0.1)
    assert found.p_low == pytest.approx(scipy.stats.t.sf(4, 20)) and found.p_high == pytest.approx(scipy.stats.t.sf(8 / 3, 20))
    reach = 0.03 * scipy.stats.t.ppf(0.95, 20)
    assert (found.low, found.high) == (pytest.approx(0.02 - reach), pytest.approx(0.02 + reach))
    assert found.verdict == "equivalent"


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.0, 0.02, "equivalent"),
        (0.05, 0.01, "equivalent"),  # Surely not 0, and surely within the margin.
        (0.0, 0.2, "undecided"),  # Not significant: no evidence that it is flat.
        (0.09, 0.06, "undecided"),
        (0.3, 0.05, "different"),
        (-0.3, 0.05, "different"),
    ],
)
def test_the_verdict(value: float, error: float, verdict: str) -> None:
    assert equivalence.of_t(value, error, 100, 0.1).verdict == verdict
    rng = np.random.default_rng(5)
    sample = rng.normal(size=101)
    sample = value + error * 101**0.5 * (sample - sample.mean()) / sample.std(ddof=1)
    found = equivalence.of_bootstrap(bootstrap.ratios([sample], [np.ones(101)]).combined([1.0]), 0.1)
    assert found.verdict == verdict and found.method == "bootstrap"
    assert (found.p_low < 0.05 and found.p_high < 0.05) == (verdict == "equivalent")
    exact = equivalence.of_t(value, error, 100, 0.1)
    assert found.low == pytest.approx(exact.low, abs=0.12 * error) and found.high == pytest.approx(exact.high, abs=0.12 * error)
    assert found.p_high == pytest.approx(exact.p_high, abs=0.02)


def test_where_nothing_varies_nothing_is_shown() -> None:
    found = trend(_course([np.full((4, 6), 0.5)]), margin=0.1)
    assert found.slope["tasks"].mean == 0
    assert found.flat["tasks"].verdict == "undecided" and found.flat["tasks"].low is None


@pytest.mark.parametrize("rounds", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_what_is_not_flat_is_seldom_called_so(rounds: int) -> None:
    # The truth lies on the margin, where 5 % are called equivalent at most; at 0 most are.
    rng, called = np.random.default_rng(6), {0.2: 0, 0.0: 0}
    for rise in called:
        for _ in range(rounds):
            chances = rng.uniform(0.1, 0.7, size=80) + rise * np.array(PROGRESS)[:, None]
            totals = rng.binomial(10, chances)
            course = CheckpointSeries(PROGRESS, [totals.tolist()], [np.full(totals.shape, 10).tolist()])
            called[rise] += trend(course, margin=0.2).flat["tasks"].verdict == "equivalent"
    assert called[0.2] / rounds <= (0.1 if rounds < 100 else 0.065)
    assert called[0.0] / rounds > 0.95
