"""Figures drawn with matplotlib, as SVG for the page and as PDF for a paper. Invariant: the same figure gives the same bytes,
whatever the user's settings of matplotlib are, and matplotlib's global state is not changed; text on the page has 12 px or more
(a panel is never shown smaller than it is drawn), and a PDF has the width of one or two columns of a paper and no title.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cotbench.report.colours import LIGHT, Style
from cotbench.report.page import Figure, Line, Panel
from cotbench.report.typography import typeset, typeset_name

Font = Literal["sans", "serif"]
"""Of a PDF's text: `serif` is a Times (STIX), as in papers set with LaTeX; no LaTeX is needed."""

_SETTINGS: Mapping[str, Any] = {
    "axes.edgecolor": LIGHT["rule"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # Text that can be searched and edited.
    "svg.fonttype": "none",  # Text stays text: in the page's font, for screen readers and for searching.
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # A name may hold dollar signs.
    "xtick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.color": LIGHT["rule"],
    "ytick.labelcolor": LIGHT["muted"],
}
_FAMILIES: Mapping[Font, list[str]] = {"sans": ["DejaVu Sans"], "serif": ["STIXGeneral", "DejaVu Serif"]}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes of a panel.

    Attributes:
        width, height: in inches; of a panel of bars the height follows from the bars.
        text: size of the letters in points, which are pixels of the page.
        title, label: characters on a line of the panel's title and of a bar's name.
        line, marker: width and size in points.
    """

    width: float
    height: float
    text: float
    title: int
    label: int
    line: float
    marker: float

    @property
    def settings(self) -> dict[str, Any]:
        """Sizes as settings of matplotlib."""
        sizes = ("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
        return {**dict.fromkeys(sizes, self.text), "axes.titlesize": self.text, "axes.titlepad": 0.7 * self.text}


_PAGE = _Layout(4.7, 3.3, 12.5, 40, 20, 1.8, 4.5)
_ONE_COLUMN, _TWO_COLUMNS = 3.25, 6.75
"""Widths of a figure in a paper of two columns, in inches."""


def _paper(columns: int) -> _Layout:
    """Return the sizes in a PDF with panels in so many columns."""
    width = _ONE_COLUMN if columns == 1 else _TWO_COLUMNS / columns
    return _Layout(width, 0.42 * width + 0.85, 8.0, round(13 * width), round(6 * width), 1.2, 3.0)


def panel_svgs(figure: Figure, styles: Mapping[Line, Style]) -> list[str]:
    """Return each panel as an SVG of its own, as matplotlib writes it.

    Args:
        figure: the figure.
        styles: of its lines.
    """
    with _settings(figure.name, _PAGE):
        return [_svg(figure, panel, styles) for panel in figure.panels]


def figure_pdf(figure: Figure, styles: Mapping[Line, Style], font: Font = "sans") -> bytes:
    """Return a PDF to put into a paper: all panels with their legend, as wide as one column (one panel) or two, without title.

    Args:
        figure: the figure.
        styles: of its lines.
        font: of its text.
    """
    columns = {1: 1, 2: 2, 4: 2}.get(len(figure.panels), 3)
    layout = _paper(columns)
    height = max(_height(panel, layout) for panel in figure.panels)
    with _settings(figure.name, layout, font):
        from matplotlib.figure import Figure as Drawing

        rows = math.ceil(len(figure.panels) / columns)
        labels = {line.label for panel in figure.panels for line in panel.lines}
        legend_columns = 2 if columns == 1 else 4
        legend = 0.18 * math.ceil(len(labels) / legend_columns) + 0.1 if len(labels) > 1 else 0.0
        drawing: Any = Drawing(figsize=(columns * layout.width, rows * height + legend), layout="constrained")
        for place, panel in enumerate(figure.panels):
            _draw(drawing.add_subplot(rows, columns, place + 1), figure, panel, styles, layout)
        handles: dict[str, Any] = {}
        for axes in drawing.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        if len(handles) > 1:
            drawing.legend(handles.values(), handles, loc="outside lower center", ncols=min(len(handles), legend_columns))
        out = io.BytesIO()
        drawing.savefig(out, format="pdf", metadata={"CreationDate": None, "Title": figure.title})
    return out.getvalue()


@contextmanager
def _settings(salt: str, layout: _Layout, font: Font = "sans") -> Iterator[None]:
    """Apply our settings on top of matplotlib's own defaults, and restore the user's at the end."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        own = {"font.family": _FAMILIES[font], "svg.hashsalt": salt}
        matplotlib.rcParams.update({**_SETTINGS, **layout.settings, **own})
        yield


def _svg(figure: Figure, panel: Panel, styles: Mapping[Line, Style]) -> str:
    from matplotlib.figure import Figure as Drawing

    drawing: Any = Drawing(figsize=(_PAGE.width, _height(panel, _PAGE)), layout="constrained")
    _draw(drawing.add_subplot(), figure, panel, styles, _PAGE)
    out = io.StringIO()
    drawing.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _height(panel: Panel, layout: _Layout) -> float:
    """Return the height of a panel in inches."""
    if not panel.labels:
        return layout.height
    row = layout.text / 72
    rows = sum(max(len(_wrapped(label, layout.label).splitlines()), len(panel.lines)) for label in panel.labels)
    return (6.5 + 1.15 * rows + 0.9 * len(panel.labels)) * row


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text


def _draw(axes: Any, figure: Figure, panel: Panel, styles: Mapping[Line, Style], layout: _Layout) -> None:
    axes.set_title(_wrapped(typeset(panel.title), layout.title))
    bars = bool(panel.labels)
    along, across = (axes.axvline, axes.axvspan) if bars else (axes.axhline, axes.axhspan)
    if panel.band is not None:
        across(*panel.band, facecolor=LIGHT["grid"], edgecolor="none", zorder=0)
    if panel.at is not None:
        along(panel.at, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
    if bars:
        _draw_bars(axes, panel, styles, layout)
        axes.set_xlabel(typeset_name(figure.y))
        axes.set_xlim(*_range(figure))
    else:
        for line in panel.lines:
            _draw_line(axes, line, styles[line], layout)
        axes.set_xlabel(typeset_name(figure.x))
        axes.set_ylabel(typeset_name(figure.y))
        axes.set_ylim(*_range(figure))
        ticks = sorted({x for each in figure.panels for line in each.lines for x in line.x})
        if 0 < len(ticks) <= 8:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlim(*_widened(ticks, 0.05))
    axes.grid(True, axis="x" if bars else "y", color=LIGHT["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)


def _draw_line(axes: Any, line: Line, style: Style, layout: _Layout) -> None:
    """Draw a line with markers; its intervals as a band, as a whisker where no neighbour has one; dots beside it."""
    colour = LIGHT[style.colour]
    x, (mean, low, high) = list(line.x), _ends(line)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    lonely = [not any(_has_value(low, near) for near in (place - 1, place + 1)) for place in range(len(x))]
    for place, alone in enumerate(lonely):
        if alone and _has_value(low, place):
            axes.plot([x[place]] * 2, [low[place], high[place]], color=colour, linewidth=1.2)
    drawn = {"linestyle": (0, style.dashes) if style.dashes else "-", "marker": style.marker}
    sizes = {"linewidth": layout.line, "markersize": layout.marker}
    axes.plot(x, mean, color=colour, label=typeset_name(line.label), zorder=3, **sizes, **drawn)
    _draw_dots(axes, x, line, colour, layout, bars=False)


def _draw_bars(axes: Any, panel: Panel, styles: Mapping[Line, Style], layout: _Layout) -> None:
    """Draw a group of bars for each name, from top to bottom, with whiskers and dots."""
    thick = 0.8 / max(1, len(panel.lines))
    for number, line in enumerate(panel.lines):
        colour = LIGHT[styles[line].colour]
        y = [x + (number - (len(panel.lines) - 1) / 2) * thick for x in line.x]
        mean, low, high = _ends(line)
        axes.barh(y, mean, thick * 0.86, color=colour, alpha=0.82, linewidth=0, label=typeset_name(line.label), zorder=2)
        for place, left, right in zip(y, low, high, strict=True):
            axes.plot([left, right], [place, place], color=LIGHT["ink"], linewidth=1.1, solid_capstyle="butt", zorder=4)
        # A bar of length 0 is visible too.
        axes.plot(
            mean,
            y,
            "D",
            color=colour,
            markersize=layout.marker,
            markeredgecolor=LIGHT["ink"],
            markeredgewidth=0.7,
            zorder=4.5,
            clip_on=False,
        )
        _draw_dots(axes, y, line, LIGHT["ink"], layout, bars=True)
    axes.set_yticks(range(len(panel.labels)), [_wrapped(typeset(label), layout.label) for label in panel.labels])
    axes.set_ylim(len(panel.labels) - 0.4, -0.6)
    axes.tick_params(axis="y", left=False)


def _draw_dots(axes: Any, places: list[float], line: Line, colour: str, layout: _Layout, *, bars: bool) -> None:
    if not line.dots:
        return
    positions = [place for place, dots in zip(places, line.dots, strict=True) for _ in dots]
    values = [dot for dots in line.dots for dot in dots]
    size = 0.65 * layout.marker
    drawn = {"color": colour, "alpha": 0.6, "marker": "o", "markersize": size, "markeredgewidth": 0, "linestyle": "none"}
    axes.plot(*((values, positions) if bars else (positions, values)), zorder=5, **drawn)


def _ends(line: Line) -> tuple[list[float], list[float], list[float]]:
    """Return the means and the ends of the intervals; NaN where there is none."""

    def numbers(values: list[float | None]) -> list[float]:
        return [math.nan if value is None else value for value in values]

    return numbers([y.mean for y in line.y]), numbers([y.low for y in line.y]), numbers([y.high for y in line.y])


def _has_value(values: list[float], place: int) -> bool:
    return 0 <= place < len(values) and not math.isnan(values[place])


def _range(figure: Figure) -> tuple[float, float]:
    """Return the range of the values, for all panels."""
    if figure.y_range is not None:
        return figure.y_range
    values = [0.0] if any(panel.labels for panel in figure.panels) else []
    for panel in figure.panels:
        values += [*(panel.band or ()), *([] if panel.at is None else [panel.at])]
        for line in panel.lines:
            values += [value for y in line.y for value in (y.mean, y.low, y.high) if value is not None]
            values += [dot for dots in line.dots for dot in dots]
    return _widened(values, 0.06)


def _widened(values: list[float], by: float) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * by or 0.5
    return low - margin, high + margin
