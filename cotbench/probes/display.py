"""A measurement as Python and notebooks show it. Invariant: it is drawn from the manifest and the numbers alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from cotbench.notebook import Display
from cotbench.probes.numbers import ProbeNumbers
from cotbench.stats.estimates import Estimate
from cotbench.stats.formatting import format_estimate

_FIGURES, _ROWS = 4, 12
"""Numbers in the text form, and in the table."""


class Measured(Protocol):
    """What identifies a measurement."""

    @property
    def probe(self) -> str:
        """Name of the probe."""

    @property
    def agent(self) -> str:
        """Spec of the agent that was measured."""

    @property
    def env(self) -> str:
        """Name of the environment."""

    @property
    def scheme(self) -> str:
        """Family of splits."""

    @property
    def split(self) -> str:
        """Split of the states."""

    @property
    def seed(self) -> int:
        """Draws the states."""


def probe_display(of: Measured, numbers: ProbeNumbers, path: Path | None = None) -> Display:
    """Return what is shown of a measurement.

    Args:
        of: its manifest or summary.
        numbers: of the probe.
        path: its folder; None: not named.
    """
    known = [(name, one) for name, one in numbers.estimates.items() if one.mean is not None]
    estimates = [(name, format_estimate(one, 3), str(one.n)) for name, one in known]
    figures = [f"{name}: {value} (n={n})" for name, value, n in estimates[:_FIGURES]]
    if len(estimates) > _FIGURES:
        figures.append(f"... and {len(estimates) - _FIGURES} more numbers: .estimates")
    rows = estimates[:_ROWS]
    if len(estimates) > _ROWS:
        rows.append((f"... and {len(estimates) - _ROWS} more: .estimates", "", ""))
    return Display(
        f"Probe {of.probe} of {of.agent} on {of.env} {of.scheme}/{of.split}: {numbers.states} states of {numbers.tasks} tasks, "
        f"seed {of.seed}",
        figures=tuple(figures),
        columns=(of.probe, "value", "n tasks"),
        rows=tuple(rows),
        notes=tuple(_notes(numbers, path)),
    )


def _notes(numbers: ProbeNumbers, path: Path | None) -> Iterable[str]:
    if numbers.curves:
        yield f"curves: {', '.join(numbers.curves)}"
    yield "95 % intervals over tasks"
    yield from numbers.notes
    yield from (f"left out: {count} states ({reason})" for reason, count in numbers.left_out.items())
    if numbers.errors:
        yield f"ERRORS: {numbers.errors} states could not be measured and are excluded from all statistics"
    if path is not None:
        yield f"folder: {path}"


def estimate_rows(numbers: ProbeNumbers) -> Iterable[dict[str, Any]]:
    """Yield the numbers of a probe as rows of a table.

    Args:
        numbers: of the probe.

    Yields:
        number, x and at (the axis of a curve and the place on it; None elsewhere), mean, low, high, n.
    """

    def row(name: str, x: str | None, at: float | None, one: Estimate) -> dict[str, Any]:
        return {"number": name, "x": x, "at": at, "mean": one.mean, "low": one.low, "high": one.high, "n": one.n}

    for name, one in numbers.estimates.items():
        yield row(name, None, None, one)
    for name, curve in numbers.curves.items():
        yield from (row(name, curve.x, at, one) for at, one in zip(curve.at, curve.values, strict=True))
