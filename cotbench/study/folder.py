"""The folder of a study: its stages' folders, and what is done. Invariant: a stage is done when its mark is written, after its
command has succeeded; a folder holds one study, and one process works on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cotbench.errors import RunFolderError
from cotbench.plugins import loaded_plugins
from cotbench.runs.folder import FolderKind, make_folder, open_folder
from cotbench.runs.jsonl_store import write_atomically
from cotbench.study.plan import StudyPlan
from cotbench.study.stage import Stage, StageOutput

STUDY = "study.json"
STUDY_FOLDER = FolderKind(noun="study", writer="cotbench study", manifest=STUDY)
DONE = "done"
LOGS = "logs"


def folder_of(study: Path, stage: Stage) -> Path:
    """The folder of a stage."""
    return study / stage.folder


def is_done(study: Path, stage: Stage) -> bool:
    """Whether a stage was carried out."""
    return mark_of(study, stage).is_file()


def seconds_of(study: Path, stage: Stage) -> float | None:
    """How long a stage took, over all sittings of the one that ended it; None where it is not done."""
    try:
        return float(json.loads(mark_of(study, stage).read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mark_of(study: Path, stage: Stage) -> Path:
    """The file that says that a stage is done."""
    return study / DONE / f"{stage.key[:16]}.json"


def checkpoint(training: Path, share: float) -> Path:
    """The checkpoint of a training after a share of it.

    Raises:
        RunFolderError: it is missing from the series.
    """
    found: dict[Path, float] = {}
    for card in sorted(training.glob("checkpoint-*/recipe.json")):
        try:
            read = json.loads(card.read_text("utf-8"))
            found[card.parent] = abs(float(read["progress"]) - share) * int(read["steps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{card} is damaged: remove {training}, and the study trains anew") from error
    near = min(found, key=lambda path: found[path], default=None)
    if near is None or found[near] > 1:
        raise RunFolderError(
            f"{training} has no checkpoint after {share:g} of the training: a checkpoint is missing from the series; "
            f"remove {training}, and the study trains anew"
        )
    return near


def command_of(study: Path, plan: StudyPlan, stage: Stage) -> list[str]:
    """Return the arguments of `cotbench` that carry a stage out, or go on with it where it was begun.

    Raises:
        RunFolderError: a checkpoint that it uses is missing.
    """
    folder, request = folder_of(study, stage), stage.request
    plugins = [word for name in loaded_plugins() for word in ("--import", name)]
    if (folder / request.begun).is_file():
        return [request.command, "--resume", str(folder), *plugins]

    def fill(output: StageOutput) -> str:
        used = folder_of(study, plan.named(output.stage))
        return str(used if output.checkpoint is None else checkpoint(used, output.checkpoint))

    return [request.command, *request.arguments(fill), *plugins, "--out", str(folder)]


def begin(study: Path, plan: StudyPlan) -> None:
    """Write down what the study is, under `only_one`; a folder that holds something else is refused.

    Raises:
        RunFolderError: it is not empty and no study.
    """
    _check(study)
    write_atomically(study / STUDY, [plan.config.model_dump_json(indent=2) + "\n"])
    for name in (DONE, LOGS):
        (study / name).mkdir(exist_ok=True)


@contextmanager
def only_one(study: Path) -> Iterator[None]:
    """Hold the folder of a study, made where it is missing: nobody else works on it meanwhile.

    Raises:
        RunFolderError: somebody does, or the folder holds something else.
    """
    with open_folder(study, STUDY_FOLDER, _check):
        yield


def _check(study: Path) -> None:
    if not (study / STUDY).is_file():
        make_folder(study, "choose another --out", "folder of the study")


def log_of(study: Path, stage: Stage) -> Path:
    """What a stage's command said."""
    return study / LOGS / f"{stage.folder.replace('/', '_')}.log"


def write_mark(study: Path, stage: Stage, took: float) -> None:
    """Write down that a stage is done."""
    record = {"name": stage.name, "folder": stage.folder, "key": stage.key, "command": stage.command, "seconds": round(took, 1)}
    write_atomically(mark_of(study, stage), [json.dumps(record) + "\n"])
