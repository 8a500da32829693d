"""Suites: runs of one agent on several environments, a folder with a run folder for each. Invariant: the configs of all runs
are written before anything is played, so a suite that was killed at any moment can be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cotbench.envs.groups import overall_groups
from cotbench.envs.registry import env_entry
from cotbench.errors import RunFolderError, UsageError
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.folder import FolderKind, WritableFolder
from cotbench.runs.manifest import RUN_FOLDER, SUITE, RunConfig, read_manifest
from cotbench.runs.plan import RunPlan
from cotbench.runs.summary import SUMMARY, Summary
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

SUITE_FOLDER = FolderKind(noun=RUN_FOLDER.noun, writer=RUN_FOLDER.writer, manifest=SUITE)
ALL = "all"
_WITHOUT_DATA = "all-gen"
_CONFIGS = TypeAdapter(list[RunConfig])


class SuiteSummary(BaseModel):
    """The numbers of all runs of a suite.

    Attributes:
        runs: environment -> the summary of its run.
        success: the unweighted mean of the environments' success rates in a mode; `gap` likewise.
    """

    model_config = ConfigDict(frozen=True)

    runs: dict[str, Summary]
    success: dict[Mode, Estimate]
    gap: Estimate | None


def resolve_env_names(named: str, data: Path | None) -> list[str]:
    """Return the environments that `--env` names: one, several with commas between them, or `all` (one of each benchmark:
    ALFWorld's real games where their folder is given, generated ones otherwise).

    Args:
        named: the value of `--env`.
        data: the folder with game data, where given.

    Raises:
        UnknownNameError: no such environment.
        UsageError: none is named.
    """
    if named == ALL:
        return list(overall_groups()[ALL if data is not None else _WITHOUT_DATA])
    names = list(dict.fromkeys(name.strip() for name in named.split(",") if name.strip()))
    if not names:
        raise UsageError("--env names no environment (cotbench list envs)")
    return [env_entry(name).name for name in names]


def data_for(config: RunConfig, data: Path | None) -> Path | None:
    """Return the data folder for an environment that reads one; None for others.

    Args:
        config: the settings of the run on that environment.
        data: the folder that the user gave.
    """
    return data if env_entry(config.env).takes_data else None


def write_suite(folder: WritableFolder, plans: Sequence[RunPlan], data: Path | None) -> None:
    """Write the configs of a suite, after checking that the data of every environment is available.

    Args:
        folder: the suite's folder, opened as a `SUITE_FOLDER`.
        plans: the plan of each run.
        data: the folder with game data, where given.
    """
    for plan in plans:
        plan.entry.source().data_version(plan.tasks, data_for(plan.config, data))
    folder.begin(json.dumps([plan.config.model_dump(mode="json") for plan in plans], indent=2))


def read_configs(folder: Path) -> list[RunConfig]:
    """Return the configs of the runs in a folder: those of a suite, or the one of a run.

    Raises:
        RunFolderError: neither a suite nor a run, or damaged.
    """
    path = folder / SUITE
    if not path.is_file():
        return [read_manifest(folder).config]
    try:
        return _CONFIGS.validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(
            f"{path} is damaged: resume its runs one by one with: cotbench run --resume {folder}/ENV"
        ) from error


def is_suite(folder: Path) -> bool:
    """Return whether the folder holds several runs."""
    return (folder / SUITE).is_file()


def summarize_suite(summaries: Sequence[Summary]) -> SuiteSummary:
    """Return the numbers of all runs and their means over the environments."""
    modes = [mode for mode in MODES if all(mode in summary.modes for summary in summaries)]
    gaps = [summary.gap.success for summary in summaries if summary.gap is not None]
    return SuiteSummary(
        runs={summary.env: summary for summary in summaries},
        success={mode: estimates.average([summary.modes[mode].success for summary in summaries]) for mode in modes},
        gap=estimates.average(gaps) if len(gaps) == len(summaries) else None,
    )


def write_suite_summary(folder: WritableFolder, summary: SuiteSummary) -> None:
    """Write the summary of a suite into its folder."""
    folder.finalize(SUMMARY, summary.model_dump_json(indent=2))
