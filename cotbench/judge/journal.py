"""`judgements.jsonl`: what a judge has said so far. Invariant: that of `lines`, for judged states."""

from __future__ import annotations

from pathlib import Path

from cotbench.errors import RunFolderError
from cotbench.judge.judgement import Judgement
from cotbench.runs.jsonl_store import JsonlStore

JUDGEMENTS = "judgements.jsonl"


class JudgementJournal(JsonlStore[Judgement]):
    """A judge's folder, open for writing by one process."""

    name = JUDGEMENTS
    model = Judgement
    noun = "a judgement"
    writer = "another judge"


def read_judgements(folder: Path) -> list[Judgement]:
    """The judgements of a judge's folder, each state once; a success after an error replaces it. Changes nothing.

    Raises:
        RunFolderError: none there, or a damaged line.
    """
    if not (folder / JUDGEMENTS).is_file():
        raise RunFolderError(f"{folder} is not the folder of a judge: it has no {JUDGEMENTS}")
    return JudgementJournal.read(folder)
