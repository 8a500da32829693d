"""The configuration of a probe, in its folder as `probe_config.json`. Invariant: it is written before anything else is, so that
a measurement that was killed at any moment can be resumed from its folder alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotbench.errors import RunFolderError
from cotbench.flags import ELICITATION, TASKS, Flag
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.atomic_file import write_atomically

CONFIG = "probe_config.json"
MEASUREMENT = "Measurement"
"""The panel of `--help`."""


class ProbeConfig(BaseModel):
    """Probe, agent and states of a measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    probe: Annotated[str, Flag(hidden=True)] = Field(description="name of the probe")
    agent: Annotated[str, Flag(panel=MEASUREMENT)] = Field(description="agent to measure (cotbench list agents)")
    reference: Annotated[str, Flag(panel=MEASUREMENT)] = Field(
        "scripted", description="reference: an agent that wins, or a run folder with CoT episodes"
    )
    states: Annotated[int, Flag(names=("-n",), panel=MEASUREMENT)] = Field(
        200, ge=1, description="number of states, drawn by the seed"
    )
    seed: Annotated[int, Flag(panel=MEASUREMENT)] = Field(
        0, ge=0, description="seed of the draw and pairing of states, and of sampling"
    )
    answers: Annotated[Path | None, Flag(panel=MEASUREMENT)] = Field(
        None, description="folder of an alignment probe whose answers at these states are reused"
    )
    env: Annotated[str | None, Flag(panel=TASKS, default="alfworld-gen")] = Field(
        None, description="name of the environment that a reference agent plays (cotbench list envs)"
    )
    scheme: Annotated[str | None, Flag(panel=TASKS, default="paper")] = Field(
        None, description="split scheme: paper or official"
    )
    split: Annotated[str | None, Flag(panel=TASKS, default="id")] = Field(
        None, description="split of the scheme: id, ood, train, ..."
    )
    options: Annotated[dict[str, str], Flag(hidden=True)] = Field(
        default_factory=dict, description="the probe's own options, as typed"
    )
    elicitation: Annotated[dict[str, Any], Flag(panel=ELICITATION, table=Elicitation)] = Field(
        default_factory=dict, description="elicitation settings that differ from the defaults"
    )

    def absolute(self) -> ProbeConfig:
        """Return a copy with absolute paths, which means the same in every working directory."""
        reference = Path(self.reference)
        return self.model_copy(
            update={
                "reference": str(reference.resolve()) if reference.is_dir() else self.reference,
                "answers": None if self.answers is None else self.answers.resolve(),
            }
        )


def write_config(folder: Path, config: ProbeConfig) -> None:
    """Write the configuration of a probe into its folder, whole or not at all."""
    write_atomically(folder / CONFIG, [config.absolute().model_dump_json(indent=2) + "\n"])


def read_config(folder: Path) -> ProbeConfig | None:
    """Read the configuration of a probe from its folder; None where there is none.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        return ProbeConfig.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged: remove it, and give all options together with --resume") from error
