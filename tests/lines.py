"""Files of records as a test changes them: each line a JSON object, its digest left away when read and right when written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cotbench.runs.line_digest import FIELD, with_digest


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, without their digests."""
    return [{name: one for name, one in json.loads(line).items() if name != FIELD} for line in path.read_text().splitlines()]


def write_objects(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write objects with their digests."""
    path.write_bytes(lines_of(rows))


def signed(line: bytes) -> bytes:
    """A line with the digest that belongs to what stands before the one it had."""
    text = line.removesuffix(b"\n")
    return with_digest(re.sub(rb',"sha256":"[0-9a-f]{64}"(?=}$)', b"", text)) + line[len(text) :]


def lines_of(rows: Iterable[Any]) -> bytes:
    """The lines of objects, with digests; one that an object had already is replaced."""
    plain = ({name: one for name, one in row.items() if name != FIELD} if isinstance(row, dict) else row for row in rows)
    return b"".join(with_digest(json.dumps(row).encode()) + b"\n" for row in plain)
