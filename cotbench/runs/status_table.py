"""The table of runs for the terminal. Invariant: nothing in it is cut, at 80 columns either: what is longer goes on below."""

from __future__ import annotations

from rich.console import Group, RenderableType

from cotbench.paragraph import Paragraph
from cotbench.prompting.elicitation import MODES
from cotbench.runs.run_list import RunList
from cotbench.runs.run_status import RunStatus
from cotbench.runs.tables import NAMES
from cotbench.stats.formatting import estimate_cell
from cotbench.text_table import TableColumn, TextCell, TextTable, table_row

_UNREAD = 10
"""Folders that are named with their reason."""


def status_table(found: RunList, root: str) -> RenderableType:
    """Return the text that `cotbench list runs` prints.

    Args:
        found: the runs.
        root: the folder that was searched.
    """
    parts: list[RenderableType] = []
    if found.runs:
        modes = [mode for mode in MODES if any(mode in run.success for run in found.runs)]
        columns = (
            TableColumn("run", "label"),
            TableColumn("episodes"),
            *(TableColumn(NAMES[mode]) for mode in modes),
            TableColumn("state", "label"),
        )
        rows = tuple(
            table_row(
                TextCell(str(run.folder), _what(run)),
                _episodes(run),
                *(estimate_cell(run.success.get(mode)) for mode in modes),
                run.state,
            )
            for run in found.runs
        )
        parts += [TextTable(columns, rows), Paragraph("success rates so far, with 95 % intervals over tasks")]
    else:
        parts.append(Paragraph(f"no runs in {root}"))
    parts += [Paragraph(f"not read: {one.reason}") for one in found.unread[:_UNREAD]]
    if len(found.unread) > _UNREAD:
        parts.append(Paragraph(f"not read: {len(found.unread) - _UNREAD} more (--json names them)"))
    return Group(*parts)


def _what(run: RunStatus) -> str:
    return f"{run.agent}, {run.env} {run.scheme}/{run.split}, seed {run.seed}"


def _episodes(run: RunStatus) -> TextCell:
    return TextCell(f"{run.done}/{run.planned}", f"{run.errors} error{'s' * (run.errors != 1)}" if run.errors else "")
