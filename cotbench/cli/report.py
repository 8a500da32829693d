"""`cotbench report`: a page of one or several runs, or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cotbench.cli.flags import Import
from cotbench.cli.terminal import echo
from cotbench.flags import OUTPUT


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Run folders, folders of several runs, or one study", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the page", show_default="DIR/report; for several DIRs ./report", rich_help_panel=OUTPUT),
    ] = None,
    font: Annotated[
        Literal["sans", "serif"],
        typer.Option(help="Text of the PDF figures: sans, or serif as in papers set with LaTeX", rich_help_panel=OUTPUT),
    ] = "sans",
    import_: Import = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Write a page: the answer in sentences, tables, figures, and the episodes to step through.

    Beside it are the figures as PDF for a paper, and each table as CSV and as LaTeX.
    """
    from cotbench.report.require import require_report

    require_report("cotbench report")
    from cotbench.api import report as reports

    written = reports.report(*folders, out=out, font=font).path
    echo(str(written))
    if open_:
        import webbrowser

        webbrowser.open(written.resolve().as_uri())
    return 0
