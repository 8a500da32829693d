"""Success against tokens, as points in a drawing. Invariant: pure; places are percent across and pixels down, so that the
drawing has any width and its letters one size; the table beside it has the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cotbench.leaderboard.boards.view import Standing

HEIGHT = 240
"""Of the drawing from success 0 to 1, in pixels."""
_LEFT, _RIGHT = 10.0, 97.0
"""Percent of the width between which the points lie; left of them stand the numbers of the axis."""
_NAME = 26
_NEAR = 16
"""Pixels between two names, one above the other."""

PointKind = Literal["ranked", "baseline", "other"]


@dataclass(frozen=True, slots=True)
class Point:
    """An entry.

    Attributes:
        kind: ranked; a baseline; anything else, such as a part of a split or what was not replayed.
        x: tokens generated an episode, in percent of the width.
        y: success, in pixels from the top.
        about: the numbers in words.
        name: beside the point; empty where there is no room.
        left: whether the name stands to the left of the point.
    """

    kind: PointKind
    x: str
    y: str
    about: str
    name: str = ""
    left: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the frontier."""

    x1: str
    y1: str
    x2: str
    y2: str


@dataclass(frozen=True, slots=True)
class ParetoPlot:
    """The drawing.

    Attributes:
        ticks: of tokens: place and words; `levels` likewise of success.
        frontier: steps through the ranked entries that no other beats with as few tokens.
        about: the frontier in words.
    """

    points: tuple[Point, ...]
    ticks: tuple[tuple[str, str], ...]
    levels: tuple[tuple[str, str], ...]
    frontier: tuple[Segment, ...]
    about: str


def pareto_plot(rows: Sequence[Standing]) -> ParetoPlot | None:
    """Return the plot of a board; None where fewer than two rows have tokens and success.

    Args:
        rows: of the board.
    """
    found = [(row, row.tokens.mean, row.success.mean) for row in rows]
    known = [(row, tokens, success) for row, tokens, success in found if tokens is not None and success is not None]
    if len(known) < 2:
        return None
    most = max(10.0, *(tokens for _, tokens, _ in known))

    def x(tokens: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * math.log10(1 + max(0.0, tokens)) / math.log10(1 + most)

    best = _frontier([(tokens, success, row) for row, tokens, success in known if row.rank is not None])
    named: list[tuple[float, float]] = []
    points = []
    for row, tokens, success in known:
        place, height = x(tokens), HEIGHT * (1 - success)
        name = ""
        if any(row is one for *_, one in best) and all(abs(height - y) >= _NEAR or abs(place - at) > 30 for at, y in named):
            name = row.details.name if len(row.details.name) <= _NAME else row.details.name[: _NAME - 1] + "…"
            named.append((place, height))
        kind: PointKind = "ranked" if row.rank is not None else "baseline" if row.baseline else "other"
        about = f"{row.details.name}: success {success:.2f}, {tokens:,.0f} tokens per episode"
        points.append(Point(kind, f"{place:.2f}%", f"{height:.1f}", about, name, place > 55))
    ticks = [0, *(10**power for power in range(1, math.floor(math.log10(most)) + 1))]
    return ParetoPlot(
        points=tuple(sorted(points, key=lambda point: point.kind == "ranked")),
        ticks=tuple((f"{x(tick):.2f}%", f"{tick:,}") for tick in ticks),
        levels=tuple((f"{HEIGHT * (1 - level):.1f}", f"{level:.2f}") for level in (0.0, 0.25, 0.5, 0.75, 1.0)),
        frontier=tuple(_segments([(x(tokens), HEIGHT * (1 - success)) for tokens, success, _ in best])),
        about="; ".join(f"{row.details.name}, {success:.2f} with {tokens:,.0f} tokens" for tokens, success, row in best),
    )


def _frontier(entries: list[tuple[float, float, Standing]]) -> list[tuple[float, float, Standing]]:
    """Return the entries than which no other has more success with as few tokens, by tokens."""
    found: list[tuple[float, float, Standing]] = []
    for tokens, success, row in sorted(entries, key=lambda one: (one[0], -one[1])):
        if not found or success > found[-1][1]:
            found.append((tokens, success, row))
    return found


def _segments(corners: list[tuple[float, float]]) -> list[Segment]:
    """Return the steps from corner to corner, first across and then up, and on to the right."""
    found = []
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], (_RIGHT, corners[-1][1])] if corners else [], strict=True):
        found.append(Segment(f"{x1:.2f}%", f"{y1:.1f}", f"{x2:.2f}%", f"{y1:.1f}"))
        if y1 != y2:
            found.append(Segment(f"{x2:.2f}%", f"{y1:.1f}", f"{x2:.2f}%", f"{y2:.1f}"))
    return found
