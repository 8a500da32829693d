"""A file of records, one JSON object a line, appended as they come. Invariant: a complete line is a complete record; killing
the writer at any moment costs at most the last, incomplete line, which is dropped when writing continues.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from pydantic import ValidationError

from cotbench.errors import RunFolderError


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


class JsonlStore(Generic[R]):
    """A folder's file of records, open for writing; the caller holds the folder's lock (`WritableFolder.journal`).

    A subclass sets `name` (the file), `model` (of a record) and `noun` ("an episode", for messages).

    Attributes:
        records: the records, each key once; a success after an error replaces it.
        truncated_tail: whether an incomplete last line was dropped.

    Raises:
        RunFolderError: it is damaged.
    """

    name: ClassVar[str]
    model: ClassVar[type[Any]]
    noun: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.name
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            content = self._path.read_bytes()
            self.records: list[R] = self._parse(content, self._path)
            self._size = content.rfind(b"\n") + 1
            self.truncated_tail = len(content) > self._size
            if self.truncated_tail:
                os.ftruncate(self._file, self._size)
        except BaseException:
            self.close()
            raise

    @classmethod
    def read(cls, folder: Path) -> list[R]:
        """Return the records of a folder, each key once; change nothing.

        Raises:
            RunFolderError: there is no such file, or a line is damaged.
        """
        path = folder / cls.name
        if not path.is_file():
            raise RunFolderError(f"{folder} holds no {cls.name}")
        return cls._parse(path.read_bytes(), path)

    @classmethod
    def _parse(cls, content: bytes, path: Path) -> list[R]:
        records: dict[Any, R] = {}
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
            try:
                record = cls.model.model_validate_json(line)
            except ValidationError as error:
                what = error.errors()[0]
                place = ".".join(map(str, what["loc"])) or "line"
                raise RunFolderError(f"{path}:{number} is not {cls.noun} ({place}: {what['msg']}): remove that line") from error
            if record.key not in records or records[record.key].error is not None:
                records[record.key] = record
        return list(records.values())

    def append(self, record: R) -> None:
        """Write one record, completely or not at all."""
        line = record.model_dump_json().encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError("the disk took only a part of the line")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise RunFolderError(f"cannot write to {self._path} ({error}): make room and go on with --resume") from error
        self._size += len(line)
        self.records.append(record)

    def finalize(self, order: Sequence[Any]) -> list[R]:
        """Replace the file by the final records; drop errors that were replaced by a success.

        Args:
            order: keys of the final records, in the order of the file.
        """
        final = {record.key: record for record in self.records if record.error is not None}
        final |= {record.key: record for record in self.records if record.error is None}
        records = [final[key] for key in order if key in final]
        write_atomically(self._path, (record.model_dump_json() + "\n" for record in records))
        return records

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_atomically(path: Path, pieces: Iterable[str]) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part of it.

    Args:
        path: the file.
        pieces: its text, in pieces.
    """
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
