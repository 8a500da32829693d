"""Holm by hand."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotbench.stats.multiple_testing import holm


def test_holm_by_hand() -> None:
    family = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    # Sorted: d 0.005 x 4, a 0.01 x 3, c 0.03 x 2, b 0.04 x 1, and none below the one before it.
    assert list(family) == ["a", "b", "c", "d"]
    assert {name: one.adjusted for name, one in family.items()} == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert {name for name, one in family.items() if one.rejected} == {"a", "d"}
    assert family["c"].p == 0.03


def test_a_first_one_that_stands_keeps_the_others_standing() -> None:
    assert not any(one.rejected for one in holm({"a": 0.02, "b": 0.03, "c": 0.9}).values())


def test_the_level_is_the_callers() -> None:
    assert holm({"a": 0.02, "b": 0.5}, alpha=0.1)["a"].rejected
    assert not holm({"a": 0.02, "b": 0.5}, alpha=0.01)["a"].rejected


def test_what_has_no_p_value_is_in_no_family() -> None:
    family = holm({"a": 0.03, "b": None})
    assert list(family) == ["a"] and family["a"].adjusted == 0.03 and family["a"].rejected
    assert holm({"b": None}) == {} == holm({})


def test_no_adjusted_value_is_above_one() -> None:
    assert {one.adjusted for one in holm({"a": 0.6, "b": 0.7}).values()} == {1.0}


@pytest.fixture(scope="module")
def frozen() -> Iterator[None]:
    """Objects that live already are passed over by the garbage collector, which statsmodels runs at every call."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.1]))
def test_holm_as_in_statsmodels(values: list[float], alpha: float) -> None:
    from statsmodels.stats.multitest import multipletests

    rejected, adjusted, *_ = multipletests(values, alpha=alpha, method="holm")
    ours = list(holm({str(place): value for place, value in enumerate(values)}, alpha).values())
    assert [one.adjusted for one in ours] == adjusted.tolist()
    assert [one.rejected for one in ours] == rejected.tolist()
