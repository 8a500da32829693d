"""The figures of a study. Invariant: a figure shows levels that were computed elsewhere, a panel a split; its caption says n,
over what the band is, and how many seeds the dots are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cotbench.report.page import Figure, Line, Panel, Series
from cotbench.stats.estimates import Estimate
from cotbench.study.data import StudyCell, StudyData
from cotbench.study.series import SeriesLevels

Labelled = Sequence[tuple[str, Series, SeriesLevels]]


def line(label: str, series: Series, levels: SeriesLevels) -> Line:
    """Levels as a line, with a dot a seed where there are several."""
    several = any(len(values) > 1 for values in levels.by_seed)
    return Line(label, levels.shares, levels.over_tasks, series, levels.by_seed if several else ())


def progress_figure(
    data: StudyData,
    name: str,
    title: str,
    y: str,
    lines_of: Callable[[StudyCell], Labelled],
    cells: Sequence[StudyCell],
    *,
    about: str,
    at: float | None = None,
    band: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> Figure | None:
    """Lines over the progress of the training, a panel a split; None where nothing was measured."""
    panels, units = [], []
    for cell in cells:
        found = lines_of(cell)
        if found:
            panels.append(Panel(cell.split, tuple(line(*one) for one in found), at, band))
            units += [estimate.n for _, _, levels in found for estimate in levels.over_tasks]
    if not panels:
        return None
    caption = f"{about} {interval_caption(data, units)}"
    return Figure(name, title, caption, "share of the training", y, tuple(panels), y_range)


def interval_caption(data: StudyData, units: Sequence[int], drawn: str = "Bands", dots: bool = True) -> str:
    """What every caption says: n, over what the intervals are, seeds, elicitation."""
    seeds = len(data.config.seeds)
    pooled = f", the {seeds} seeds pooled" if seeds > 1 else ""
    told = f"{drawn}: 95 % intervals over {format_range(units)} tasks{pooled} (cluster bootstrap)."
    if seeds == 1:
        told += " One seed: nothing is said of another training run."
    elif dots:
        told += f" Dots: each of {seeds} seeds."
    return f"{told} {elicitation_caption(data)}"


def format_range(units: Sequence[int]) -> str:
    """Such as `40`, or `40 to 60`."""
    return str(min(units)) if min(units) == max(units) else f"{min(units)} to {max(units)}"


def elicitation_caption(data: StudyData) -> str:
    """The elicitation, in words."""
    style = data.config.elicitation.get("style", "prefill")
    temperature = data.config.elicitation.get("temperature", 0)
    prints = ", ".join(dict.fromkeys(data.elicitations.values()))
    return f"Elicitation {style} {prints}, temperature {temperature:g}."


def curve_figure(
    data: StudyData,
    name: str,
    title: str,
    axes: tuple[str, str],
    panels: Sequence[tuple[str, Sequence[tuple[str, tuple[float, ...], tuple[Estimate, ...]]]]],
    *,
    about: str,
    y_range: tuple[float, float] | None = None,
) -> Figure | None:
    """Curves of a probe over something else than progress: (panel's title, (label, x, y) ...); None where there are none."""
    made = [Panel(title_, tuple(Line(label, x, y) for label, x, y in lines)) for title_, lines in panels if lines]
    if not made:
        return None
    units = [estimate.n for panel in made for one in panel.lines for estimate in one.y]
    return Figure(name, title, f"{about} {interval_caption(data, units, dots=False)}", *axes, tuple(made), y_range)
