r"""A table as LaTeX (booktabs), to be read with `\input`. Invariant: every text is escaped, so that no name of an arm or a task
is a command; digits and signs are those of the page.
"""

from __future__ import annotations

from cotbench.printable import one_line
from cotbench.report.cells import RenderedCell, render_table
from cotbench.report.page import Table

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": r"$-$",
    "+": r"$+$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "’": "'",
}
_TABLE = str.maketrans(_ESCAPED)


def latex_escape(text: str) -> str:
    """Return a text as LaTeX sets it: on one line, with nothing that LaTeX would read as a command.

    Args:
        text: any.
    """
    return one_line(text).translate(_TABLE)


def latex_table(table: Table) -> str:
    """Return a table as a `tabular` with booktabs' rules, intervals in small letters, rows grouped by split.

    Args:
        table: the data.

    Raises:
        ValueError: as `render_table`.
    """
    found = render_table(table)
    width = len(found.columns)
    lines = [
        "% Needs \\usepackage{booktabs}, and \\usepackage[T1]{fontenc} with pdfLaTeX.",
        f"% {one_line(f'{found.title}. {found.caption}')}",
        *([f"% n = {found.n} in every cell with an interval."] if found.n is not None else []),
        f"\\begin{{tabular}}{{@{{}}{''.join('r' if column.number else 'l' for column in found.columns)}@{{}}}}",
        "\\toprule",
        _row([latex_escape(column.name) for column in found.columns]),
        "\\midrule",
    ]
    start = 0
    for heading, size in found.groups:
        if heading:
            lines += ["\\addlinespace"] * (start > 0)
            lines.append(f"\\multicolumn{{{width}}}{{@{{}}l}}{{\\emph{{{latex_escape(heading)}}}}} \\\\")
        lines += [_row([_cell(cell) for cell in row]) for row in found.rows[start : start + size]]
        start += size
    return "\n".join((*lines, "\\bottomrule", "\\end{tabular}", ""))


def _row(cells: list[str]) -> str:
    # A bracket after a line's end would be its argument, and a cell that begins with one stands after \\.
    return f"{' & '.join(f'{{}}{cell}' if cell.startswith(('[', '*')) else cell for cell in cells)} \\\\"


def _cell(cell: RenderedCell) -> str:
    value = latex_escape(cell.value)
    value = f"\\textbf{{{value}}}" if cell.bold else value
    return f"{value} {{\\scriptsize {latex_escape(cell.beside)}}}" if cell.beside else value
