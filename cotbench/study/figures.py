"""The figures of a study. Invariant: a figure shows levels that were computed elsewhere, one panel for each split; its caption
gives n, the units of the intervals, and the number of seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cotbench.report.page import Figure, Line, Panel, Series
from cotbench.stats.trend import Over
from cotbench.study.data import StudyCell, StudyData
from cotbench.study.series import SeriesLevels

Labelled = Sequence[tuple[str, Series, SeriesLevels] | tuple[str, Series, SeriesLevels, str]]
"""Lines of a panel: label, series, levels, and the group where it is not the label (`Line.group`)."""
PROGRESS = "training progress"
"""Name of an axis from 0, before the training, to 1, its end."""


def line(label: str, series: Series, levels: SeriesLevels, group: str = "") -> Line:
    """Return levels as a line, with a dot for each seed where there are several.

    Args:
        label: in the legend.
        series: picks the colour.
        levels: the values.
        group: as in `Line`.
    """
    several = any(len(values) > 1 for values in levels.by_seed)
    return Line(label, levels.shares, levels.estimates, series, levels.by_seed if several else (), group)


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
    """Return a figure over the progress of the training, one panel for each split; None where nothing was measured.

    Args:
        data: the study.
        name: of the files.
        title: of the figure.
        y: name of the vertical axis.
        lines_of: returns the lines of a panel.
        cells: one for each panel.
        about: first sentence of the caption.
        at: a horizontal line at this y.
        band: a horizontal band, [low, high].
        y_range: of every panel; None: chosen from the values.
    """
    panels, units = [], []
    for cell in cells:
        found = lines_of(cell)
        if found:
            panels.append(Panel(cell.split, tuple(line(*one) for one in found), at, band))
            units += [estimate.n for one in found for estimate in one[2].estimates]
    if not panels:
        return None
    caption = f"{about} {interval_caption(data, units, over='both')}"
    return Figure(name, title, caption, PROGRESS, y, tuple(panels), y_range)


def interval_caption(
    data: StudyData, units: Sequence[int], drawn: str = "Bands", dots: bool = True, over: Over = "tasks"
) -> str:
    """Return the part that all captions share: n, and what the intervals are over; `reading_notes` has the rest.

    Args:
        data: the study.
        units: tasks behind each estimate.
        drawn: the name of the intervals in the figure or table.
        dots: whether seeds are drawn as dots.
        over: what the intervals are over; with one seed they are over tasks.
    """
    seeds = len(data.config.seeds)
    caption = "" if drawn == "Intervals" else f"{drawn}: "
    caption += f"95 % intervals over {format_range(units)} tasks"
    if seeds > 1:
        caption += f" and {seeds} seeds" if over == "both" else f", {seeds} seeds pooled"
    return f"{caption}." + (" Dots: each seed." if seeds > 1 and dots else "")


def reading_notes(data: StudyData) -> tuple[str, ...]:
    """Return how the numbers of a study were measured: what holds for all captions, said once.

    Args:
        data: the study.
    """
    if len(data.config.seeds) == 1:
        intervals = "Intervals are cluster bootstraps over tasks."
    else:
        intervals = (
            "Intervals over tasks and seeds are t intervals with tasks and seeds crossed. Where seeds are pooled, they are "
            "cluster bootstraps over tasks, and do not cover other training runs."
        )
    outcomes = (
        " Where each task has one outcome (one seed, or before training), success has Wilson's interval and a difference of "
        "successes Newcombe's."
    )
    return f"{intervals}{outcomes if data.runs else ''}", elicitation_caption(data)


def format_range(units: Sequence[int]) -> str:
    """Return the smallest and the largest number, such as `40`, or `40 to 60`."""
    return str(min(units)) if min(units) == max(units) else f"{min(units)} to {max(units)}"


def elicitation_caption(data: StudyData) -> str:
    """Return the sentence on the elicitation."""
    if not data.uses_elicitation:
        return "No elicitation: the agents take none."
    style = data.config.elicitation.get("style", "prefill")
    temperature = data.config.elicitation.get("temperature", 0)
    prints = {name: one for name, one in data.elicitations.items() if name in data.config.envs}
    others = "".join(f" Another elicitation: {name} ({one})." for name, one in data.elicitations.items() if name not in prints)
    return f"Elicitation {style} {', '.join(dict.fromkeys(prints.values()))}, temperature {temperature:g}.{others}"


def curve_figure(
    data: StudyData,
    name: str,
    title: str,
    axes: tuple[str, str],
    panels: Sequence[tuple[str, Sequence[Line]]],
    *,
    about: str,
    y_range: tuple[float, float] | None = None,
) -> Figure | None:
    """Return a figure of a probe's curves over another quantity than progress; None where there are none.

    Args:
        data: the study.
        name: of the files.
        title: of the figure.
        axes: names of the horizontal and the vertical axis.
        panels: (title, lines).
        about: first sentence of the caption.
        y_range: of every panel; None: chosen from the values.
    """
    drawn = [Panel(title_, tuple(lines)) for title_, lines in panels if lines]
    if not drawn:
        return None
    units = [estimate.n for panel in drawn for one in panel.lines for estimate in one.y]
    return Figure(name, title, f"{about} {interval_caption(data, units, dots=False)}", *axes, tuple(drawn), y_range)
