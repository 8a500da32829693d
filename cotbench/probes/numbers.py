"""A probe's rows, one a state, and the numbers over rows. Invariant: a row is a measurement, an error, or left out for a reason
that it names; every number is an `Estimate` with its n and interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cotbench.failure import ErrorKind
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: object) -> bool:
    return value == ()


class ProbeRow(BaseModel):
    """Base of every probe's row; a probe adds its own fields, all with defaults.

    Attributes:
        error: why the state could not be measured: it is in no number.
        error_kind: whose failure that was; `traceback` of the exception behind it. Both are left out of JSON where None.
        left_out: why the probe does not measure this state, such as "no donor".
    """

    model_config = _FROZEN

    task: str
    step: int
    error: str | None = None
    error_kind: ErrorKind | None = Field(None, exclude_if=_is_none)
    traceback: str | None = Field(None, exclude_if=_is_none)
    left_out: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Task and step, unique within a set of states."""
        return self.task, self.step


R = TypeVar("R", bound=ProbeRow)


class Curve(BaseModel):
    """Numbers over an axis: truncation, layer, head.

    Attributes:
        x: name of the axis: "truncation", "layer".
        at: positions on the axis; as long as `values`.
    """

    model_config = _FROZEN

    x: str
    at: tuple[float, ...]
    values: tuple[Estimate, ...]


class ProbeNumbers(BaseModel):
    """The numbers of a probe. Intervals are over tasks (cluster bootstrap).

    Attributes:
        states: states measured; `tasks` is the number of their tasks.
        errors: states that could not be measured; in no number.
        left_out: states that the probe does not measure, by reason (such as "no donor"); in no number.
        estimates: by name, in the order of the table.
        curves: by name.
        counts: counts by name, such as the cells of the revision table.
        notes: sentences that belong beside the numbers, such as the verdict on a judge; left out of JSON where there are none.
    """

    model_config = _FROZEN

    states: int
    tasks: int
    errors: int
    left_out: dict[str, int] = {}
    estimates: dict[str, Estimate] = {}
    curves: dict[str, Curve] = {}
    counts: dict[str, int] = {}
    notes: tuple[str, ...] = Field((), exclude_if=_is_empty)


def over_tasks(rows: Iterable[R], value: Callable[[R], float | bool | None]) -> Estimate:
    """Return the mean of a value over rows, with an interval from resampling whole tasks.

    Args:
        rows: the rows.
        value: the value of a row; None where it has none and is left out of the mean.
    """
    totals: dict[str, float] = {}
    counts: dict[str, float] = {}
    for row in rows:
        known = value(row)
        if known is not None:
            totals[row.task] = totals.get(row.task, 0.0) + float(known)
            counts[row.task] = counts.get(row.task, 0.0) + 1
    return estimates.ratio(list(totals.values()), list(counts.values()))


def partition_rows(rows: Sequence[R]) -> tuple[list[R], int, dict[str, int]]:
    """Return the measured rows, the number of errors, and the number of rows left out for each reason."""
    measured: list[R] = []
    errors, reasons = 0, dict[str, int]()
    for row in rows:
        if row.error is not None:
            errors += 1
        elif row.left_out is not None:
            reasons[row.left_out] = reasons.get(row.left_out, 0) + 1
        else:
            measured.append(row)
    return measured, errors, reasons
