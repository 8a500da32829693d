"""The folder of a study: the folders of its stages, and the marks of those that are done. Invariant: the mark of a stage is
written after its command has succeeded; a folder holds one study, and one process works on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cotbench.agents.trust import concerns
from cotbench.errors import RunFolderError
from cotbench.json_text import parse_json
from cotbench.plugins import loaded_plugins
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.folder import FolderKind, make_folder, open_folder
from cotbench.study.plan import StudyPlan
from cotbench.study.stage import Stage, StageOutput

STUDY = "study.json"
STUDY_FOLDER = FolderKind(noun="study", writer="cotbench study", manifest=STUDY)
DONE = "done"
LOGS = "logs"

_NO_STEP = 1e-6
"""Steps that are none: what rounding leaves of a share of a training."""


def folder_of(study: Path, stage: Stage) -> Path:
    """Return the folder of a stage."""
    return study / stage.folder


def is_done(study: Path, stage: Stage) -> bool:
    """Return whether a stage has been completed."""
    return mark_of(study, stage).is_file()


def seconds_of(study: Path, stage: Stage) -> float | None:
    """Return the duration of a stage in seconds, over all attempts that it took; None where it is not done."""
    try:
        return float(json.loads(mark_of(study, stage).read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mark_of(study: Path, stage: Stage) -> Path:
    """Return the file whose presence marks a stage as done."""
    return study / DONE / f"{stage.key[:16]}.json"


def checkpoint(training: Path, share: float) -> Path:
    """Return the checkpoint of a training after a share of it: the first one at which that much is done.

    Args:
        training: folder of the training.
        share: of the training, in (0, 1].

    Raises:
        RunFolderError: it is missing, or its card is damaged.
    """
    found: dict[Path, tuple[bool, float]] = {}
    for card in sorted(training.glob("checkpoint-*/recipe.json")):
        try:
            read = json.loads(card.read_text("utf-8"))
            beyond = (float(read["progress"]) - share) * int(read["steps"])
            if abs(beyond) <= int(read.get("save_multiple", 1)):
                found[card.parent] = (beyond < -_NO_STEP, abs(beyond))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{card} is damaged: remove {training}, and the study trains again") from error
    nearest = min(found, key=lambda path: found[path], default=None)
    if nearest is None:
        raise RunFolderError(
            f"{training} has no checkpoint after {share:g} of the training: a checkpoint is missing from the series; "
            f"remove {training}, and the study trains again"
        )
    return nearest


def command_of(study: Path, plan: StudyPlan, stage: Stage) -> list[str]:
    """Return the arguments of `cotbench` that run a stage, or resume it where it was begun.

    Raises:
        RunFolderError: a checkpoint that it uses is missing.
    """
    folder, request = folder_of(study, stage), stage.request
    plugins = [word for name in loaded_plugins() for word in ("--import", name)]

    def fill(output: StageOutput) -> str:
        used = folder_of(study, plan.named(output.stage))
        return str(used if output.checkpoint is None else checkpoint(used, output.checkpoint))

    if (folder / request.begun).is_file():
        trust = ["--trust"] if _names_the_same(folder / request.begun, request.arguments(str)) else []
        return [request.command, "--resume", str(folder), *plugins, *trust]
    return [request.command, *request.arguments(fill), *plugins, "--out", str(folder)]


def _names_the_same(begun: Path, arguments: list[str]) -> bool:
    """Return whether what has to be confirmed in a stage's folder is all in the study's own settings, which are confirmed."""
    try:
        found = concerns(parse_json(begun.read_bytes()))
    except (OSError, ValueError):
        return False
    return bool(found) and set(found) <= set(concerns(arguments))


def begin(study: Path, plan: StudyPlan) -> None:
    """Write the study's settings into its folder, under `only_one`; refuse a folder that holds something else.

    Args:
        study: the study's folder.
        plan: its plan.

    Raises:
        RunFolderError: it is not empty and no study.
    """
    _check(study)
    write_atomically(study / STUDY, [plan.config.model_dump_json(indent=2) + "\n"])
    for name in (DONE, LOGS):
        (study / name).mkdir(exist_ok=True)


@contextmanager
def only_one(study: Path) -> Iterator[None]:
    """Hold the lock of a study's folder, which is made where it is missing.

    Args:
        study: the study's folder.

    Raises:
        RunFolderError: another process works on it, or the folder holds something else.
    """
    with open_folder(study, STUDY_FOLDER, _check):
        yield


def _check(study: Path) -> None:
    if not (study / STUDY).is_file():
        make_folder(study, "choose another --out", "folder of the study")


def log_of(study: Path, stage: Stage) -> Path:
    """Return the log file of a stage's command."""
    return study / LOGS / f"{stage.folder.replace('/', '_')}.log"


def write_mark(study: Path, stage: Stage, took: float) -> None:
    """Mark a stage as done.

    Args:
        study: the study's folder.
        stage: the stage.
        took: seconds.
    """
    record = {"name": stage.name, "folder": stage.folder, "key": stage.key, "command": stage.command, "seconds": round(took, 1)}
    write_atomically(mark_of(study, stage), [json.dumps(record) + "\n"])
