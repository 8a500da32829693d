"""The table of runs for the terminal. Invariant: nothing in it is cut, at 80 columns either: what is longer goes on below."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cotbench.prompting.elicitation import MODES
from cotbench.runs.run_list import RunList
from cotbench.runs.run_status import RunStatus
from cotbench.runs.tables import NAMES
from cotbench.stats.formatting import format_estimate

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
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("run", overflow="fold", min_width=20)
        table.add_column("episodes", justify="right", no_wrap=True)
        for mode in modes:
            table.add_column(NAMES[mode], justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for run in found.runs:
            rates = [format_estimate(run.success.get(mode)).replace(" [", "\n[", 1) for mode in modes]
            table.add_row(*map(Text, (f"{run.folder}\n{_what(run)}", _episodes(run), *rates, run.state)))
        parts += [table, Text("success rates so far, with 95 % intervals over tasks (Wilson)")]
    else:
        parts.append(Text(f"no runs in {root}"))
    parts += [Text(f"not read: {one.reason}", overflow="fold") for one in found.unread[:_UNREAD]]
    if len(found.unread) > _UNREAD:
        parts.append(Text(f"not read: {len(found.unread) - _UNREAD} more (--json names them)"))
    return Group(*parts)


def _what(run: RunStatus) -> str:
    return f"{run.agent}, {run.env} {run.scheme}/{run.split}, seed {run.seed}"


def _episodes(run: RunStatus) -> str:
    errors = f"\n{run.errors} error{'s' * (run.errors != 1)}" if run.errors else ""
    return f"{run.done}/{run.planned}{errors}"
