"""The sections of an entry's page: its numbers as tables, its episodes, its manifest. Invariant: numbers are drawn from the
summary, which was computed here from the episodes; the same bundle gives the same text; a page holds as many episodes as fit
into its budget, and gives the number of all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cotbench.leaderboard.boards.labels import MODES as NAMES
from cotbench.leaderboard.boards.labels import minute
from cotbench.leaderboard.store.levels import FIGURES, MARKS, Level
from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.leaderboard.verification.reproduction import Reproduction
from cotbench.leaderboard.web.marks import Mark, Number, mark_of, number_of
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.report.browser import browsed, episodes_json
from cotbench.report.cells import RenderedTable, render_table
from cotbench.report.page import BrowsedRun, Cell, Table
from cotbench.runs.summary import ModeSummary, Summary
from cotbench.stats.estimates import Estimate

DIFFERENCE = "CoT − prompt"
NUMBERS = {
    "success": "success",
    "macro_success": "success, mean of task types",
    "passable_success": "success, passable tasks",
    "score": "score",
    "steps": "steps",
    "invalid_actions": "invalid actions",
    "tokens": "tokens generated",
    "prefilled_tokens": "tokens prefilled",
    "reused_tokens": "tokens reused",
    "format_ok": "format kept",
    "trace_truncated": "trace truncated",
}
"""The rows of the table of numbers: from a field of `ModeSummary` to its name."""


@dataclass(frozen=True, slots=True)
class TypeRow:
    """A task type: in each mode the rate as a number and as a mark.

    Attributes:
        n: tasks behind each rate.
    """

    name: str
    n: str
    rates: tuple[tuple[Mode, Number, Mark | None], ...]


def numbers_table(summary: Summary, level: Level) -> RenderedTable:
    """Make the table of both modes side by side, and their difference; a mark says how far each figure was checked.

    Args:
        summary: of the entry.
        level: how far the entry was checked.
    """
    modes = [mode for mode in MODES if mode in summary.modes]
    gap = summary.gap
    rows: list[tuple[Cell, ...]] = []

    differences = {"success": gap.success, "macro_success": gap.macro_success, "score": gap.score} if gap is not None else {}
    for figure, name in NUMBERS.items():
        cells = [_estimate(summary.modes[mode], figure) for mode in modes]
        if any(cell is not None for cell in cells):
            marked = f"{MARKS[FIGURES[figure].level(level)]} {name}"
            rows.append((marked, *cells, *([differences.get(figure)] if gap is not None else [])))
    columns = ("figure", *(NAMES[mode] for mode in modes), *([DIFFERENCE] if gap is not None else []))
    caption = "Square brackets: 95% intervals over tasks. Format and truncation are shares of decisions."
    return render_table(Table("numbers", "Numbers", caption, columns, tuple(rows), frozenset({DIFFERENCE} & set(columns))))


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


def facts(summary: Summary, level: Level) -> tuple[tuple[str, str], ...]:
    """Describe the comparison of the modes: (what, how much), with the mark of how far it was checked."""
    marks = {figure: MARKS[FIGURES[figure].level(level)] for figure in ("gap", "consistency", "revisions")}
    found = []
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    if gap is not None:
        p = f"McNemar exact p = {gap.p:.2g}; " if gap.p is not None else ""
        value = _worded(gap.success, plus=True)
        counts = f"won by prompt alone {gap.prompt_only:,}, by CoT alone {gap.cot_only:,}, of {gap.n:,} tasks"
        found.append((f"{marks['gap']} Gap, CoT − prompt", f"{value}; {p}{counts}"))
    if same is not None:
        found.append(
            (
                f"{marks['consistency']} Consistency",
                f"{_worded(same.consistency)} of {same.states:,} states have prompt action = CoT action; "
                f"revision rate {_worded(same.revision_rate)}",
            )
        )
    if revisions is not None and same is not None:
        found.append(
            (
                f"{marks['revisions']} Revisions",
                f"{revisions.revised:,} at {revisions.states:,} of {same.states:,} states, where the expert's action is "
                f"known: helped {revisions.helped:,}, hurt {revisions.hurt:,}, neither {revisions.neither:,}; net "
                f"{_worded(revisions.net, plus=True)}",
            )
        )
    return tuple(found)


def rerun_rows(found: Reproduction) -> tuple[tuple[str, str], ...]:
    """Describe a rerun: (what, how much)."""
    share = found.decisions_agreeing / max(1, found.decisions)
    answers = f"{found.answers_agreeing:,} of {found.decisions:,} with the same trace and number of tokens"
    rows = (
        ("Played again", f"{found.tasks:,} of {found.of:,} tasks, drawn with seed {found.seed}, {minute(found.when)}"),
        ("Same decisions", f"{found.decisions_agreeing:,} of {found.decisions:,} ({share:.1%}); {answers}"),
        ("Same episodes", f"{_worded(found.episodes_agreeing)} of {found.episodes:,} took the same actions to their end"),
        ("First difference", found.first),
        ("Weights", f"sha256 {_digests(found.weights)}, as in the manifest" if found.weights else ""),
        ("Machine", ", ".join(f"{name} {value}" for name, value in found.machine.items())),
    )
    return tuple((what, words) for what, words in rows if words)


def _digests(weights: str) -> str:
    """Return the beginnings of the digests of an agent's models."""
    return " and ".join(digest[:16] for digest in weights.split(", "))


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
