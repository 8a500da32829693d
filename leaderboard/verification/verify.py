"""Verification of a submitted run. Invariant: a difference is the submission's; what is wrong on this
machine (missing games, another version, a dead engine) is raised, and never counts against an entry.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.errors import GameFileError, MissingDataError, UsageError
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.replay import Replayer
from cotbench.leaderboard.verification.replay_processes import Group, replay_in_processes
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.env_workers import EnvSettings
from cotbench.runs.episode import Episode, episode_key
from cotbench.runs.manifest import Manifest

if TYPE_CHECKING:
    from cotbench.leaderboard.submission.bundle import Bundle

PYTHON: Final = "python"
_GAMES: Final = "games_sha256"
_PLAIN: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,79}")


def verify_bundle(
    bundle: Bundle, *, jobs: int = 1, data: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Difference | None:
    """Replay a run: every action of every episode that did not end in an error.

    Args:
        bundle: one that `check` let pass.
        jobs: how many processes replay; one: this process alone. The result is the same.
        data: the folder of ALFWorld's games, where they are not at `$ALFWORLD_DATA`.
        progress: called with how many episodes are done, and of how many.

    Returns:
        The first difference in the order of the episodes, or None: all agrees.

    Raises:
        MissingDataError: games are not on this machine, or the run was played with other versions than are here.
        MissingExtraError: the environment's engine is not installed.
        EngineError: an episode cannot be replayed, also not in a new environment.
    """
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    manifest = bundle.manifest
    entry = env_entry(manifest.config.env)
    entry.require()
    if (found := _other_episodes(manifest, bundle.episodes)) is not None:
        return found
    data = data if entry.takes_data else None
    _require_data(bundle, entry, data)
    difference = _other_dialect(manifest, entry, data) or _replay(bundle, entry, jobs, data, progress)
    if difference is not None:
        _require_versions(bundle, entry, difference)
    return difference


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


def _replay(
    bundle: Bundle, entry: EnvEntry, jobs: int, data: Path | None, progress: Callable[[int, int], None] | None
) -> Difference | None:
    replayed = [episode for episode in bundle.episodes if episode.error is None]
    settings = _settings(entry, bundle.manifest, replayed, data)
    done = 0

    def finished() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(replayed))

    groups: list[Group] = [tuple(group) for _, group in groupby(enumerate(replayed), key=lambda numbered: numbered[1].task)]
    if min(jobs, len(groups)) > 1:
        return replay_in_processes(settings, groups, jobs, finished)
    replayer = Replayer(settings)
    try:
        for episode in replayed:
            if (found := replayer.difference(episode)) is not None:
                return found
            finished()
    finally:
        replayer.close()
    return None


def _settings(entry: EnvEntry, manifest: Manifest, replayed: Sequence[Episode], data: Path | None) -> EnvSettings:
    """Return the environment's settings as the run had them.

    The expert's actions are requested as in the run: where they are at hand, where the config says so, or where any was
    recorded. So they are recorded at all states or at none, and none that changes a figure goes unchecked, though some take
    long.
    """
    config = manifest.config
    wanted = config.expert_actions if config.expert_actions is not None else entry.expert_at_hand
    recorded = any(step.expert_action is not None for episode in replayed for step in episode.trajectory)
    return EnvSettings(
        config.env,
        {
            "split": config.split,
            "scheme": config.scheme,
            "max_steps": config.max_steps,
            "request": ["expert_action"] if wanted or recorded else [],
            **({"expert": manifest.expert} if manifest.expert else {}),
            **({"data": data} if entry.takes_data else {}),
        },
        dialect=manifest.dialect,
    )


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
        return f"it cannot be verified, for it does not say which {package} played it"
    return f"pip install {package}=={wanted}, then verify it again"


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
