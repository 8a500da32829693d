"""`cotbench.compare`: two runs on the same tasks. Invariant: the runs of a suite are compared environment by environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cotbench.errors import RunFolderError
from cotbench.runs.comparison import Comparison, compare_runs
from cotbench.runs.manifest import MANIFEST
from cotbench.runs.results import Run, load_run
from cotbench.runs.suite import is_suite, read_configs

Runs = Run | Mapping[str, Run] | str | Path
"""A run, the runs of a suite by environment, or the folder of either."""


def compare(first: Runs, second: Runs, *, anyway: bool = False, with_paper: bool = False) -> Comparison:
    """Compare two runs on the tasks that both have played: second minus first.

    Args:
        first: a run, the runs of several environments, or the folder of either.
        second: the one that is compared with it.
        anyway: compare although the two were elicited differently.
        with_paper: add the numbers that the paper reports.

    Raises:
        RunFolderError: a folder holds no run.
        UsageError: no environment or no task in common, or the two were elicited differently.
    """
    return compare_runs(_by_env(first), _by_env(second), anyway=anyway, with_paper=with_paper)


def _by_env(runs: Runs) -> Mapping[str, Run]:
    """Return runs by environment; those of a suite that were not begun are left out."""
    if isinstance(runs, Mapping):
        return runs
    if not isinstance(runs, Run):
        folder = Path(runs)
        if is_suite(folder):
            return _of_suite(folder)
        runs = load_run(folder)
    return {runs.manifest.config.env: runs}


def _of_suite(folder: Path) -> dict[str, Run]:
    names = [config.env for config in read_configs(folder)]
    begun = [env for env in names if (folder / env / MANIFEST).is_file()]
    if not begun:
        raise RunFolderError(f"{folder} has no run yet: resume it with: cotbench run --resume {folder}")
    return {env: load_run(folder / env) for env in begun}
