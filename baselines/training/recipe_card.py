"""Record of how a model was trained. Invariant: a folder holds one training; one that was begun otherwise is not resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.envs.splits import digest
from cotbench.errors import UsageError
from cotbench.json_text import parse_json
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.folder import FolderKind, check_identity, make_folder, open_folder

BEGUN = "training.json"
"""File of a training's recipe, config and data, written before it begins."""
CARD = "recipe.json"
"""File of a checkpoint or a trained model that says how it was trained."""
TRAINING_FOLDER = FolderKind(noun="training", writer="cotbench train", manifest=BEGUN)

_IDENTITY = ("recipe", "config", "data", "elicitations")
_BASE = ("weights_sha256", "settings_sha256")
"""What of the model that a training began with must be the same when it is resumed."""

MACHINE_OPTIONS = ("device", "dtype", "threads", "workers", "vllm_gpus", "vllm_args", "logging_steps", "report_to")
"""Options that may differ when a training is resumed."""


def data_card(paths: Sequence[str], demonstrations: Sequence[Demonstration]) -> dict[str, Any]:
    """Return what identifies the data: how many episodes of which environment and teacher, and a sha256 over all of it.

    Args:
        paths: where it was read.
        demonstrations: all of it.
    """
    sha256 = hashlib.sha256()
    for one in demonstrations:
        sha256.update(one.model_dump_json().encode())
    return {
        "paths": list(paths),
        "episodes": len(demonstrations),
        "decisions": sum(len(one.actions) for one in demonstrations),
        "envs": dict(Counter(one.env for one in demonstrations)),
        "teachers": dict(Counter(one.teacher for one in demonstrations)),
        "tasks_sha256": digest(sorted({one.task for one in demonstrations})),
        "sha256": sha256.hexdigest(),
    }


def first_process() -> bool:
    """Tell whether this is the process that writes, among those that a launcher has started."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def training_folder(out: Path, record: dict[str, Any], *, resume: bool) -> Iterator[None]:
    """Hold the folder of a training for as long as it is written to; of several processes the first one does.

    Args:
        out: the folder; made where it is missing. It stays empty until `write_begun`.
        record: recipe, config, data and elicitations of the training.
        resume: go on with the training that is there.

    Raises:
        RunFolderError: it is not empty, holds another training, or another process trains into it.
        UsageError: there is nothing to go on with.
    """
    if not first_process():
        yield
        return
    with open_folder(out, TRAINING_FOLDER, lambda folder: prepare_folder(folder, record, resume=resume)):
        yield


def prepare_folder(out: Path, record: dict[str, Any], *, resume: bool) -> None:
    """Make the folder of a new training, which stays empty until `write_begun`, or check that the one in it is this one.

    Args:
        out: the folder.
        record: recipe, config, data and elicitations of the training.
        resume: go on with the training that is there.

    Raises:
        RunFolderError: it is not empty, or holds another training.
        UsageError: there is nothing to go on with.
    """
    path = out / BEGUN
    if not first_process():
        return
    if not resume:
        hint = f"resume with: cotbench train --resume {out}" if path.is_file() else f"choose another --out, not {out}"
        make_folder(out, hint, "folder of the training")
        return
    before, now = _identity(read_begun(out)), _identity(json.loads(json.dumps(record)))
    check_identity(out, before, now, TRAINING_FOLDER.noun)


def write_begun(out: Path, record: dict[str, Any]) -> None:
    """Write the record of the training, once model and data are known to be fit for it; check the model where there is one.

    Args:
        out: the folder of the training.
        record: recipe, config, data and elicitations of the training, and the model that it begins with.

    Raises:
        RunFolderError: the training was begun with other weights.
    """
    if not first_process():
        return
    if (out / BEGUN).is_file():
        before, now = ({f"base {name}": value for name, value in base.items()} for base in _bases(out, record))
        check_identity(out, before, now, TRAINING_FOLDER.noun)
        return
    write_atomically(out / BEGUN, [json.dumps(record, indent=2) + "\n"])


def _bases(out: Path, record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the digests of the model that the training in a folder began with, and of the one that was loaded now."""
    before, now = read_begun(out).get("base") or {}, record.get("base") or {}
    names = [name for name in _BASE if name in before and name in now]
    return {name: before[name] for name in names}, {name: now[name] for name in names}


def read_begun(out: Path) -> dict[str, Any]:
    """Return the record of the training in a folder, as `write_begun` wrote it.

    Raises:
        UsageError: none was begun there, or the file is damaged.
    """
    path = out / BEGUN
    if not path.is_file():
        raise UsageError(f"{out} holds no training: it has no {BEGUN}")
    try:
        begun = parse_json(path.read_bytes())
        known: dict[str, Any] = {name: begun[name] for name in _IDENTITY}
        return known | dict(begun)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged: remove {out} and start again") from error


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in record["config"].items() if name not in MACHINE_OPTIONS}
    data = record["data"]
    return options | {"recipe": record["recipe"], "elicitations": record["elicitations"], "data_sha256": data.get("sha256")}


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Result of a finished training.

    Attributes:
        folder: of the trained model.
        steps: number of updates of the weights.
        seen: the counts of `loop.train`.
        examples: number of examples trained on.
        too_long: number of decisions left out for their length.
    """

    folder: Path
    steps: int
    seen: dict[str, float]
    examples: int
    too_long: int

    @property
    def summary_line(self) -> str:
        """Size of the training, in a line."""
        long = f" ({self.too_long} more are too long)" if self.too_long else ""
        masked = f", {self.seen['masked_share']:.1%} of the action tokens masked" if self.seen.get("masked_share") else ""
        return f"trained {self.steps} steps on {self.examples} examples{long}, {self.seen['tokens']:.0f} tokens{masked}"
