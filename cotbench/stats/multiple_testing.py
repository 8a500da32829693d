"""Correction for several tests of one question. Invariant: a p-value of a family is shown together with its adjusted one, under
its name.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

ALPHA = 0.05


class Adjusted(BaseModel):
    """A p-value in its family.

    Attributes:
        p: unadjusted; `adjusted`: adjusted for the family.
        rejected: whether the adjusted p-value is at most the family's level, the largest chance of any false rejection in it.
    """

    model_config = ConfigDict(frozen=True)

    p: float
    adjusted: float
    rejected: bool


def holm(p_values: Mapping[str, float | None], alpha: float = ALPHA) -> dict[str, Adjusted]:
    """Return Holm's step-down adjustment of a family of p-values.

    Args:
        p_values: by name; those that are None do not belong to the family.
        alpha: the level of the family: the largest chance of any false rejection in it.

    Returns:
        The adjusted p-values by name, in the order given.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure". The k-th smallest of m p-values is rejected
    where it and every smaller one are at most alpha / (m - k + 1).
    """
    known = {name: p for name, p in p_values.items() if p is not None}
    adjusted: dict[str, Adjusted] = {}
    largest, standing = 0.0, False
    for rank, name in enumerate(sorted(known, key=lambda name: known[name])):
        left = len(known) - rank
        largest = max(largest, known[name] * left)
        standing = standing or known[name] > alpha / left
        adjusted[name] = Adjusted(p=known[name], adjusted=min(1.0, largest), rejected=not standing)
    return {name: adjusted[name] for name in known}
