"""The colours of a page and of its figures. Invariant: a mode, and an arm of a study, has one colour in every figure, in the
light and the dark theme; checkpoints are steps of one sequential scale; whatever a colour distinguishes is also distinguished
by a dash, a marker or a word.

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
    "shade": "#d3d7dc",
    "prompt": "#0b62a4",
    "cot": "#b84a00",
    "gap": "#6b4fa0",
    "teal": "#00796b",
    "ochre": "#8a6500",
    "rose": "#a8326a",
    "green": "#3f7d20",
    "brown": "#7a3b2e",
    "slate": "#4b5563",
    "step0": "#a579c8",
    "step1": "#925cc1",
    "step2": "#7f40bf",
    "step3": "#602d9a",
    "step4": "#401c6e",
}
DARK: Mapping[str, str] = {
    "paper": "#14171a",
    "ink": "#e6e8ea",
    "muted": "#a6aeb7",
    "rule": "#434a52",
    "grid": "#2a2f35",
    "wash": "#1c2024",
    "link": "#8ab8f0",
    "shade": "#3b424a",
    "prompt": "#6fb3f2",
    "cot": "#ff9a5c",
    "gap": "#b9a1ee",
    "teal": "#52c7b4",
    "ochre": "#d8b13f",
    "rose": "#f08bb8",
    "green": "#8cc66a",
    "brown": "#d39a8a",
    "slate": "#aab3bf",
    "step0": "#8b51b8",
    "step1": "#9c6bc7",
    "step2": "#b088d7",
    "step3": "#c8ace7",
    "step4": "#e4d6f5",
}
_OTHERS = ("teal", "ochre", "rose", "green", "brown")
_NEUTRAL = "slate"
STEPS = ("step0", "step1", "step2", "step3", "step4")
"""A sequential scale: the further in a training, the more contrast to the paper."""
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
    """Return the style of each line of a figure; no two labels of a figure have the same one.

    Args:
        figure: the figure.
        others: group -> number of the `other` lines of the whole page (`others_of`), so that an arm has one style on all
            figures.
    """
    forms: dict[str, dict[str, int]] = {}
    checkpoints = list(dict.fromkeys(_group(line) for line in _lines([figure]) if line.series == "checkpoint"))
    found = {}
    for line in _lines([figure]):
        group = _group(line) if line.series in ("other", "checkpoint") else line.series
        labels = forms.setdefault(group, {})
        form = labels.setdefault(line.label, len(labels))
        if line.series == "other":
            number = others[group]
            colour, dash = _OTHERS[number % len(_OTHERS)], number // len(_OTHERS) + form
        elif line.series == "checkpoint":
            number, dash = checkpoints.index(group), form
            colour = STEPS[round(number * (len(STEPS) - 1) / (len(checkpoints) - 1)) if len(checkpoints) > 1 else -1]
        else:
            number = dash = form
            colour = _NEUTRAL if line.series == "neutral" else line.series
        found[line] = Style(colour, DASHES[dash % len(DASHES)], MARKERS[number % len(MARKERS)])
    return found


def others_of(figures: Iterable[Figure]) -> dict[str, int]:
    """Return the groups of all `other` lines, numbered in order of appearance."""
    groups = dict.fromkeys(_group(line) for line in _lines(figures) if line.series == "other")
    return {group: number for number, group in enumerate(groups)}


def _group(line: Line) -> str:
    return line.group or line.label


def _lines(figures: Iterable[Figure]) -> list[Line]:
    return [line for figure in figures for panel in figure.panels for line in panel.lines]


def palette_css() -> str:
    """Return the colours as CSS variables: dark in a dark system theme, light in print."""

    def variables(colours: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{variables(LIGHT)}}}\n{dark}\n"
