"""A file of records, one JSON object a line, appended as they come. Invariant: a complete line is a complete record, and its
digest says that it is the one that was written; killing the writer at any moment costs at most the last, incomplete line, which
is dropped when writing continues. In memory are the places of the records and a small row of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Generic, Protocol, Self, TypeVar

from pydantic import ValidationError

from cotbench.errors import RunFolderError
from cotbench.runs.atomic_file import remove_unfinished, write_atomically, write_error
from cotbench.runs.line_digest import LineDigestError, carries_digests, with_digest, without_digest
from cotbench.runs.records import Place, Records


class Record(Protocol):
    """A line of the file: a pydantic model with a key and an optional error."""

    @property
    def key(self) -> Any:
        """Key of the record within its file."""

    @property
    def error(self) -> str | None:
        """Reason of a failure, or None."""

    @classmethod
    def model_validate_json(cls, json_data: bytes, /) -> Self:
        """Parse a line."""

    def model_dump_json(self) -> str:
        """Return the record as a line."""


R = TypeVar("R", bound=Record)
X = TypeVar("X")


class JsonlStore(Generic[R, X]):
    """A folder's file of records, open for writing; the caller holds the folder's lock (`WritableFolder.journal`).

    A subclass sets `name` (the file), `manifest` (the file beside it, whose format says whether lines carry digests), `model`
    (of a record) and `noun` ("an episode", for messages).

    Attributes:
        truncated_tail: whether an incomplete last line was dropped.

    Raises:
        RunFolderError: it is damaged.
    """

    name: ClassVar[str]
    manifest: ClassVar[str]
    model: ClassVar[type[Any]]
    noun: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.name
        self._digests = carries_digests(folder / self.manifest)
        remove_unfinished(self._path)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._places, self._size = self._scan(self._path, self._digests)
            self.truncated_tail = os.fstat(self._file).st_size > self._size
            if self.truncated_tail:
                os.ftruncate(self._file, self._size)
        except BaseException:
            self.close()
            raise

    @classmethod
    def row(cls, record: R) -> X:
        """Return what is held of a record in memory: the record itself, unless a subclass needs less of it."""
        return record  # type: ignore[return-value]

    @classmethod
    def read(cls, folder: Path) -> Records[R, X]:
        """Return the records of a folder, each key once; change nothing.

        Raises:
            RunFolderError: there is no such file, or a line is damaged.
        """
        path = folder / cls.name
        if not path.is_file():
            raise RunFolderError(f"{folder} holds no {cls.name}")
        digests = carries_digests(folder / cls.manifest)
        places, _ = cls._scan(path, digests)
        return Records(path, places, cls.decoder(digests))

    @classmethod
    def _scan(cls, path: Path, digests: bool) -> tuple[dict[Any, Place[X]], int]:
        """Return the places of the records, each key once, and the size of the complete lines."""
        with path.open("rb") as file:
            return cls._find(path, file, cls.decoder(digests))

    @classmethod
    def _find(cls, path: Path, file: BinaryIO, decode: Callable[[bytes, str], R]) -> tuple[dict[Any, Place[X]], int]:
        places: dict[Any, Place[X]] = {}
        size, _ = cls.read_on(path, file, decode, places, 0, 0)
        return places, size

    @classmethod
    def read_on(
        cls,
        path: Path,
        file: BinaryIO,
        decode: Callable[[bytes, str], R],
        places: dict[Any, Place[X]],
        size: int,
        lines: int,
    ) -> tuple[int, int]:
        """Add the places of the records that follow the first lines of a file, which is read from there on.

        Args:
            path: of the file.
            file: the file, at that place.
            decode: returns the record of a line.
            places: of the records before.
            size: of those lines in bytes; `lines` is how many they are.

        Returns:
            The size of all complete lines, and how many they are.
        """
        for line in file:
            if not line.endswith(b"\n"):
                break
            record = decode(line, f"{path}:{lines + 1}")
            _put(places, record, Place(size, len(line), record.error is not None, cls.row(record)))
            size, lines = size + len(line), lines + 1
        return size, lines

    @classmethod
    def decoder(cls, digests: bool) -> Callable[[bytes, str], R]:
        """Return the function that reads a record from a line and the line's name; see `Records`.

        Args:
            digests: whether the lines carry digests.
        """
        return partial(_decoded, cls.model, cls.noun, digests)

    @property
    def rows(self) -> list[X]:
        """What is held of each record, each key once; a success after an error replaces it."""
        return [place.row for place in self._places.values()]

    def append(self, record: R) -> None:
        """Write one record, completely or not at all.

        Raises:
            WriteError: it cannot be written; the file is as it was.
        """
        text = record.model_dump_json().encode()
        line = (with_digest(text) if self._digests else text) + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError("only a part of the line was written to the disk")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise write_error(self._path, error) from error
        _put(self._places, record, Place(self._size, len(line), record.error is not None, self.row(record)))
        self._size += len(line)

    def finalize(self, order: Sequence[Any]) -> Records[R, X]:
        """Bring the records into their final order; drop errors that were replaced by a success. Nothing is appended after it.

        Args:
            order: keys of the final records, in the order of the file.

        Raises:
            WriteError: the file cannot be written anew; it is as it was.
        """
        final: dict[Any, Place[X]] = {}
        size = 0
        for key in order:
            if (place := self._places.get(key)) is not None:
                final[key] = Place(size, place.length, place.failed, place.row)
                size += place.length
        moved = [self._places[key] for key in final]
        if size != self._size or any(old.offset != new.offset for old, new in zip(moved, final.values(), strict=True)):
            write_atomically(self._path, self._lines(moved))
        self._places, self._size = final, size
        return Records(self._path, final, self.decoder(self._digests))

    def _lines(self, places: Sequence[Place[X]]) -> Iterator[bytes]:
        for place in places:
            yield os.pread(self._file, place.length, place.offset)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _put(places: dict[Any, Place[X]], record: Record, place: Place[X]) -> None:
    """Record a place under its key, unless there is a success already."""
    before = places.get(record.key)
    if before is None or before.failed:
        places[record.key] = place


def _decoded(model: type[Any], noun: str, digests: bool, line: bytes, where: str) -> Any:
    """Return the record of a line; a function of the module, so that what holds it can be sent to another process.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        content = line.removesuffix(b"\n")
        return model.model_validate_json(without_digest(content) if digests else content)
    except LineDigestError as error:
        raise RunFolderError(f"{where} is not {noun} as it was written ({error}): remove that line") from error
    except ValidationError as error:
        what = error.errors()[0]
        place = ".".join(map(str, what["loc"])) or "line"
        raise RunFolderError(f"{where} is not {noun} ({place}: {what['msg']}): remove that line") from error
