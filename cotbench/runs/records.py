"""The records of a file, read when they are wanted. Invariant: in memory are the places of the records and a small row of each,
never their content; what is read is what was there when the file was opened, or an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from cotbench.errors import RunFolderError

R = TypeVar("R")
X = TypeVar("X")


@dataclass(frozen=True, slots=True)
class Place(Generic[X]):
    """Where a record stands in its file.

    Attributes:
        offset: of its line, in bytes; `length` is that of the line, with its end.
        failed: whether it has an error.
        row: what is held of it in memory.
    """

    offset: int
    length: int
    failed: bool
    row: X


class Records(Sequence[R], Generic[R, X]):
    """The records of a file, each key once; equal to any sequence of equal records.

    Args:
        path: the file.
        places: key -> place of its record, in the order of the sequence.
        decode: returns the record of a line.

    Attributes:
        rows: what is held of each record, in the same order.
    """

    def __init__(self, path: Path, places: Mapping[Any, Place[X]], decode: Callable[[bytes, str], R]) -> None:
        self._path, self._decode = path, decode
        self._by_key = dict(places)
        self._places = list(self._by_key.values())
        self.rows: list[X] = [place.row for place in self._places]
        self._file_id = _file_id(path.stat())

    def get(self, key: Hashable) -> R | None:
        """Return the record of a key, or None."""
        place = self._by_key.get(key)
        return None if place is None else next(self._read([place]))

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[R]:
        return self._read(self._places)

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            return list(self._read(self._places[index]))
        return next(self._read([self._places[index]]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} records of {self._path}>"

    def _read(self, places: Sequence[Place[X]]) -> Iterator[R]:
        """Yield the records at some places.

        Raises:
            RunFolderError: the file was replaced or damaged since its places were found.
        """
        try:
            with self._path.open("rb") as file:
                if _file_id(os.fstat(file.fileno())) != self._file_id:
                    raise RunFolderError(f"{self._path} changed while it was being read: read it again")
                for place in places:
                    file.seek(place.offset)
                    yield self._decode(file.read(place.length), f"{self._path}, byte {place.offset},")
        except OSError as error:
            raise RunFolderError(f"cannot read {self._path} ({error.strerror}): read it again") from error


def _file_id(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
