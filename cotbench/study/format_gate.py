"""Where a series of checkpoints begins: at the first one whose answers keep the format. Invariant: no change is counted from an
earlier one, which measures whether the model writes the tags and not what it chooses; and the report says what was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.stats.trend import CheckpointSeries
from cotbench.study.data import StudyCell, StudyData

NAMES: dict[Mode, str] = {"prompt": "prompt mode", "cot": "CoT mode"}


@dataclass(frozen=True, slots=True)
class SeriesStart:
    """The first checkpoint that keeps the format.

    Attributes:
        modes: in which the format counts.
        shares: of the training at which the format was measured, ascending.
        rates: share of the answers that keep it at each, that of the mode that keeps it least.
        threshold: from which share on it counts as kept.
    """

    modes: tuple[Mode, ...]
    shares: tuple[float, ...]
    rates: tuple[float, ...]
    threshold: float

    @property
    def begins(self) -> float | None:
        """Share of the training at which the series begins; None where no checkpoint keeps the format."""
        return next((share for share, rate in zip(self.shares, self.rates, strict=True) if rate >= self.threshold), None)

    @property
    def left_out(self) -> tuple[float, ...]:
        """The checkpoints before it."""
        begins = self.begins
        return tuple(share for share in self.shares if begins is None or share < begins)

    @property
    def lost(self) -> tuple[float, ...]:
        """Later checkpoints that do not keep the format, though an earlier one did; they stay in the series."""
        pairs = zip(self.shares, self.rates, strict=True)
        return tuple(share for share, rate in pairs if share not in self.left_out and rate < self.threshold)

    def sentence(self) -> str:
        """Return what is to be said of the beginning; nothing where the series is whole."""
        named = " and ".join(NAMES[mode] for mode in self.modes)
        if self.begins is None:
            return (
                f"no checkpoint keeps the format in {named} (at most {max(self.rates):.2f} of the answers, {self.threshold:g} "
                "required): its training is not evaluated"
            )
        if self.begins == self.shares[-1] and len(self.shares) > 1:
            return (
                f"only the last checkpoint keeps the format in {named} ({self.rates[-1]:.2f} of its answers): its training is "
                "not evaluated"
            )
        parts = []
        if self.left_out:
            pairs = zip(self.left_out, self.rates, strict=False)
            left = ", ".join(f"{share:.0%} ({rate:.2f})" for share, rate in pairs)
            parts.append(f"begins at {self.begins:.0%} of the training; left out, as the format in {named} is not kept: {left}")
        if self.lost:
            parts.append("the format is lost again at " + ", ".join(f"{share:.0%}" for share in self.lost))
        return "; ".join(parts)


def series_start(data: StudyData, cell: StudyCell, modes: Sequence[Mode]) -> SeriesStart | None:
    """Return where the series of a cell begin that need some modes; None where the study has no probe `alignment` there.

    Args:
        data: the study.
        cell: arm and split.
        modes: whose answers the series is made of; both for a gap.
    """
    measure = next(iter(data.measures("alignment")), None)
    if measure is None or not modes:
        return None
    shares = data.shares(cell, measure)
    rates = []
    for share in shares:
        rows = [row for row in data.rows(cell, measure, share) if row.error is None and row.left_out is None]
        of_modes = [[bool(getattr(row, f"{mode}_format_ok")) for row in rows] for mode in MODES if mode in modes]
        rates.append(min(sum(one) / len(one) for one in of_modes) if rows else 0.0)
    return SeriesStart(tuple(modes), tuple(shares), tuple(rates), data.config.format_kept) if shares else None


def begun(series: CheckpointSeries | None, start: SeriesStart | None) -> CheckpointSeries | None:
    """Return a series from where it begins; None where it never does.

    Args:
        series: None where nothing was measured.
        start: None where the format is not known.
    """
    if series is None or start is None:
        return series
    begins = start.begins
    places = [place for place, share in enumerate(series.progress) if begins is not None and share >= begins]
    if not places:
        return None
    return series.at(places)
