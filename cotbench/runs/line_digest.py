"""The digest that a line of a file of records carries. Invariant: a line whose digest is right is, byte for byte, the line that
was written; it stays a JSON object that any reader of JSON can read.

The last field of the object is `sha256`: of the line's bytes before `,"sha256"`, which are the object without that field and
without its closing brace. Every line stands for itself, so that lines can be put into another order and appended to.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cotbench.errors import RunFolderError

FORMAT = 2
"""The format of a folder, in its manifest, whose files of records carry digests; those of format 1 do not."""
FIELD = "sha256"

_BEFORE = f',"{FIELD}":"'.encode()
_AFTER = b'"}'
_LENGTH = len(_BEFORE) + 2 * hashlib.sha256().digest_size + len(_AFTER)


class LineDigestError(ValueError):
    """A line without a digest, or with that of another line."""


def with_digest(text: bytes) -> bytes:
    """Return a JSON object with its digest, as a line without its end.

    Args:
        text: a JSON object with at least one field.
    """
    content = text[:-1]
    return content + _field(content)


def without_digest(line: bytes) -> bytes:
    """Return the JSON object of a line without its digest.

    Args:
        line: as `with_digest` returns it.

    Raises:
        LineDigestError: the line is not as it was written.
    """
    content, field = line[:-_LENGTH], line[-_LENGTH:]
    if field != _field(content):
        raise LineDigestError(
            "its sha256 is that of another text" if _BEFORE in field[: len(_BEFORE)] else "it does not end with its sha256"
        )
    return content + b"}"


def _field(content: bytes) -> bytes:
    return _BEFORE + hashlib.sha256(content).hexdigest().encode() + _AFTER


def carries_digests(manifest: Path) -> bool:
    """Return whether the lines in a folder carry digests: the format in its manifest decides, so that a lost digest is noticed.

    Args:
        manifest: the file; where there is none, they do.

    Raises:
        RunFolderError: it is no manifest.
    """
    try:
        return int(json.loads(manifest.read_bytes())["format"]) >= FORMAT
    except FileNotFoundError:
        return True
    except (ValueError, TypeError, KeyError) as error:
        raise RunFolderError(f"{manifest} is not the manifest of a cotbench folder: it has no format number") from error
