"""Resolution of options to a recipe's config. Invariant: preset, file and flags, in this order, the later one wins; a resumed
training keeps the options it was begun with.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cotbench.baselines.training.recipe_card import MACHINE_OPTIONS, read_begun
from cotbench.errors import RunFolderError, UsageError
from cotbench.recipes import Recipe, TrainingResult, recipe_named, validate_config

DEFAULT = "sft"
"""Name of the default recipe."""


@dataclass(frozen=True, slots=True)
class RecipePlan:
    """Recipe with its resolved config."""

    recipe: Recipe
    config: BaseModel


def resolve_config(
    recipe: str | None, preset: str | None, file: Path | None, given: dict[str, Any], begun: Path | None
) -> RecipePlan:
    """Return the recipe to run, with its config.

    Args:
        recipe: its name; None: that of the file or of the begun training, else `sft`.
        preset: a preset of the recipe.
        file: a TOML file of options.
        given: options of the command line, or of the caller.
        begun: the folder of a training that is resumed.

    Raises:
        UsageError: a value that does not fit, a file that cannot be read, an option that contradicts what was begun.
    """
    if begun is not None:
        return _as_begun(begun, recipe, given)
    written = {} if file is None else _read(file)
    named = recipe_named(str(recipe or written.pop("recipe", None) or DEFAULT))
    written.pop("recipe", None)
    chosen = written.pop("preset", None)
    return RecipePlan(named, named.resolve(written | given, preset or chosen))


def _as_begun(folder: Path, recipe: str | None, given: dict[str, Any]) -> RecipePlan:
    begun = read_begun(folder)
    stored = recipe_named(begun["recipe"])
    if recipe is not None and recipe_named(recipe).run is not stored.run:
        raise RunFolderError(f"{folder} holds recipe {begun['recipe']}, not {recipe}: omit the option")
    before = validate_config(stored.config, begun["config"])
    after = validate_config(stored.config, begun["config"] | given)
    for name, value in after.model_dump().items():
        if value != getattr(before, name) and name not in MACHINE_OPTIONS:
            raise RunFolderError(
                f"{folder} holds another training: its {name} is {getattr(before, name)!r}, not {value!r}; "
                "omit the option, or choose another --out"
            )
    return RecipePlan(stored, after)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file} is not TOML: {error}") from error


def run_recipe(plan: RecipePlan, out: Path, *, resume: bool, progress: Callable[[], Any] | None) -> TrainingResult:
    """Run the recipe of a plan and return its result; see `RunRecipe`.

    Args:
        plan: the recipe and its config.
        out: the folder of the trained model.
        resume: go on from the newest whole checkpoint in `out`.
        progress: makes a callback of transformers that shows how far it is.
    """
    return plan.recipe.run(plan.config, out, resume=resume, progress=progress)
