"""`cotbench compare`: two runs on the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli.flags import Import
from cotbench.cli.terminal import console, echo_json


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a folder of runs on several environments.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="The one that is compared with it.")],
    paper: Annotated[bool, typer.Option("--paper", help="With what the paper reports, where it does.")] = False,
    tasks: Annotated[bool, typer.Option("--tasks", help="List the tasks that were won by one run alone.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare runs that were asked otherwise; says so in the table.")
    ] = False,
    import_: Import = None,
    json_: Annotated[bool, typer.Option("--json", help="Print all numbers instead.")] = False,
) -> int:
    """Compare two runs on the tasks that both have played: second minus first."""
    from cotbench.api import comparison
    from cotbench.runs.comparison_table import comparison_table

    compared = comparison.compare(first, second, anyway=anyway, with_paper=paper)
    if json_:
        echo_json(compared.model_dump_json(indent=2))
    else:
        console().print(comparison_table(compared, tasks=tasks, paper=paper))
    return 0
