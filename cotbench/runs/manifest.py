"""`manifest.json`: everything needed to play a run again. Invariant: two runs with the same `identity` ask the same agent the
same questions about the same tasks; fields that may differ between repetitions (time, machine) are not part of the identity.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotbench.envs.registry import EnvEntry, env_entries, env_entry
from cotbench.errors import RunFolderError
from cotbench.flags import ELICITATION, EXECUTION, TASKS, Flag
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs import line_digest
from cotbench.runs.folder import FolderKind

MANIFEST = "manifest.json"
SUITE = "suite.json"
"""The file that takes the manifest's place in a folder of several runs."""
RUN_FOLDER = FolderKind(noun="run", writer="cotbench run", manifest=MANIFEST)
FORMAT = line_digest.FORMAT
FORMATS = (1, FORMAT)
"""Formats that are read. The lines of `episodes.jsonl` carry digests since 2 (`line_digest`)."""
_GIT_SECONDS = 30.0
_PACKAGES = (
    "cotbench",
    "gymnasium",
    "numpy",
    "scipy",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "bitsandbytes",
    "openai",
    "tenacity",
    "vllm",
)
"""Packages whose versions are recorded, beside those of the environments (`EnvEntry.packages`)."""

MACHINE_FIELDS = ("device", "torch_threads")
"""Fields of an agent's description that belong to the machine: a run may be resumed on another one."""


class RunConfig(BaseModel):
    """The settings of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: Annotated[str, Flag(panel=TASKS)] = Field(
        description="spec of the agent: hf:MODEL, random, ... (cotbench list agents)"
    )
    env: Annotated[str, Flag(panel=TASKS)] = Field("alfworld-gen", description="name of the environment (cotbench list envs)")
    scheme: Annotated[str, Flag(panel=TASKS)] = Field("paper", description="split scheme: paper or official")
    split: Annotated[str, Flag(panel=TASKS)] = Field("id", description="split of the scheme: id, ood, train, ...")
    mode: Annotated[Literal["prompt", "cot", "both"], Flag(panel=TASKS)] = Field("both", description="modes to play")
    episodes: Annotated[
        int | None, Flag(names=("--limit", "-n"), panel=TASKS, default="all; of large generated splits the first 120")
    ] = Field(None, ge=1, description="number of tasks, drawn by the seed")
    tasks: Annotated[tuple[str, ...] | None, Flag(name="--task", panel=TASKS)] = Field(
        None, description="id of a task to play instead of drawing from the split; may be repeated"
    )
    samples: Annotated[int, Flag(panel=TASKS)] = Field(
        1,
        ge=1,
        le=1000,
        description="episodes of each task and mode, each with its own sampling seed; the table then has pass@k",
        exclude_if=lambda value: value == 1,
    )
    seed: Annotated[int, Flag(panel=TASKS)] = Field(0, ge=0, description="seed of the draw of tasks and of sampling")
    max_steps: Annotated[int | None, Flag(panel=TASKS, default="the environment's")] = Field(
        None, ge=1, description="step budget of an episode"
    )
    available_only: Annotated[bool, Flag(panel=TASKS)] = Field(
        False, description="play the tasks of an incomplete split that are on this machine; marked as partial"
    )
    expert_actions: Annotated[bool | None, Flag(panel=EXECUTION, default="where that is free")] = Field(
        None, description="record the expert's action at every state"
    )
    expert: Annotated[str | None, Flag(panel=EXECUTION, default="one that steps in anywhere")] = Field(
        None,
        description=(
            "whose actions are recorded as the expert's: seen or walkthrough (alfworld), resume or turn (bfcl); agent expert "
            "follows it"
        ),
        exclude_if=lambda value: value is None,
    )
    elicitation: Annotated[Elicitation, Flag(panel=ELICITATION)] = Field(
        default_factory=lambda given: Elicitation.for_env(given["env"]), description="elicitation of the answers"
    )


def is_true(value: object) -> bool:
    """Return whether a value is True: for fields that are left out of JSON then."""
    return value is True


class Manifest(BaseModel):
    """The record of a run.

    Attributes:
        dialect: how the data spell actions, where there are several ways (`EnvEntry.dialects`); empty: the environment's own.
        expert: whose actions were recorded (`EnvEntry.experts`); empty where none were, or the environment has one expert.
        uses_elicitation: whether the agent says that it asks and reads as the elicitation says; left out of JSON where True.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    config: RunConfig
    elicitation_fingerprint: str
    instructions_sha256: str
    task_list: tuple[str, ...]
    task_list_sha256: str
    split_tasks: int
    partial: bool
    data: dict[str, str]
    dialect: str = ""
    expert: str = ""
    agent: dict[str, Any]
    packages: dict[str, str]
    python: str
    hardware: dict[str, Any]
    git_commit: str | None
    created: str
    uses_elicitation: bool = Field(True, exclude_if=is_true)

    @property
    def has_digests(self) -> bool:
        """Whether the lines of the run's episodes carry digests."""
        return self.format >= line_digest.FORMAT

    @property
    def played_dialect(self) -> str:
        """The dialect in which the run was played: the environment's own, where none was recorded yet."""
        return self.dialect or env_entry(self.config.env).own_dialect

    @property
    def entry(self) -> EnvEntry:
        """The environment, in the dialect of the run's data."""
        return env_entry(self.config.env).in_dialect(self.dialect)

    def identity(self) -> dict[str, Any]:
        """Return the fields that must be equal for a run to be resumed, as a flat dictionary.

        The dialect is told by the data, and the expert stays the one that the run began with.
        """
        fields = self.config.model_dump(mode="json", exclude={"elicitation"})
        fields |= {
            "elicitation": self.elicitation_fingerprint,
            "instructions": self.instructions_sha256,
            "task_list": self.task_list_sha256,
        }
        fields |= {f"data {name}": value for name, value in self.data.items()}
        return fields | agent_identity(self.agent)


def agent_identity(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an agent's description must be equal for work to be resumed, by names that begin with "agent".

    What it says of a second model, as agent frodo does of its writer, has that model's name before it.

    Args:
        described: the description, as manifests have it.
    """
    found: dict[str, Any] = {}
    for name, value in described.items():
        if isinstance(value, Mapping):
            found |= {f"agent {name} {one}": field for one, field in value.items() if one not in MACHINE_FIELDS}
        elif name not in MACHINE_FIELDS:
            found[f"agent {name}"] = value
    return found


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a run folder.

    Raises:
        RunFolderError: not a run folder, damaged, or written by another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no {MANIFEST}")
    try:
        manifest = Manifest.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(map(str, first["loc"])) or "file"
        raise RunFolderError(f"{path} is not the manifest of a cotbench run ({place}: {first['msg']})") from error
    if manifest.format not in FORMATS:
        raise RunFolderError(
            f"{path} has format {manifest.format}, this cotbench reads {FORMATS[0]} to {FORMAT}: use the version that wrote it"
        )
    return manifest


def provenance() -> dict[str, Any]:
    """Return packages, Python, hardware, commit and time, as fields of a manifest."""
    packages = {}
    for name in dict.fromkeys((*_PACKAGES, *(name for entry in env_entries() for name in entry.packages))):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "packages": packages,
        "python": platform.python_version(),
        "hardware": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        },
        "git_commit": _git_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    """Return the commit of the checkout that cotbench runs from; None when it was installed from a package."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
