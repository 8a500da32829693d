"""A report's page as Python and notebooks show it. Invariant: the answer, the claims and the caveats are those of the page."""

from __future__ import annotations

from cotbench.notebook import Display
from cotbench.report.cells import RenderedCell, render_table
from cotbench.report.page import Page


def page_display(page: Page, *where: str) -> Display:
    """Return what is shown of a page: its answer, and the table of its claims where it has one.

    Args:
        page: the page.
        where: lines on where it is.
    """
    claims = None if page.claims is None else render_table(page.claims)
    return Display(
        page.title,
        figures=page.answer,
        columns=() if claims is None else tuple(column.name for column in claims.columns),
        rows=() if claims is None else tuple(tuple(map(_text, row)) for row in claims.rows),
        notes=(*(() if claims is None else page.answer), *page.warnings, *where),
    )


def _text(cell: RenderedCell) -> str:
    return f"{cell.value} {cell.beside}".strip()
