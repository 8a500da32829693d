"""A report as data, before anything is drawn. Invariant: every number on a page is in here, with its interval and a caption
that gives the units of the interval; drawing computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cotbench.runs.episode import Episode
from cotbench.stats.estimates import Estimate

Series = Literal["prompt", "cot", "gap", "checkpoint", "neutral", "other"]
"""The kind of a line, which picks its colour: a mode and the gap have theirs in every figure; `checkpoint` takes the steps of
one sequential scale in the order of a figure; `neutral` is grey, for what is compared with; `other` is an arm of a study, or
whatever else, and has one colour on the whole page.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """Estimates over x.

    Attributes:
        label: in the legend.
        x: positions; as many as `y`.
        y: estimates, whose intervals are drawn as a band (line) or whiskers (bar).
        series: picks the colour.
        dots: single values beside the estimate, at the same x, such as those of each seed; empty for none.
        group: what the line is a form of, such as the arm or the checkpoint: lines of one group have one colour, and differ in
            dashes and marker; empty: the label itself.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[Estimate, ...]
    series: Series = "other"
    dots: tuple[tuple[float, ...], ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes.

    Attributes:
        at: a horizontal line at this y, such as 0 for a difference.
        band: a horizontal band, such as the margin of an equivalence test.
        labels: names of the x, where x only numbers them (0, 1, 2, ...); then bars are drawn.
    """

    title: str
    lines: tuple[Line, ...]
    at: float | None = None
    band: tuple[float, float] | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels side by side that share the names of their axes.

    Attributes:
        name: of its files, as in `training_curves`.
        caption: gives n, the units of the intervals, and the elicitation.
        x, y: names of the axes, with units.
        y_range: of every panel; None: chosen from the values, shared by the panels.
    """

    name: str
    title: str
    caption: str
    x: str
    y: str
    panels: tuple[Panel, ...]
    y_range: tuple[float, float] | None = None


Cell = str | int | float | Estimate | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells. An `Estimate` is shown with its interval; in the CSV it has four columns (mean, low, high, n).

    Attributes:
        name: of its file.
        signed: columns whose estimates are differences and show their sign.
        paper: columns with numbers that the paper reports, marked as not ours.
        digits: column -> how many digits its numbers show after the point; without it their size decides (`cells`).
        bold: columns whose texts are set in bold, such as verdicts.
    """

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    signed: frozenset[str] = frozenset()
    paper: frozenset[str] = frozenset()
    digits: Mapping[str, int] = field(default_factory=dict)
    bold: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Card:
    """One number, large.

    Attributes:
        title: what it is, in a few words.
        estimate: the number, whose n is in tasks.
        about: units, and of what it is: arm, split, run.
        signed: whether it is a difference and shows its sign.
    """

    title: str
    estimate: Estimate
    about: str
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a text in plain words (paragraphs separated by empty lines), and its figures and tables."""

    title: str
    text: str
    items: tuple[Figure | Table, ...] = ()


@dataclass(frozen=True, slots=True)
class BrowsedRun:
    """Episodes to step through.

    Attributes:
        label: names the run, such as "sft+, seed 0, after 100 %, ood"; no two runs of a page share it.
        of: how many episodes the run has, where `episodes` are only some of them.
    """

    label: str
    episodes: Sequence[Episode]
    of: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    Attributes:
        title: of the page.
        answer: the answer in about three sentences, with numbers.
        claims: the table that the page begins with, one row for each claim that was tested; None: no claim.
        verdict: the claims' verdicts in one sentence, above their table.
        cards: the numbers to remember, at most three for each environment and model.
        warnings: caveats of the numbers (errors, partial splits, one seed), given once for the whole page.
        notes: how the numbers were measured (intervals, elicitation), given once for the whole page.
        manifest: settings and versions, shown as they are.
    """

    title: str
    answer: tuple[str, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    runs: tuple[BrowsedRun, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    claims: Table | None = None
    verdict: str = ""
    cards: tuple[Card, ...] = ()
    notes: tuple[str, ...] = ()
