"""A finished run folder. Invariant: it is read while nobody writes to it, has every episode that was planned and no other, in
their order, and its summary is what these episodes give. Nothing in it is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotbench.errors import RunFolderError, SubmissionError
from cotbench.leaderboard.submission.check_tasks import check_samples
from cotbench.prompting.elicitation import MODES
from cotbench.runs.episode import EPISODES, Episode, episode_key, read_episodes
from cotbench.runs.folder import lock_folder
from cotbench.runs.limits import Price
from cotbench.runs.manifest import MANIFEST, RUN_FOLDER, SUITE, Manifest, read_manifest
from cotbench.runs.suite import is_suite, read_configs
from cotbench.runs.summary import SUMMARY, Summary, summarize

_SAME = 1e-6
"""Relative difference of two numbers that are taken for the same: another machine rounds a bootstrap otherwise."""


def read_finished(folder: Path) -> tuple[Manifest, list[Episode], Price | None]:
    """Read a run's manifest, its episodes, and the price of its model where it was given.

    Raises:
        RunFolderError: not a run folder, a suite's, in use, damaged or unfinished.
        SubmissionError: the summary is not what the episodes give, or there are several samples of each task.
    """
    if is_suite(folder):
        runs = [str(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))]
        listed = f"submit each of its runs: {', '.join(runs)}" if runs else "it holds no run yet"
        raise RunFolderError(f"{folder} is a folder of several runs ({SUITE}); {listed}")
    manifest = read_manifest(folder)
    check_samples(manifest.config)
    with lock_folder(folder, RUN_FOLDER.writer, "submit it when that has ended", shared=True):
        episodes = _planned(folder, manifest, read_episodes(folder))
        stored = _summary(folder)
    given = summarize(episodes, manifest, stored.price).model_dump(mode="json")
    place = _first_difference(stored.model_dump(mode="json"), given)
    if place is not None:
        path, before, now = place
        raise SubmissionError(
            f"{folder / SUMMARY} is not what the episodes beside it give: {path} is {before}, they give {now}; "
            f"submit a run as it was played (cotbench run --resume {folder} writes the summary again)"
        )
    return manifest, episodes, stored.price


def run_folders(folder: Path) -> list[Path]:
    """Return the run folders of a path that a user gave: itself, or those of a suite.

    Raises:
        RunFolderError: it is neither.
    """
    if not folder.is_dir():
        raise RunFolderError(f"there is no run folder {folder}: give the folder that cotbench run has written")
    return [folder / config.env for config in read_configs(folder)] if is_suite(folder) else [folder]


def _planned(folder: Path, manifest: Manifest, episodes: Sequence[Episode]) -> list[Episode]:
    """Return the episodes in the plan's order."""
    modes = MODES if manifest.config.mode == "both" else (manifest.config.mode,)
    keys = [episode_key(task, mode) for task in manifest.task_list for mode in modes]
    by_key = {episode.key: episode for episode in episodes}
    missing = [key for key in keys if key not in by_key]
    if missing:
        raise RunFolderError(
            f"{folder} holds an unfinished run: {len(missing)} of {len(keys)} episodes are missing, the first is {missing[0]}; "
            f"resume with: cotbench run --resume {folder}"
        )
    others = by_key.keys() - set(keys)
    if others:
        raise RunFolderError(f"{folder / EPISODES} holds {min(others)}, which its manifest does not list: remove that line")
    return [by_key[key] for key in keys]


def _summary(folder: Path) -> Summary:
    path = folder / SUMMARY
    if not path.is_file():
        raise RunFolderError(f"{folder} holds an unfinished run: it has no {SUMMARY}; cotbench run --resume {folder} writes it")
    try:
        return Summary.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(
            f"{path} is damaged: remove it, and write it again with: cotbench run --resume {folder}"
        ) from error


def _first_difference(before: Any, now: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Return where two JSON values first differ: the path, and both sides."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*now, *before)):
            found = _first_difference(before.get(name), now.get(name), f"{path}.{name}" if path else name)
            if found is not None:
                return found
        return None
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, now))
    same = math.isclose(before, now, rel_tol=_SAME, abs_tol=_SAME * _SAME) if numbers else before == now
    return None if same else (path, before, now)
