"""Taking a submission in. Invariant: the command line and the web page take it by the same way, and what is refused leaves
nothing behind.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from cotbench.errors import RunFolderError
from cotbench.leaderboard.store.entry import Entry
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.submission.bundle import pack, repack, unpack
from cotbench.leaderboard.submission.checks import check
from cotbench.leaderboard.submission.details import Details
from cotbench.runs.results import load_run
from cotbench.runs.suite import is_suite, read_configs


def accept_submission(store: Store, data: BinaryIO, *, name: str = "", team: str = "", link: str = "") -> tuple[Entry, bool]:
    """Read, check and keep a bundle.

    Args:
        data: the bundle, open for reading from its beginning.
        name, team, link: instead of what the bundle says, where they are not empty.

    Returns:
        The entry, on the disk, and whether it is new.

    Raises:
        SubmissionError: it is refused; nothing of it was kept.
        DuplicateEntryError: the same episodes are there under another name.
    """
    bundle = unpack(data)
    details = bundle.details
    if name or team or link:
        details = Details.checked(name or details.name, team or details.team, link or details.link)
    unranked = check(bundle)
    if details != bundle.details:
        bundle = replace(bundle, details=details)
    # Packed anew: of what was sent, only what was read and checked is kept.
    return store.add(bundle, unranked, repack(bundle))


def runs_in(folder: Path) -> list[Path]:
    """The run folders of what a user names: itself, or those of a suite.

    Raises:
        RunFolderError: it is neither.
    """
    if not folder.is_dir():
        raise RunFolderError(f"there is no run folder {folder}: give the folder that cotbench run has written")
    return [folder / config.env for config in read_configs(folder)] if is_suite(folder) else [folder]


def pack_run(folder: Path, *, name: str = "", team: str = "", link: str = "") -> bytes:
    """A run folder as a bundle; its name is the agent's where none is given.

    Raises:
        RunFolderError: no run, or an unfinished one.
        SubmissionError: a detail is refused.
    """
    return pack(folder, Details.checked(name or _plain(load_run(folder).manifest.config.agent), team, link))


def _plain(spec: str) -> str:
    """An agent's spec as a name: a folder by its last part, nothing that a name may not hold."""
    kind, _, rest = spec.partition(":")
    if not rest:
        return spec
    target, mark, options = rest.partition("?")
    local = target.startswith((".", "/", "~"))
    return f"{kind}:{target.rstrip('/').rpartition('/')[2] if local else target}{mark}{options}"
