"""`episodes.jsonl`: what a run has played so far. Invariant: a line that is there is a complete episode; killing the run at any
moment costs at most the last, torn line, and that is dropped when the run goes on.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from cotbench.episode import Episode
from cotbench.errors import RunFolderError

EPISODES = "episodes.jsonl"


def read_episodes(folder: Path) -> list[Episode]:
    """The episodes of a run folder, each once; a success after an error replaces it. Changes nothing.

    Raises:
        RunFolderError: no run there, or a damaged line.
    """
    path = folder / EPISODES
    if not path.is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no {EPISODES}")
    return _parse(path.read_bytes(), path)


def _parse(content: bytes, path: Path) -> list[Episode]:
    complete = content[: content.rfind(b"\n") + 1]
    episodes: dict[str, Episode] = {}
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            episode = Episode.model_validate_json(line)
        except ValidationError as error:
            what = error.errors()[0]
            place = ".".join(map(str, what["loc"])) or "line"
            raise RunFolderError(f"{path}:{number} is not an episode ({place}: {what['msg']}): remove that line") from error
        if episode.key not in episodes or episodes[episode.key].error is not None:
            episodes[episode.key] = episode
    return list(episodes.values())


class Journal:
    """A run folder's episodes, open for writing by one process.

    Raises:
        RunFolderError: another process writes to it, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / EPISODES
        # Locked beside the file: the file itself is replaced when the run ends.
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise RunFolderError(f"{folder} is in use by another cotbench run: wait for it, or choose another --out") from error
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            content = self._path.read_bytes()
            self.episodes = _parse(content, self._path)
        except BaseException:
            self.close()
            raise
        self._size = content.rfind(b"\n") + 1
        self.torn = len(content) > self._size
        if self.torn:
            os.ftruncate(self._file, self._size)

    def append(self, episode: Episode) -> None:
        """Write one episode down, whole or not at all."""
        line = episode.model_dump_json().encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError("the disk took only a part of the line")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise RunFolderError(f"cannot write to {self._path} ({error}): make room and go on with --resume") from error
        self._size += len(line)
        self.episodes.append(episode)

    def settle(self, order: Sequence[str]) -> list[Episode]:
        """Replace the file by the final episodes in the given order of keys, errors that were replayed left out."""
        final = {episode.key: episode for episode in self.episodes if episode.error is not None}
        final |= {episode.key: episode for episode in self.episodes if episode.error is None}
        episodes = [final[key] for key in order if key in final]
        write_atomically(self._path, (episode.model_dump_json() + "\n" for episode in episodes))
        return episodes

    def close(self) -> None:
        """Unlock; safe to call twice."""
        for name in ("_file", "_lock"):
            descriptor = getattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_atomically(path: Path, pieces: Iterable[str]) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
