"""Estimates as text."""

import pytest

from cotbench.stats.estimates import Estimate
from cotbench.stats.formatting import estimate_cell, format_estimate


@pytest.mark.parametrize(
    ("mean", "low", "high", "text"),
    [
        (-0.001, -0.2, 0.004, "+0.00 [-0.20, +0.00]"),
        (-1e-17, -0.3, -1e-17, "+0.00 [-0.30, +0.00]"),
        (0.2, -0.001, 0.4, "+0.20 [-0.00, +0.40]"),
    ],
)
def test_only_an_end_of_an_interval_is_a_negative_zero(mean: float, low: float, high: float, text: str) -> None:
    estimate = Estimate(n=5, mean=mean, low=low, high=high)
    assert format_estimate(estimate, signed=True) == text
    assert format_estimate(estimate) == text.replace("+", "")
    assert str(estimate_cell(estimate, signed=True)) == text
