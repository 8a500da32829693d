"""Verification of a submitted run. Invariant: a difference is the submission's; what is wrong on this
machine (missing games, another version, a dead engine) is raised, and never counts against an entry.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.errors import GameFileError, MissingDataError, UsageError
from cotbench.installation import install_version
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.run_replay import RunReplay, Verdict
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.episode import Episode, episode_key
from cotbench.runs.manifest import Manifest

if TYPE_CHECKING:
    from cotbench.leaderboard.submission.bundle import Bundle

PYTHON: Final = "python"
_GAMES: Final = "games_sha256"
_PLAIN: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,79}")


def verify_bundle(
    bundle: Bundle, *, jobs: int = 0, data: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Verdict:
    """Replay a run: every action of every episode that did not end in an error.

    Args:
        bundle: one that `check` let pass.
        jobs: how many processes replay; 0: this process, which cannot end a step that does not return. The result is the same.
        data: the folder of ALFWorld's games, where they are not at `$ALFWORLD_DATA`.
        progress: called with how many episodes are done, and of how many.

    Returns:
        The first difference in the order of the episodes, if any; where there is none, how much of the run is the expert's.

    Raises:
        UsageError: every episode ended in an error, so there is nothing to replay.
        MissingDataError: games are not on this machine, or the run was played with other versions than are here.
        MissingExtraError: the environment's engine is not installed.
        EngineError: an episode cannot be replayed, also not in a new environment.
        ReplayTimeoutError: an episode, or the run, took longer than it may (`budget`).
    """
    if jobs < 0:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    if all(episode.error is not None for episode in bundle.episodes):
        raise UsageError(f"entry {bundle.digest[:12]} has no episode to replay: every one of them ended in an error")
    manifest = bundle.manifest
    entry = env_entry(manifest.config.env)
    entry.require()
    if (found := _other_episodes(manifest, bundle.episodes)) is not None:
        return Verdict(found)
    data = data if entry.takes_data else None
    _require_data(bundle, entry, data)
    if (found := _other_dialect(manifest, entry, data)) is not None:
        verdict = Verdict(found)
    else:
        verdict = RunReplay(bundle, entry, jobs, data, progress).verdict()
    if verdict.difference is not None:
        _require_versions(bundle, entry, verdict.difference)
    return verdict


def versions(manifest: Manifest, data: Path | None = None) -> dict[str, str]:
    """Return the versions that a run is replayed with here: packages, Python, and the data of its tasks.

    Raises:
        MissingDataError: the data is not on this machine.
    """
    entry = env_entry(manifest.config.env)
    here = {name: _version_here(name) for name in ("cotbench", *entry.engines)}
    return here | _data_here(entry, manifest.task_list, data if entry.takes_data else None)


def _other_episodes(manifest: Manifest, episodes: Sequence[Episode]) -> Difference | None:
    """Return the first place where the episodes are not those of the manifest's task list."""
    config = manifest.config
    modes: Sequence[Mode] = MODES if config.mode == "both" else (config.mode,)
    expected = [episode_key(task, mode) for task in manifest.task_list for mode in modes]
    for played, due in zip_longest([episode.key for episode in episodes], expected, fillvalue="none"):
        if played != due:
            return Difference.at("episode", played, due, episode=due if played == "none" else played)
    return None


def _other_dialect(manifest: Manifest, entry: EnvEntry, data: Path | None) -> Difference | None:
    """Return the difference where the same games spell actions otherwise than the manifest says."""
    here = entry.dialect_of(manifest.task_list, data)
    return None if manifest.played_dialect == here else Difference.at("dialect", manifest.played_dialect, here)


def _data_here(entry: EnvEntry, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
    source = entry.source()
    missing = source.missing(tasks, data)
    if missing:
        raise MissingDataError(
            f"{len(missing)} of {len(tasks)} games are missing, the first is {missing[0]}: {source.remedy(data)}"
        )
    try:
        return source.data_version(tasks, data)
    except GameFileError as error:
        raise MissingDataError(str(error)) from error


def _require_data(bundle: Bundle, entry: EnvEntry, data: Path | None) -> None:
    recorded, here = bundle.manifest.data, _data_here(entry, bundle.manifest.task_list, data)
    for name in sorted({*recorded, *here}):
        if recorded.get(name) != here.get(name):
            raise MissingDataError(
                f"entry {bundle.digest[:12]} was played with {_quoted(name, 40)} {_quoted(recorded.get(name))}, "
                f"here is {_quoted(here.get(name))}: {_remedy(name, recorded.get(name), bundle.manifest, entry)}"
            )


def _require_versions(bundle: Bundle, entry: EnvEntry, difference: Difference) -> None:
    """Raise an error where other versions played the run: only with the same ones a difference counts against it."""
    manifest = bundle.manifest
    for name in ("cotbench", *entry.engines):
        recorded = _minor(manifest.python) if name == PYTHON else manifest.packages.get(name)
        if recorded != _version_here(name):
            raise MissingDataError(
                f"entry {bundle.digest[:12]} differs here ({difference.place}), but it was played with {name} "
                f"{_quoted(recorded)}, and here is {_version_here(name)}: {_remedy(name, recorded, manifest, entry)}"
            )


def _remedy(name: str, recorded: str | None, manifest: Manifest, entry: EnvEntry) -> str:
    """Return how to get what a run was played with; only a version goes into a command line."""
    if name == _GAMES:
        return (
            "get the games that it was played on (pip install alfworld && alfworld-download) and point --data or "
            "$ALFWORLD_DATA at them"
        )
    if name == PYTHON:
        return "verify it with that Python"
    if name in manifest.data and entry.takes_data:
        return "point --data at the data that it was played on"
    # Data without a package of its own is fixed by the version of cotbench.
    package = name if name in entry.engines else "cotbench"
    wanted = recorded if package == name else manifest.packages.get(package)
    if wanted is None or not _PLAIN.fullmatch(wanted):
        return f"it cannot be replayed, for it does not say which {package} played it"
    return f"{f'pip install {package}=={wanted}' if package != 'cotbench' else install_version(wanted)}, then verify it again"


def _version_here(name: str) -> str:
    if name == PYTHON:
        return _minor(platform.python_version())
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _minor(python: str) -> str:
    """Return `3.11` for `3.11.7`: error messages do not change within a minor version."""
    return ".".join(python.split(".")[:2])


def _quoted(value: str | None, length: int = 16) -> str:
    """Return a submitted text, short and harmless in a message."""
    if value is None:
        return "none"
    return value[:length] if _PLAIN.fullmatch(value) else ascii(value[:length])
