"""`judgements.jsonl`: what a judge has said so far. Invariant: a line that is there is one whole judged state; killing the
judge at any moment costs at most the last, torn line, and that is dropped when it goes on.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from cotbench.errors import RunFolderError
from cotbench.journal import write_atomically
from cotbench.judgement import Judgement

JUDGEMENTS = "judgements.jsonl"


def read_judgements(folder: Path) -> list[Judgement]:
    """The judgements of a judge's folder, each state once; a success after an error replaces it. Changes nothing.

    Raises:
        RunFolderError: none there, or a damaged line.
    """
    path = folder / JUDGEMENTS
    if not path.is_file():
        raise RunFolderError(f"{folder} is not the folder of a judge: it has no {JUDGEMENTS}")
    return _parse(path.read_bytes(), path)


def _parse(content: bytes, path: Path) -> list[Judgement]:
    judgements: dict[tuple[str, int], Judgement] = {}
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
        try:
            judgement = Judgement.model_validate_json(line)
        except ValidationError as error:
            what = error.errors()[0]
            place = ".".join(map(str, what["loc"])) or "line"
            raise RunFolderError(f"{path}:{number} is not a judgement ({place}: {what['msg']}): remove that line") from error
        if judgement.key not in judgements or judgements[judgement.key].error is not None:
            judgements[judgement.key] = judgement
    return list(judgements.values())


class JudgementJournal:
    """A judge's folder, open for writing by one process.

    Attributes:
        judgements: what was there when it was opened.

    Raises:
        RunFolderError: another process writes to it, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JUDGEMENTS
        # Locked beside the file: the file itself is replaced in the end.
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._file = -1
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunFolderError(f"{folder} is in use by another judge: wait for it, or choose another --out") from error
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            content = self._path.read_bytes()
            self.judgements = _parse(content, self._path)
            self._size = content.rfind(b"\n") + 1
            os.ftruncate(self._file, self._size)
        except BaseException:
            self.close()
            raise

    def append(self, judgement: Judgement) -> None:
        """Write one judgement down, whole or not at all."""
        line = judgement.model_dump_json().encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError("the disk took only a part of the line")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise RunFolderError(f"cannot write to {self._path} ({error}): make room and go on with --resume") from error
        self._size += len(line)

    def settle(self, order: Sequence[tuple[str, int]]) -> list[Judgement]:
        """Replace the file by the final judgements in the given order of states, errors that were judged again left out."""
        final = {judgement.key: judgement for judgement in read_judgements(self._path.parent)}
        judgements = [final[key] for key in order if key in final]
        write_atomically(self._path, (judgement.model_dump_json() + "\n" for judgement in judgements))
        return judgements

    def close(self) -> None:
        """Unlock; safe to call twice."""
        for name in ("_file", "_lock"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def __enter__(self) -> JudgementJournal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
