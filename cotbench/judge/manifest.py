"""`manifest.json` of a judge: everything needed to judge again. Invariant: two judges with the same identity are the same
agent, asked the same question about the same run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cotbench.agents.base import Agent, describe_agent
from cotbench.envs.registry import env_entry
from cotbench.errors import RunFolderError
from cotbench.judge.question import Question
from cotbench.runs.manifest import MANIFEST, Manifest, provenance

FORMAT = 1


class JudgeManifest(BaseModel):
    """The record of a judge.

    Attributes:
        judge: its spec; `agent` is what it says of itself.
        identity: what must be the same for it to go on, flat.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    judge: str
    question: Question
    question_fingerprint: str
    agent: dict[str, Any]
    identity: dict[str, Any]
    packages: dict[str, str]
    python: str
    hardware: dict[str, Any]
    git_commit: str | None
    created: str


def read_judge_manifest(folder: Path) -> JudgeManifest:
    """The manifest of a judge's folder.

    Raises:
        RunFolderError: not the folder of a judge, damaged, or written by another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise RunFolderError(f"{folder} holds no judgements to go on with: leave --resume away")
    try:
        manifest = JudgeManifest.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is not the manifest of a judge: choose another --out") from error
    if manifest.format != FORMAT:
        raise RunFolderError(
            f"{path} has format {manifest.format}, this cotbench reads {FORMAT}: use the version that wrote it"
        )
    return manifest


def judge_manifest(run: Manifest, judge: str, question: Question, agent: Agent) -> JudgeManifest:
    """The record of a judge of a run."""
    described = describe_agent(agent)
    # A run's identity leaves out what its agent says of the machine: so let the judge stand in the agent's place.
    as_agent = run.model_copy(update={"agent": described}).identity()
    identity = {
        **{name: value for name, value in as_agent.items() if name.startswith("agent ")},
        **question.elicitation.model_dump(),
        **question.model_dump(exclude={"elicitation"}),
        "judge": judge,
        "question": question.fingerprint,
        "run": _digest(run.identity()),
        "instructions": _digest(env_entry(run.config.env).instructions()),
    }
    return JudgeManifest(
        judge=judge,
        question=question,
        question_fingerprint=question.fingerprint,
        agent=described,
        identity=json.loads(json.dumps(identity)),
        **provenance(),
    )


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
