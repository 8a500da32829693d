"""`cotbench.report`: the page of runs or of a study. Invariant: a page holds one study, or runs that were elicited alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cotbench.api.page_display import page_display
from cotbench.api.study import Study
from cotbench.errors import UsageError
from cotbench.notebook import Display, Displayed
from cotbench.report.drawing import Font
from cotbench.report.html import write_report
from cotbench.report.page import Page
from cotbench.report.require import require_report
from cotbench.report.runs import page_of_runs
from cotbench.runs.manifest import MANIFEST
from cotbench.runs.results import Run, load_run
from cotbench.runs.suite import is_suite, read_configs
from cotbench.study.folder import STUDY
from cotbench.study.report import page_of_study

Reported = Run | Study | str | Path
"""A run or a study, or the folder of one; a folder of runs on several environments stands for them all."""


@dataclass(frozen=True, slots=True, repr=False)
class Report(Displayed):
    """A written report.

    Attributes:
        path: of the page; its figures and tables lie beside it.
        page: what stands on it.
    """

    path: Path
    page: Page

    def _display(self) -> Display:
        return page_display(self.page, f"report: {self.path}")


def report(*results: Reported, out: str | Path | None = None, font: Font = "sans") -> Report:
    """Write a page: the answer in sentences, tables, figures, and the episodes to step through.

    Args:
        results: runs, folders of runs, or one study.
        out: where the page goes; left out, `report` in the folder of the one result, or here.
        font: text of the PDF figures: sans, or serif as in papers set with LaTeX.

    Raises:
        MissingExtraError: what draws a report is not installed.
        UsageError: nothing to report, a study beside something else, or runs that were elicited differently.
        RunFolderError: a folder holds neither runs nor a study.
    """
    require_report("a report")
    page = page_of(results)
    folders = [one if isinstance(one, str | Path) else one.path for one in results]
    target = Path(out) if out is not None else Path(folders[0]) / "report" if len(folders) == 1 else Path("report")
    return Report(write_report(page, target, font=font), page)


def page_of(results: Sequence[Reported]) -> Page:
    """Return the page of runs or of a study.

    Args:
        results: see `report`.
    """
    items = [Path(one) if isinstance(one, str) else one for one in results]
    studies = [
        one.path if isinstance(one, Study) else one
        for one in items
        if isinstance(one, Study) or (isinstance(one, Path) and (one / STUDY).is_file())
    ]
    if studies:
        if len(items) > 1:
            raise UsageError(f"{studies[0]} is a study: a page shows one study alone, so report it without the others")
        return page_of_study(studies[0])
    runs: dict[Path, Run] = {}
    waiting = []
    for one in items:
        if isinstance(one, Run):
            runs.setdefault(one.path.resolve(), one)
        for path in _runs_of(one) if isinstance(one, Path) else ():
            if path in items or (path / MANIFEST).is_file():
                runs.setdefault(path.resolve(), load_run(path))
            else:
                waiting.append(f"UNFINISHED: the run {path} has not begun")
    page = page_of_runs(list(runs.values()))
    return replace(page, warnings=(*dict.fromkeys(waiting), *page.warnings))


def _runs_of(folder: Path) -> list[Path]:
    """Return the run folders in a folder: itself, or those of a suite, begun or not."""
    return [folder / config.env for config in read_configs(folder)] if is_suite(folder) else [folder]
