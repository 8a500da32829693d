"""Config of `cotbench traces`. Invariant: what is played is a `RunConfig` in mode cot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cotbench.flags import OUTPUT, TASKS, Flag
from cotbench.runs.manifest import RunConfig


class TracesConfig(RunConfig):
    """Demonstrations by a teacher: the run that is played, and how its successful episodes are stored."""

    agent: Annotated[str, Flag(name="--teacher", panel=TASKS)] = Field(
        "scripted", description="spec of the teacher: scripted, expert-fill:AGENT or any agent (cotbench list agents)"
    )
    split: Annotated[str, Flag(panel=TASKS)] = Field("train", description="split of the scheme; must not be a scored one")
    mode: Annotated[Literal["prompt", "cot", "both"], Flag(hidden=True)] = Field("cot", description="always cot")
    expert_actions: Annotated[bool | None, Flag(hidden=True)] = Field(None, description="recorded where that is free")
    parquet: Annotated[bool, Flag(panel=OUTPUT)] = Field(False, description="also write traces.parquet")
    tokens: Annotated[str | None, Flag(panel=OUTPUT, metavar="MODEL")] = Field(
        None, description="also write the token ids and labels of each decision for this model (tokens.jsonl), as in training"
    )
    decodability: Annotated[Path | None, Flag(panel=OUTPUT)] = Field(
        None,
        description="play nothing: measure the decodability of existing traces (a folder, .jsonl or .parquet)",
    )
    source: Annotated[Path | None, Flag(name="--from", panel=OUTPUT)] = Field(
        None, description="play nothing: convert this traces folder, .jsonl or .parquet file to the file of --out"
    )
