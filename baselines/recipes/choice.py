"""Choice of the recipe that `cotbench train` runs. Invariant: preset, file and flags, in this order, the later one wins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cotbench.flags import MODEL, Flag


class RecipeChoice(BaseModel):
    """Recipe, and where its options come from; the recipe's own config is beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Annotated[str | None, Flag(panel=MODEL, default="sft")] = Field(
        None, description="name of the recipe (cotbench list recipes); --recipe NAME --help shows its options"
    )
    preset: Annotated[str | None, Flag(panel=MODEL, default="tiny for --model tiny, else paper")] = Field(
        None, description="set of defaults (cotbench list recipes)"
    )
    config: Annotated[Path | None, Flag(panel=MODEL, metavar="FILE.toml")] = Field(
        None, description="TOML file with the same options; the command line overrides it"
    )
