"""Ranks: paired, shared where luck could have made the difference, and the same numbers as one test at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotbench.leaderboard.boards.ranking import _rejected, exchange_of, mcnemar_of, ranks
from cotbench.stats import estimates
from cotbench.stats.multiple_testing import holm


def _won(rates: list[float], tasks: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.random(tasks) < rate for rate in rates], dtype=np.int8)


def test_many_mcnemar_tests_at_once_are_each_the_exact_one() -> None:
    won = _won([0.1, 0.5, 0.5, 0.9, 0.0, 1.0], 60)
    others = np.arange(1, 6)
    found = mcnemar_of(won)(0, others)
    for place, p in zip(others, found, strict=True):
        first = int(np.sum((won[0] == 1) & (won[place] == 0)))
        second = int(np.sum((won[0] == 0) & (won[place] == 1)))
        assert p == pytest.approx(estimates.mcnemar(first, second), rel=1e-12)


def test_the_exchange_test_is_fishers() -> None:
    won = _won([0.2, 0.35, 0.6], 40, seed=3).astype(float)
    found = exchange_of(won / 40)(0, np.array([1, 2]))
    for place, p in zip((1, 2), found, strict=True):
        assert p == pytest.approx(estimates.permutation(list(won[0]), list(won[place])), abs=0.02)


def test_the_exchange_test_weighs_environments_alike() -> None:
    """Won on all 20 tasks of one environment against a win on 200 of another: a task of the small one weighs ten times more."""
    small, large = np.zeros((2, 20)), np.zeros((2, 200))
    small[0], large[1, :30] = 1, 1
    values = np.concatenate([small / 20, large / 200], axis=1) / 2
    assert values[0].sum() == pytest.approx(0.5)
    assert exchange_of(values)(0, np.array([1]))[0] < 0.001


def test_equal_entries_share_the_first_rank() -> None:
    won = np.repeat(_won([0.4], 50), 4, axis=0)
    assert ranks([2, 0, 1, 3], mcnemar_of(won)) == {0: 1, 1: 1, 2: 1, 3: 1}


def test_clearly_worse_entries_lead_ranks_of_their_own() -> None:
    won = np.zeros((3, 100), dtype=np.int8)
    won[0, :90], won[1, :50], won[2, :5] = 1, 1, 1
    assert ranks([0, 1, 2], mcnemar_of(won)) == {0: 1, 1: 2, 2: 3}


def test_a_rank_counts_the_entries_above_it() -> None:
    won = np.zeros((4, 100), dtype=np.int8)
    won[:3, :90] = 1
    won[3, :20] = 1
    assert ranks([0, 1, 2, 3], mcnemar_of(won)) == {0: 1, 1: 1, 2: 1, 3: 4}


def test_nobody_is_passed_by_an_entry_that_won_less() -> None:
    """The third differs from the leader significantly, the fourth, with fewer wins, does not: both share the rank."""
    won = np.zeros((3, 100), dtype=np.int8)
    won[0, :60] = 1
    won[1, :48] = 1  # Never wins where the leader does not: significant.
    won[2, 30:77] = 1  # 47 wins, many where the leader has none: not significant.
    tests = mcnemar_of(won)
    adjusted = holm({str(i): float(p) for i, p in enumerate(tests(0, np.array([1, 2])))})
    assert adjusted["0"].rejected
    assert not adjusted["1"].rejected
    assert ranks([0, 1, 2], tests) == {0: 1, 1: 1, 2: 1}


def test_a_family_of_many_makes_a_single_lucky_difference_no_rank() -> None:
    """One p of 0.04 is significant alone, not among a hundred."""
    won = np.zeros((101, 200), dtype=np.int8)
    won[0, :100] = 1
    won[1, :94] = 1  # 6 to 0: p = 0.031.
    for place in range(2, 101):
        won[place] = won[0]
    order = [0, *range(2, 101), 1]
    assert ranks([0, 1], mcnemar_of(won[:2])) == {0: 1, 1: 2}
    assert set(ranks(order, mcnemar_of(won)).values()) == {1}


def test_no_entry_has_no_rank_and_one_is_first() -> None:
    assert ranks([], mcnemar_of(np.zeros((0, 5), dtype=np.int8))) == {}
    assert ranks([0], mcnemar_of(np.ones((1, 5), dtype=np.int8))) == {0: 1}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-9, 0.001, 0.01, 0.0125, 0.02, 0.025, 0.05, 0.051, 0.5, 1.0]), min_size=1, max_size=9))
def test_what_is_rejected_is_what_holm_rejects(p_values: list[float]) -> None:
    expected = [one.rejected for one in holm({str(place): p for place, p in enumerate(p_values)}).values()]
    assert list(_rejected(np.array(p_values))) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 1000))
def test_ranks_never_fall_along_the_order(rates: list[float], seed: int) -> None:
    won = _won(rates, 40, seed)
    order = sorted(range(len(rates)), key=lambda place: -int(won[place].sum()))
    found = ranks(order, mcnemar_of(won))
    placed = [found[place] for place in order]
    assert placed[0] == 1
    assert placed == sorted(placed)
    # A rank's number is one more than the entries above it.
    assert all(rank == 1 + sum(other < rank for other in placed) for rank in placed)
