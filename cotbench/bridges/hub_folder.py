"""A run, a suite of runs, traces or a probe as the folder of a data set for a hub. Invariant: `datasets.load_dataset(OUT)`
reads the same records as from the source, whose card names files and columns; no line names a file of the machine that wrote it
(there are no tracebacks), and nothing that is unfinished is exported.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cotbench.errors import RunFolderError
from cotbench.json_text import parse_json
from cotbench.probes import folder as probes
from cotbench.runs import line_digest, suite
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.dataset_card import CARD
from cotbench.runs.episode import EPISODES
from cotbench.runs.folder import make_folder
from cotbench.runs.manifest import MANIFEST, SUITE
from cotbench.runs.summary import SUMMARY

_RECORDS = (EPISODES, probes.ROWS)
_OTHERS = (
    *(CARD, MANIFEST, SUITE, SUMMARY, probes.SUMMARY),
    *("traces.json", "traces.jsonl", "traces.parquet", "tokens.jsonl", "tokens.parquet"),
)
_TRACEBACK = "traceback"


def write_hub_folder(source: Path, out: Path) -> list[Path]:
    """Write the folder of a data set.

    Args:
        source: a finished folder of a run, of a suite of runs, of traces or of a probe.
        out: where it goes: a new or empty folder.

    Returns:
        The files that were written, the card first.

    Raises:
        RunFolderError: the source is none of these, or not finished; `out` holds something.
    """
    folders = [source, *_runs_of(source)]
    for folder in folders:
        _check_finished(folder)
    make_folder(out, f"choose another --out, not {out}")
    return [file for folder in folders for file in _copied(folder, out / folder.relative_to(source))]


def push_command(name: str, folder: Path) -> str:
    """Return the command that uploads a folder to the hub.

    Args:
        name: of the data set there, `USER/NAME`.
        folder: as `write_hub_folder` wrote it.
    """
    return f"hf upload {name} {folder} . --repo-type dataset"


def push(name: str, folder: Path) -> str:
    """Upload a folder to a private data set on the hub, which is made where there is none.

    Args:
        name: of the data set, `USER/NAME`.
        folder: as `write_hub_folder` wrote it.

    Returns:
        The address of the upload.

    Raises:
        RunFolderError: huggingface_hub is not installed, nobody is logged in, or the hub refuses it.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise RunFolderError(
            f"--push needs huggingface_hub: pip install huggingface_hub, then {push_command(name, folder)}"
        ) from error
    api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, repo_type="dataset"))
    except (OSError, ValueError) as error:  # All of the hub's errors are one of these.
        reason = str(error).strip().splitlines()[0]
        raise RunFolderError(
            f"{folder} was written and not pushed ({reason}): log in (hf auth login), then {push_command(name, folder)}"
        ) from error


def _runs_of(source: Path) -> list[Path]:
    return [source / config.env for config in suite.read_configs(source)] if suite.is_suite(source) else []


def _check_finished(folder: Path) -> None:
    """Raise an error for a folder that is no finished result."""
    begun = (folder / MANIFEST).is_file() or suite.is_suite(folder)
    if not begun:
        raise RunFolderError(f"{folder} is not a folder of a run, traces or a probe: it has neither {MANIFEST} nor {SUITE}")
    if not any((folder / name).is_file() for name in (SUMMARY, probes.SUMMARY)):
        raise RunFolderError(f"{folder} is not finished: continue it with --resume {folder}, then export it")


def _copied(source: Path, out: Path) -> Iterator[Path]:
    """Yield the files of one folder as they are copied."""
    out.mkdir(exist_ok=True)
    for name in (*_OTHERS, *_RECORDS):
        if (source / name).is_file():
            if name in _RECORDS:
                write_atomically(out / name, _public_lines(source / name))
            else:
                shutil.copyfile(source / name, out / name)
            yield out / name


def _public_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file of records, without tracebacks."""
    digests = line_digest.carries_digests(path.parent / MANIFEST)
    with path.open("rb") as file:
        for line in file:
            if f'"{_TRACEBACK}"'.encode() not in line:
                yield line
                continue
            record = _without_tracebacks(parse_json(line))
            record.pop(line_digest.FIELD if digests else "", None)
            text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
            yield (line_digest.with_digest(text) if digests else text) + b"\n"


def _without_tracebacks(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_tracebacks(one) for name, one in value.items() if name != _TRACEBACK}
    return [_without_tracebacks(one) for one in value] if isinstance(value, list) else value
