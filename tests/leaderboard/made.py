"""Submissions for tests: real runs, played once a process, and ways to tamper with what was packed of them."""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cotbench.leaderboard.submission.bundle import Bundle, pack, unpack
from cotbench.leaderboard.submission.details import Details
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.lines import lines_of

JSON = dict[str, Any]
DETAILS = Details(name="A random walk", team="The testers", link="https://example.org/walk")

_count = iter(range(10**9))


@cache
def _root() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cotbench-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _played(asked: str) -> Path:
    folder = _root() / f"run{next(_count)}"
    run(RunConfig.model_validate_json(asked), out=folder, workers=0)
    return folder


def played(**changes: Any) -> Path:
    """A run folder, the same one for the same arguments: not to be changed.

    Four tasks of alfworld-gen, in both modes, by the random agent within 6 steps, where nothing else is asked for.
    """
    usual: JSON = {"agent": "random", "episodes": 4, "max_steps": 6}
    config = {**usual, **changes}
    return _played(RunConfig(**{name: value for name, value in config.items() if value is not None}).model_dump_json())


def copied(folder: Path, to: Path) -> Path:
    """A copy of a run folder, to be changed."""
    return Path(shutil.copytree(folder, to))


@cache
def _packed(folder: Path, details: Details) -> bytes:
    return pack(folder, details)


def packed(details: Details = DETAILS, **changes: Any) -> bytes:
    """The submission of a run; `changes` as of `played`."""
    return _packed(played(**changes), details)


def bundled(**changes: Any) -> Bundle:
    """The same, read."""
    return unpack(packed(**changes))


def members(data: bytes) -> dict[str, bytes]:
    """What is in a submission, by its names."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file, as anybody would make it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


def replaced(data: bytes, **content: bytes) -> bytes:
    """A submission with other content of `submission`, `manifest` or `episodes`."""
    names = {"submission": "submission.json", "manifest": "manifest.json", "episodes": "episodes.jsonl"}
    return zipped({**members(data), **{names[name]: some for name, some in content.items()}})


def edited(
    data: bytes,
    *,
    submission: Callable[[JSON], object] | None = None,
    manifest: Callable[[JSON], object] | None = None,
    episodes: Callable[[list[JSON]], object] | None = None,
) -> bytes:
    """A submission after edits of its JSON, in place."""
    content = members(data)
    for name, edit in (("submission.json", submission), ("manifest.json", manifest)):
        if edit is not None:
            document = json.loads(content[name])
            edit(document)
            content[name] = json.dumps(document).encode()
    if episodes is not None:
        rows = [json.loads(line) for line in content["episodes.jsonl"].splitlines()]
        episodes(rows)
        content["episodes.jsonl"] = lines_of(rows)
    return zipped(content)


def setting(*path: str | int, to: object) -> Callable[[Any], None]:
    """An edit that sets one value: `setting(3, "trajectory", 0, "score", to=1.0)`."""

    def edit(document: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = to

    return edit
