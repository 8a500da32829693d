"""Several tests of one question. Invariant: a p-value of a family is shown with its adjusted one, under its name."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

ALPHA = 0.05


class Adjusted(BaseModel):
    """A p-value in its family.

    Attributes:
        p: alone; `adjusted`: among the family.
        rejected: whether the adjusted one is at most the level: then the chance of any false rejection in the family is too.
    """

    model_config = ConfigDict(frozen=True)

    p: float
    adjusted: float
    rejected: bool


def holm(p_values: Mapping[str, float | None], alpha: float = ALPHA) -> dict[str, Adjusted]:
    """Holm's step-down adjustment (Holm 1979), by name and in the order given. What has no p-value (None) is in no family."""
    known = {name: p for name, p in p_values.items() if p is not None}
    if not known:
        return {}
    from statsmodels.stats.multitest import multipletests

    rejected, adjusted, *_ = multipletests(list(known.values()), alpha=alpha, method="holm")
    return {
        name: Adjusted(p=p, adjusted=float(after), rejected=bool(no))
        for (name, p), after, no in zip(known.items(), adjusted, rejected, strict=True)
    }
