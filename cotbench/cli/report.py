"""`cotbench report`: a page of one or several runs, or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    import_: Import = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Write a page: the answer in sentences, tables, figures, and the episodes to step through."""
    from cotbench.report.require import require_report

    require_report("cotbench report")
    from cotbench.report.html import write_report

    page = _page(folders)
    written = write_report(page, out or (folders[0] / "report" if len(folders) == 1 else Path("report")))
    echo(str(written))
    if open_:
        import webbrowser

        webbrowser.open(written.resolve().as_uri())
    return 0


def _page(folders: list[Path]) -> Any:
    """Return the page of the runs or the study in the folders."""
    from dataclasses import replace

    from cotbench.errors import UsageError
    from cotbench.report.runs import page_of_runs
    from cotbench.runs.manifest import MANIFEST
    from cotbench.runs.results import load_run

    studies = [folder for folder in folders if (folder / "study.json").is_file()]
    if studies:
        if len(folders) > 1:
            raise UsageError(f"{studies[0]} is a study: a page shows one study alone, so report it without the others")
        from cotbench.study.report import page_of_study

        return page_of_study(studies[0])
    paths = list({path.resolve(): path for folder in folders for path in _runs_of(folder)}.values())
    begun = [path for path in paths if (path / MANIFEST).is_file() or path in folders]
    page = page_of_runs([load_run(path) for path in begun])
    waiting = tuple(f"UNFINISHED: the run {path} has not begun" for path in paths if path not in begun)
    return replace(page, warnings=(*waiting, *page.warnings))


def _runs_of(folder: Path) -> list[Path]:
    """Return the run folders in a folder: itself, or those of a suite, begun or not."""
    from cotbench.runs.suite import is_suite, read_configs

    return [folder / config.env for config in read_configs(folder)] if is_suite(folder) else [folder]
