"""`cotbench compare`: two runs on the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotbench.cli.flags import Import, Verbose
from cotbench.cli.terminal import echo_json, print_tables

if TYPE_CHECKING:
    from cotbench.runs.results import Run


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
    from cotbench.runs import comparison
    from cotbench.runs.comparison_table import comparison_table

    compared = comparison.compare_runs(_runs(first), _runs(second), anyway=anyway, with_paper=paper)
    if json_:
        echo_json(compared.model_dump_json(indent=2))
    else:
        print_tables(comparison_table(compared, tasks=tasks, paper=paper, verbose=verbose))
    return 0


def _runs(folder: Path) -> dict[str, Run]:
    """Return the runs of a folder by environment; those of a suite that were not begun are left out."""
    from cotbench.errors import RunFolderError
    from cotbench.runs import suite
    from cotbench.runs.manifest import MANIFEST
    from cotbench.runs.results import load_run

    if not suite.is_suite(folder):
        run = load_run(folder)
        return {run.manifest.config.env: run}
    names = [config.env for config in suite.read_configs(folder)]
    begun = [env for env in names if (folder / env / MANIFEST).is_file()]
    if not begun:
        raise RunFolderError(f"{folder} has no run yet: resume it with: cotbench run --resume {folder}")
    return {env: load_run(folder / env) for env in begun}
