"""The sections of an entry's page: its numbers as tables, its episodes, its manifest. Invariant: numbers are drawn from the
summary, which was computed here from the episodes; the same bundle gives the same text; a page holds as many episodes as fit
into its budget, and gives the number of all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from cotbench.leaderboard.boards.labels import MODES as NAMES
from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.leaderboard.web.marks import Mark, Number, mark_of, number_of, signed
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.report.browser import browsed, episodes_json
from cotbench.report.cells import RenderedTable, render_table
from cotbench.report.page import BrowsedRun, Cell, Table
from cotbench.runs.summary import ModeSummary, Summary
from cotbench.stats.estimates import Estimate

DIFFERENCE = "CoT − prompt"


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A task type: in each mode the rate as a number and as a mark.

    Attributes:
        n: tasks behind each rate.
    """

    name: str
    n: str
    rates: tuple[tuple[Mode, Number, Mark | None], ...]


def numbers_table(summary: Summary) -> RenderedTable:
    """Make the table of both modes side by side, and their difference."""
    modes = [mode for mode in MODES if mode in summary.modes]
    gap = summary.gap
    rows: list[tuple[Cell, ...]] = []

    def row(name: str, cells: list[Estimate | None], difference: Estimate | None = None) -> None:
        if any(cell is not None for cell in cells):
            rows.append((name, *cells, *([difference] if gap is not None else [])))

    def each(name: str) -> list[Estimate | None]:
        return [_estimate(summary.modes[mode], name) for mode in modes]

    row("success", each("success"), gap.success if gap else None)
    row("success, mean of task types", each("macro_success"), gap.macro_success if gap else None)
    row("success, passable tasks", each("passable_success"))
    row("score", each("score"), gap.score if gap else None)
    row("steps", each("steps"))
    row("invalid actions", each("invalid_actions"))
    row("tokens generated", each("tokens"))
    row("tokens prefilled", each("prefilled_tokens"))
    row("tokens reused", each("reused_tokens"))
    row("format kept", each("format_ok"))
    row("trace truncated", each("trace_truncated"))
    columns = ("figure", *(NAMES[mode] for mode in modes), *([DIFFERENCE] if gap is not None else []))
    caption = "Square brackets: 95 % intervals over tasks. Format and truncation are shares of decisions."
    return _with_signs(Table("numbers", "Numbers", caption, columns, tuple(rows), frozenset({DIFFERENCE} & set(columns))))


def _with_signs(table: Table) -> RenderedTable:
    """Render a table with true minus signs, as everywhere on these pages."""
    rendered = render_table(table)
    rows = tuple(
        tuple(replace(cell, beside=signed(cell.beside), value=signed(cell.value)) if cell.number else cell for cell in row)
        for row in rendered.rows
    )
    return replace(rendered, rows=rows)


def _estimate(mode: ModeSummary, name: str) -> Estimate | None:
    value: Estimate | None = getattr(mode, name)
    return value


def type_rows(summary: Summary) -> tuple[TypeRow, ...]:
    """Make the rows of success by task type."""
    modes = [mode for mode in MODES if mode in summary.modes]
    names = sorted({name for mode in modes for name in summary.modes[mode].by_type})
    return tuple(_type_row(name, summary, modes) for name in names)


def _type_row(name: str, summary: Summary, modes: list[Mode]) -> TypeRow:
    rates = [(mode, summary.modes[mode].by_type.get(name)) for mode in modes]
    counts = list(dict.fromkeys(str(rate.n) for _, rate in rates if rate is not None))
    return TypeRow(name, " / ".join(counts), tuple((mode, number_of(rate), mark_of(rate)) for mode, rate in rates))


def facts(summary: Summary) -> tuple[tuple[str, str], ...]:
    """Describe the comparison of the modes: (what, how much)."""
    found = []
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    if gap is not None:
        p = f"McNemar exact p = {gap.p:.2g}; " if gap.p is not None else ""
        value = _worded(gap.success, plus=True)
        counts = f"won by prompt alone {gap.prompt_only:,}, by CoT alone {gap.cot_only:,}, of {gap.n:,} tasks"
        found.append(("Gap, CoT − prompt", f"{value}; {p}{counts}"))
    if same is not None:
        found.append(
            (
                "Consistency",
                f"{_worded(same.consistency)} of {same.states:,} states have prompt action = CoT action; "
                f"revision rate {_worded(same.revision_rate)}",
            )
        )
    if revisions is not None and same is not None:
        found.append(
            (
                "Revisions",
                f"{revisions.revised:,} at {revisions.states:,} of {same.states:,} states, where the expert's action is "
                f"known: helped {revisions.helped:,}, hurt {revisions.hurt:,}, neither {revisions.neither:,}; net "
                f"{_worded(revisions.net, plus=True)}",
            )
        )
    return tuple(found)


def _worded(estimate: Estimate, *, plus: bool = False) -> str:
    number = number_of(estimate, plus=plus)
    return f"{number.value} {number.beside}".strip()


EPISODE_BYTES = 1_000_000
"""Of the episodes in a page."""


@dataclass(frozen=True, slots=True)
class EntryEpisodes:
    """An entry's episodes and manifest.

    Attributes:
        episodes: JSON for the episode browser, fit to stand in a `<script>` element.
        embedded: how many episodes are in it, `of` how many.
        manifest: as text.
    """

    episodes: str
    embedded: int
    of: int
    manifest: str


def entry_episodes(bundle: Bundle, budget: int = EPISODE_BYTES) -> EntryEpisodes:
    """Draw the episodes that fit into the page.

    Args:
        bundle: the entry's.
        budget: bytes of the episodes' JSON.
    """
    runs = browsed((BrowsedRun(bundle.details.name, bundle.episodes),), budget)
    return EntryEpisodes(
        episodes=episodes_json(runs),
        embedded=sum(len(run.episodes) for run in runs),
        of=len(bundle.episodes),
        manifest=json.dumps(bundle.manifest.model_dump(mode="json"), indent=2, ensure_ascii=False),
    )
