"""A run, as `run` returns it and `load_run` reads it. Invariant: the tables hold the content of the run folder, one row an
episode or a step, flattened; nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cotbench.errors import RunFolderError
from cotbench.notebook import Display, Displayed, data_frame
from cotbench.prompting.query import Decision
from cotbench.runs.episode import Episode, read_episodes
from cotbench.runs.manifest import Manifest, read_manifest
from cotbench.runs.summary import SUMMARY, Summary, summarize

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, repr=False)
class Run(Displayed):
    """A run: its folder, its numbers, its episodes.

    Attributes:
        path: the folder.
        manifest: how the run was made.
        summary: its numbers; of the episodes so far, when the run is not finished.
        records: the episodes, whole; read from the folder when they are wanted.
        finished: whether all episodes were played; one that failed counts as played.
    """

    path: Path
    manifest: Manifest
    summary: Summary
    records: Sequence[Episode]
    finished: bool = True

    @property
    def episodes(self) -> pd.DataFrame:
        """Episodes as a table, one row each: task, task_type, mode, error, goal, success, score, steps, ...; with several
        samples of each task their number as `rollout`.
        """
        sampled = self.manifest.config.samples > 1
        return data_frame(
            [
                {
                    **episode.model_dump(exclude={"trajectory", "first_observation"}),
                    **({"rollout": episode.rollout} if sampled else {}),
                }
                for episode in self.records
            ]
        )

    @property
    def steps(self) -> pd.DataFrame:
        """Steps as a table, one row each: executed, prompt and expert action, the observation and score after it, the
        decision's fields, and those of the prompt decision under `prompt_...`; `worded` is the action as the agent wrote it.
        """
        rows = []
        for episode in self.records:
            for number, step in enumerate(episode.trajectory):
                row = {"task": episode.task, "mode": episode.mode, "step": number}
                row |= {"rollout": episode.rollout} if self.manifest.config.samples > 1 else {}
                row |= step.model_dump(exclude={"decision", "prompt_decision"}) | _fields(step.decision)
                if step.prompt_decision is not None:
                    row |= {f"prompt_{name}": value for name, value in _fields(step.prompt_decision).items()}
                rows.append(row)
        return data_frame(rows)

    def _display(self) -> Display:
        display = self.summary._display()
        unfinished = () if self.finished else (f"NOT FINISHED: {len(self.records)} episodes so far",)
        return replace(display, title=f"Run of {display.title}", notes=(*unfinished, *display.notes, f"folder: {self.path}"))


def _fields(decision: Decision) -> dict[str, Any]:
    fields = asdict(decision)
    for name in ("error", "error_kind", "traceback", "tokens"):
        del fields[name]
    return {"worded": fields.pop("action"), **fields}


def load_run(path: str | Path) -> Run:
    """Read a run folder, finished or not.

    Args:
        path: the run folder.

    Raises:
        RunFolderError: it is not a run folder, or a file in it is damaged.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    records = read_episodes(folder)
    stored = folder / SUMMARY
    if not stored.is_file():
        return Run(folder, manifest, summarize(records, manifest), records, finished=False)
    try:
        summary = Summary.model_validate_json(stored.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(
            f"{stored} is damaged: remove it, and write it again with: cotbench run --resume {folder}"
        ) from error
    return Run(folder, manifest, summary, records)
