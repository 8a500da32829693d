"""Reports: one self-contained page. Begin with `page` (a page as data) and `html` (how it is written); `drawing` makes the
figures, `runs` the page of plain runs, `browser` the episode browser. Called, `cotbench.report(...)` writes a page
(`api.report.report`).
"""

from typing import TYPE_CHECKING

from cotbench.callable_package import make_callable
from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.report.html import write_report
    from cotbench.report.page import Figure, Page, Section, Table
    from cotbench.report.runs import page_of_runs

_HOMES = {
    "Figure": "page",
    "Page": "page",
    "Section": "page",
    "Table": "page",
    "page_of_runs": "runs",
    "write_report": "html",
}

__all__ = [
    "Figure",
    "Page",
    "Section",
    "Table",
    "page_of_runs",
    "write_report",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
make_callable(__name__, "cotbench.api.report:report")
