"""`cotbench compare`: two runs on the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli.flags import Import, Verbose
from cotbench.cli.terminal import echo_json, print_tables


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a folder of runs on several environments")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="The run to compare with the first")],
    paper: Annotated[bool, typer.Option("--paper", help="Add the numbers that the paper reports, where it does")] = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="List the tasks that only one of the runs won")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare runs with different settings; the table says so")] = False,
    import_: Import = None,
    verbose: Verbose = False,
    json_: Annotated[bool, typer.Option("--json", help="Print all numbers instead")] = False,
) -> int:
    """Compare two runs on the tasks that both have played: second minus first."""
    from cotbench.api import comparison
    from cotbench.runs.comparison_table import comparison_table

    compared = comparison.compare(first, second, anyway=anyway, with_paper=paper)
    if json_:
        echo_json(compared.model_dump_json(indent=2))
    else:
        print_tables(comparison_table(compared, tasks=tasks, paper=paper, verbose=verbose))
    return 0
