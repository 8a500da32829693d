"""A piece of a study's work. Invariant: a stage is one command line of cotbench and the folder that it fills; its key is a hash
of the command and of the keys of what it uses, so what has not changed is never computed twice, and a change reaches exactly
what depends on it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["reference", "traces", "train", "run", "probe"]

FORMAT = 1
"""Goes up when what a command computes has changed: then every stage is computed anew."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a stage is of, for whoever collects the numbers.

    Attributes:
        arm, seed: None for the model before training, and for what is not of a model.
        progress: share of the training; 0 before it.
        probe: its name, where the stage is a probe.
        measure: which of the study's runs or probes it is, by its place there.
    """

    env: str
    model: str | None = None
    arm: str | None = None
    seed: int | None = None
    progress: float | None = None
    split: str | None = None
    probe: str | None = None
    measure: int | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One command line.

    Attributes:
        name: unique, a path: "train/sft-seed0".
        command: arguments of `cotbench`, without the folder. `{NAME}` stands for the folder of stage NAME, `{NAME@0.5}` for the
            checkpoint after half of that training.
        uses: the names of the stages in it.
        key: see the module.
        tokens: about how many tokens a model computes, read and written.
        trained: whether it learns from them.
    """

    name: str
    kind: Kind
    command: tuple[str, ...]
    uses: tuple[str, ...]
    key: str
    place: Place
    tokens: float = 0.0
    trained: bool = False

    @property
    def agent(self) -> str | None:
        """Who is measured, as the command names it."""
        words = dict(zip(self.command, self.command[1:], strict=False))
        return words.get("--agent") if self.kind in ("run", "probe") else None

    @property
    def folder(self) -> str:
        """Where it is, under the study's folder."""
        return f"{self.name}-{self.key[:8]}"


_USED = re.compile(r"\{([\w+./-]+)(?:@([\d.]+))?\}")


def used(command: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the stages that a command uses."""
    return tuple(dict.fromkeys(match[1] for text in command for match in _USED.finditer(text)))


def stage(
    name: str,
    kind: Kind,
    command: tuple[str, ...],
    place: Place,
    before: Mapping[str, Stage],
    *,
    tokens: float = 0.0,
    trained: bool = False,
) -> Stage:
    """A stage with its key; `before` has the stages that it may use."""
    uses = used(command)
    keyed = [_USED.sub(lambda match: before[match[1]].key + (f"@{match[2]}" if match[2] else ""), text) for text in command]
    key = hashlib.sha256(json.dumps([FORMAT, kind, keyed]).encode()).hexdigest()
    return Stage(name, kind, command, uses, key, place, tokens, trained)


def arguments(stage: Stage, folder_of: Callable[[str], Path], checkpoint_of: Callable[[Path, float], Path]) -> list[str]:
    """The command's arguments, with folders in the places of names.

    Args:
        stage: whose.
        folder_of: the folder of a stage, by its name.
        checkpoint_of: the checkpoint of a training's folder, by its share.
    """

    def put(match: re.Match[str]) -> str:
        folder = folder_of(match[1])
        return str(checkpoint_of(folder, float(match[2])) if match[2] else folder)

    return [_USED.sub(put, text) for text in stage.command]
