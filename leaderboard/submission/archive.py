"""The zip file of a submission. Invariant: every byte of it belongs to one known member or to the directory, nothing is
expanded beyond what was announced and allowed, no name is followed and nothing is written.

Left out of the format, since what `write_archive` writes has none of it: encryption, zip64, comments, extra fields, folders,
links, parts, sizes that follow the data, and methods other than stored and deflated. Each of them is refused by name.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.16 (end).
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission.json_reader import quote_value

_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_ENCRYPTED, _FOLLOWED = 0x0001, 0x0008
_HARMLESS = 0x0806
"""Flags that say how hard was compressed, and that a name is UTF-8."""
_STORED, _DEFLATED = 0, 8
_PIECE = 2**16
"""Bytes that are fed to the expander at once, so at most 64 MB come out before anybody looks."""

AGAIN = "submit the run folder itself: cotbench leaderboard submit RUN"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive, not expanded yet.

    Attributes:
        packed: its bytes in the archive.
        size: its bytes once expanded, as it announces.
        crc: the checksum that it announces.
    """

    name: str
    packed: memoryview
    deflated: bool
    size: int
    crc: int

    def pieces(self) -> Iterator[bytes]:
        """Its content, piece by piece.

        Raises:
            SubmissionError: it is damaged, or not of the announced size.
        """
        size, crc = 0, 0
        for piece in self._expanded() if self.deflated else self._stored():
            size += len(piece)
            crc = zlib.crc32(piece, crc)
            if size > self.size:
                raise self._damaged(f"holds more than the {self.size} bytes that it announces")
            yield piece
        if size != self.size or crc != self.crc:
            raise self._damaged("is damaged: its size or its checksum is not the announced one")

    def content(self) -> bytes:
        """All of it; errors as in `pieces`."""
        return b"".join(self.pieces())

    def lines(self, longest: int) -> Iterator[tuple[int, bytes]]:
        """Its lines with their numbers, from 1, without their ends.

        Raises:
            SubmissionError: a line is longer than `longest` bytes, the last one does not end, or as in `pieces`.
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

    def _stored(self) -> Iterator[bytes]:
        for start in range(0, len(self.packed), _PIECE):
            yield bytes(self.packed[start : start + _PIECE])

    def _expanded(self) -> Iterator[bytes]:
        expander = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for start in range(0, len(self.packed), _PIECE):
                rest: bytes | memoryview = self.packed[start : start + _PIECE]
                while rest and not expander.eof:
                    yield expander.decompress(rest, 16 * _PIECE)
                    rest = expander.unconsumed_tail
                if expander.eof and (rest or expander.unused_data or start + _PIECE < len(self.packed)):
                    raise self._damaged("has something after its end")
            yield expander.flush()
        except zlib.error as error:
            raise self._damaged(f"is damaged ({error})") from error
        if not expander.eof:
            raise self._damaged("is damaged: it is cut off")

    def _damaged(self, what: str) -> SubmissionError:
        return SubmissionError(f"{self.name} {what}; {AGAIN}")


def read_archive(data: bytes, largest: Mapping[str, int], together: int) -> dict[str, Member]:
    """The members of a zip file; nothing is expanded.

    Args:
        data: the file.
        largest: the names that it must have, no more and no less, and how many bytes each may announce.
        together: how many bytes all may announce.

    Raises:
        SubmissionError: it is no such file.
    """
    if data[:2] != b"PK":
        raise SubmissionError(f"a submission is a zip file, and this is none; {AGAIN}")
    first, count = _directory(data)
    members: dict[str, Member] = {}
    start, entry, total = 0, first, 0
    for _ in range(count):
        member, start, entry = _member(data, start, entry)
        if member.name not in largest:
            raise SubmissionError(
                f"the zip file holds {quote_value(member.name)}; it holds {_listed(largest)} and nothing else"
            )
        if member.name in members:
            raise SubmissionError(f"the zip file holds {member.name} twice; {AGAIN}")
        if member.size > largest[member.name]:
            raise SubmissionError(f"{member.name} has {member.size:,} bytes; at most {largest[member.name]:,} may stand there")
        members[member.name] = member
        total += member.size
    for name in largest:
        if name not in members:
            raise SubmissionError(f"the zip file holds no {name}; {AGAIN}")
    if total > together:
        raise SubmissionError(f"the submission expands to {total:,} bytes; at most {together:,} are accepted")
    if start != first or entry != len(data) - _END.size:
        raise SubmissionError(f"the zip file holds bytes that belong to no file in it; {AGAIN}")
    return members


def write_archive(members: Mapping[str, Iterable[bytes]]) -> bytes:
    """A zip file of these members, each in pieces; the same members give the same bytes."""
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


def _directory(data: bytes) -> tuple[int, int]:
    """Where the directory begins, and how many members it lists."""
    place = len(data) - _END.size
    if place < 0 or data[place : place + 4] != b"PK\x05\x06":
        raise SubmissionError(f"the zip file is cut off, or has something after its end; {AGAIN}")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, place)
    if disk or first_disk or here != count or comment:
        raise SubmissionError(f"the zip file is one of several parts, or has a comment; {AGAIN}")
    if start + size != place:
        raise SubmissionError(f"the zip file's directory is not where it should be; {AGAIN}")
    return start, count


def _member(data: bytes, start: int, place: int) -> tuple[Member, int, int]:
    """The member whose entry stands at `place`, if its data stands at `start`; where the next of both stand."""
    if place + _ENTRY.size > len(data) or data[place : place + 4] != b"PK\x01\x02":
        raise SubmissionError(f"the zip file's directory is damaged; {AGAIN}")
    _, _, _, flags, method, _, _, crc, packed, size, named, extra, comment, disk, _, attributes, offset = _ENTRY.unpack_from(
        data, place
    )
    raw = data[place + _ENTRY.size : place + _ENTRY.size + named]
    name = raw.decode("utf-8", "replace")
    _refuse_unusual(name, flags, method, extra or comment or disk, attributes)
    if offset != start:
        raise SubmissionError(f"{quote_value(name)} does not stand where the one before it ends in the zip file; {AGAIN}")
    if start + _LOCAL.size > len(data):
        raise SubmissionError(f"the zip file is cut off; {AGAIN}")
    content = start + _LOCAL.size + named
    head = _LOCAL.unpack_from(data, start)
    same = head[0] == b"PK\x03\x04" and head[2:4] == (flags, method) and head[6:] == (crc, packed, size, named, 0)
    if not same or data[start + _LOCAL.size : content] != raw:
        raise SubmissionError(f"{quote_value(name)} has two headers in the zip file that do not say the same; {AGAIN}")
    if content + packed > place or (method == _STORED and packed != size):
        raise SubmissionError(f"{quote_value(name)} has a wrong size in the zip file; {AGAIN}")
    body = memoryview(data)[content : content + packed]
    return Member(name, body, method == _DEFLATED, size, crc), content + packed, place + _ENTRY.size + named


def _refuse_unusual(name: str, flags: int, method: int, more: int, attributes: int) -> None:
    problem = None
    if flags & _ENCRYPTED:
        problem = "is encrypted"
    elif flags & _FOLLOWED:
        problem = "has its size after its data"
    elif flags & ~_HARMLESS:
        problem = "has flags that are not understood"
    elif method not in (_STORED, _DEFLATED):
        problem = f"is compressed by method {method}, neither stored nor deflated"
    elif more:
        problem = "has extra fields or a comment"
    elif stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG):
        problem = "is not a plain file"
    if problem is not None:
        raise SubmissionError(f"{quote_value(name)} {problem} in the zip file; {AGAIN}")


def _listed(names: Mapping[str, int]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
