"""The colours of a page and of its figures. Invariant: a mode has one colour in every figure, in the light and the dark theme;
whatever a colour distinguishes is also distinguished by a dash, a marker or a word.

Blue and orange stay apart under the common colour blindnesses; all have a contrast of 3:1 or more to their background, text
4.5:1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cotbench.report.page import Figure, Line

LIGHT: Mapping[str, str] = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#575f69",
    "rule": "#c9ced4",
    "grid": "#e7eaee",
    "wash": "#f5f6f8",
    "link": "#0a5299",
    "prompt": "#0b62a4",
    "cot": "#b84a00",
    "gap": "#6b4fa0",
    "teal": "#00796b",
    "ochre": "#8a6500",
    "rose": "#a8326a",
    "green": "#3f7d20",
    "slate": "#4b5563",
    "brown": "#7a3b2e",
}
DARK: Mapping[str, str] = {
    "paper": "#14171a",
    "ink": "#e6e8ea",
    "muted": "#a6aeb7",
    "rule": "#434a52",
    "grid": "#2a2f35",
    "wash": "#1c2024",
    "link": "#8ab8f0",
    "prompt": "#6fb3f2",
    "cot": "#ff9a5c",
    "gap": "#b9a1ee",
    "teal": "#52c7b4",
    "ochre": "#d8b13f",
    "rose": "#f08bb8",
    "green": "#8cc66a",
    "slate": "#aab3bf",
    "brown": "#d39a8a",
}
_OTHERS = ("teal", "ochre", "rose", "green", "slate", "brown")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, slots=True)
class Style:
    """The style of a line.

    Attributes:
        colour: a name of `LIGHT` and `DARK`.
        dashes: lengths of dash and space, in widths of the line; empty: solid.
        marker: as matplotlib names it.
    """

    colour: str
    dashes: tuple[float, ...]
    marker: str


def styles(figure: Figure, others: Mapping[str, int]) -> dict[Line, Style]:
    """Return the style of each line of a figure; lines of one series and different labels differ in dash and marker.

    Args:
        figure: the figure.
        others: label -> number of the `other` lines of the whole page (`others_of`), so that an arm has one style on all
            figures.
    """
    numbers: dict[tuple[str, str], int] = {}
    found = {}
    for line in _lines([figure]):
        if line.series == "other":
            number = others[line.label]
            colour, dash = _OTHERS[number % len(_OTHERS)], number // len(_OTHERS)
        else:
            before = sum(series == line.series for series, _ in numbers)
            number = dash = numbers.setdefault((line.series, line.label), before)
            colour = line.series
        found[line] = Style(colour, DASHES[dash % len(DASHES)], MARKERS[number % len(MARKERS)])
    return found


def others_of(figures: Iterable[Figure]) -> dict[str, int]:
    """Return the labels of all `other` lines, numbered in order of appearance."""
    labels = dict.fromkeys(line.label for line in _lines(figures) if line.series == "other")
    return {label: number for number, label in enumerate(labels)}


def _lines(figures: Iterable[Figure]) -> list[Line]:
    return [line for figure in figures for panel in figure.panels for line in panel.lines]


def palette_css() -> str:
    """Return the colours as CSS variables: dark in a dark system theme, light in print."""

    def variables(colours: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{variables(LIGHT)}}}\n{dark}\n"
