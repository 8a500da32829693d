"""`episodes.jsonl`: what a run has played so far. Invariant: that of `lines`, for episodes."""

from __future__ import annotations

from pathlib import Path

from cotbench.errors import RunFolderError
from cotbench.runs.episode import Episode
from cotbench.runs.jsonl_store import JsonlStore

EPISODES = "episodes.jsonl"


class Journal(JsonlStore[Episode]):
    """A run folder's episodes, open for writing by one process."""

    name = EPISODES
    model = Episode
    noun = "an episode"
    writer = "another cotbench run"


def read_episodes(folder: Path) -> list[Episode]:
    """The episodes of a run folder, each once; a success after an error replaces it. Changes nothing.

    Raises:
        RunFolderError: no run there, or a damaged line.
    """
    if not (folder / EPISODES).is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no {EPISODES}")
    return Journal.read(folder)
