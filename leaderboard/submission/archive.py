"""The zip file of a submission. Invariant: only members of known names are read, in pieces and never beyond the size that they
announce and may have; no name is followed and nothing is written.

`zipfile` reads the format. What it ignores (comments, extra fields, attributes, bytes between members, local headers that
disagree with the directory) reaches nobody: an entry's digest is over content, and a bundle is packed anew before it is stored.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission.json_reader import one_line, quote_value

_PIECE = 2**16
"""Bytes that are expanded at once."""
_ENCRYPTED = 0x0001
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The methods that expand a piece in bounded memory."""
_SIGNATURES = 16
"""Directory entries may begin so many times in a file: those of its members, and what compressed data may hold by chance."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)
"""What `zipfile` raises where a file is not as it should be; RuntimeError is the base of NotImplementedError."""

AGAIN = "submit the run folder itself: cotbench leaderboard submit RUN"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive, not expanded yet."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    @property
    def name(self) -> str:
        """Return its name in the archive."""
        return self.info.orig_filename

    def pieces(self) -> Iterator[bytes]:
        """Yield its content piece by piece.

        Raises:
            SubmissionError: it is damaged, or not of the announced size.
        """
        size = 0
        with _as_refusal(self.name):
            file = self.archive.open(self.info)
        with file:
            while size <= self.info.file_size:
                with _as_refusal(self.name):
                    piece = file.read(_PIECE)
                if not piece:
                    break
                size += len(piece)
                yield piece
        if size != self.info.file_size:
            raise SubmissionError(
                f"{self.name} is damaged: it does not have the {self.info.file_size:,} bytes that it announces; {AGAIN}"
            )

    def content(self) -> bytes:
        """Return all of it; errors as in `pieces`."""
        return b"".join(self.pieces())

    def lines(self, longest: int) -> Iterator[tuple[int, bytes]]:
        """Yield its lines with their numbers, from 1, without their ends.

        Args:
            longest: bytes that a line may have.

        Raises:
            SubmissionError: a line is longer than `longest`, the last one does not end, or as in `pieces`.
        """
        number, begun, length = 1, list[bytes](), 0
        for piece in self.pieces():
            for index, part in enumerate(piece.split(b"\n")):
                if index:
                    yield number, b"".join(begun)
                    number, begun, length = number + 1, [], 0
                begun.append(part)
                length += len(part)
                if length > longest:
                    raise SubmissionError(f"{self.name}, line {number}: is longer than {longest:,} bytes")
        if length:
            raise SubmissionError(f"{self.name}, line {number}: is cut off; {AGAIN}")


@contextmanager
def _as_refusal(name: str) -> Iterator[None]:
    """Turn what `zipfile` raises into one line about the member or the file of that name."""
    try:
        yield
    except _DAMAGE as error:
        raise SubmissionError(f"{name} is damaged ({one_line(str(error)) or type(error).__name__}); {AGAIN}") from error


def read_archive(data: bytes, largest: Mapping[str, int], together: int) -> dict[str, Member]:
    """Return the members of a zip file; nothing is expanded.

    Args:
        data: the file.
        largest: the names that it must have, no more and no less, and how many bytes each may announce.
        together: how many bytes all may announce.

    Raises:
        SubmissionError: it is no such file.
    """
    if not data.startswith(b"PK"):
        raise SubmissionError(f"a submission is a zip file, and this is not one; {AGAIN}")
    # zipfile makes an object of every entry of the directory, so they are counted first.
    if data.count(b"PK\x01\x02") > _SIGNATURES:
        raise SubmissionError(f"the zip file holds too many files; it holds {_listed(largest)} and nothing else")
    with _as_refusal("the zip file"):
        archive = zipfile.ZipFile(io.BytesIO(data))
    members: dict[str, Member] = {}
    for info in archive.infolist():
        member = Member(archive, info)
        if member.name not in largest:
            raise SubmissionError(
                f"the zip file holds {quote_value(member.name)}; it holds {_listed(largest)} and nothing else"
            )
        if member.name in members:
            raise SubmissionError(f"the zip file holds {member.name} twice; {AGAIN}")
        _check_readable(info)
        if info.file_size > largest[member.name]:
            raise SubmissionError(f"{member.name} has {info.file_size:,} bytes; at most {largest[member.name]:,} are accepted")
        members[member.name] = member
    for name in largest:
        if name not in members:
            raise SubmissionError(f"the zip file holds no {name}; {AGAIN}")
    total = sum(member.info.file_size for member in members.values())
    if total > together:
        raise SubmissionError(f"the submission expands to {total:,} bytes; at most {together:,} are accepted")
    return members


def write_archive(members: Mapping[str, Iterable[bytes]]) -> bytes:
    """Return a zip file of these members, each in pieces; the same members give the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, pieces in members.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            with archive.open(entry, "w") as member:
                for piece in pieces:
                    member.write(piece)
    return file.getvalue()


def _check_readable(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    if info.flag_bits & _ENCRYPTED:
        raise SubmissionError(f"{name} is encrypted in the zip file; {AGAIN}")
    if info.compress_type not in _METHODS:
        raise SubmissionError(
            f"{name} is compressed by method {info.compress_type}, neither stored nor deflated, in the zip file; {AGAIN}"
        )


def _listed(names: Mapping[str, int]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
