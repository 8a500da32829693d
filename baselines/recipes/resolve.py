"""From what was typed to what is trained. Invariant: preset, file and flags, in this order, the later one wins; a training
that goes on is asked to do what it was begun with.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cotbench.baselines.recipes import RECIPES, sft

from cotbench.baselines.recipes import sft_config
from cotbench.baselines.tiny.demonstrations import TINY_DATA
from cotbench.baselines.tiny.model import build_base
from cotbench.baselines.tiny.base_config import BaseConfig
from cotbench.baselines.training import recipe_card
from cotbench.baselines.training.recipe_card import MACHINE_OPTIONS, read_begun
from cotbench.errors import RunFolderError, UnknownNameError, UsageError

_PLUS = "sft+"
_BASE = "base"


@dataclass(frozen=True, slots=True)
class RecipePlan:
    """A recipe and its options."""

    recipe: str
    config: BaseModel


def resolve_config(
    recipe: str | None, preset: str | None, file: Path | None, given: dict[str, Any], begun: Path | None
) -> RecipePlan:
    """What is to be trained.

    Args:
        recipe: `sft`, `sft+` or `base`; None: what the file or the begun training says, else `sft`.
        preset: a key of `sft.PRESETS`.
        file: a TOML file of options.
        given: options that were typed.
        begun: the folder of a training that goes on.

    Raises:
        UsageError: a value that does not fit, a file that cannot be read, an option that contradicts what was begun.
    """
    if begun is not None:
        return _as_begun(begun, recipe, given)
    told = {} if file is None else _read(file)
    written = told.pop("recipe", None)
    name = recipe or written or sft.NAME
    if name not in RECIPES:
        raise UnknownNameError("recipe", str(name), RECIPES)
    if name == _BASE:
        return RecipePlan(_BASE, _checked(BaseConfig, told | given))
    named = told.pop("preset", None)
    preset = preset or named or ("tiny" if (told | given).get("model") == "tiny" else "paper")
    if preset not in sft.PRESETS:
        raise UnknownNameError("preset", preset, sft.PRESETS)
    plus = {"mask_fraction": sft.PLUS} if name == _PLUS else {}
    values = sft.PRESETS[preset] | plus | told | given
    if values.get("model") == "tiny" and "data" not in values:
        values["data"] = (TINY_DATA,)
    if "model" not in values:
        raise UsageError("--model is missing: what is to be trained, such as tiny, smollm2, qwen, or a folder")
    if "data" not in values:
        raise UsageError("--data is missing: make traces with cotbench traces --out DIR, then --data DIR")
    return RecipePlan(sft.NAME, _checked(sft_config.SFTConfig, values))


def _as_begun(folder: Path, recipe: str | None, given: dict[str, Any]) -> RecipePlan:
    begun = read_begun(folder)
    model: type[BaseModel] = BaseConfig if begun["recipe"] == _BASE else sft_config.SFTConfig
    if recipe is not None and recipe.removesuffix("+") != begun["recipe"]:
        raise RunFolderError(f"{folder} holds recipe {begun['recipe']}, not {recipe}: leave the option away")
    before = _checked(model, begun["config"])
    after = _checked(model, begun["config"] | given)
    for name, value in after.model_dump().items():
        if value != getattr(before, name) and name not in MACHINE_OPTIONS:
            raise RunFolderError(
                f"{folder} holds another training: its {name} is {getattr(before, name)!r}, not {value!r}; "
                "leave the option away, or choose another --out"
            )
    return RecipePlan(begun["recipe"], after)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file} is not TOML: {error}") from error


def _checked(model: type[BaseModel], values: dict[str, Any]) -> Any:
    for name in values:
        if name not in model.model_fields:
            raise UnknownNameError("option", name, model.model_fields, "of this recipe")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + ".".join(map(str, first["loc"])).replace("_", "-")
        raise UsageError(f"{flag} {first['input']}: {first['msg']}") from error


def run_recipe(plan: RecipePlan, out: Path, *, resume: bool, progress: Callable[[], Any] | None) -> recipe_card.TrainingResult:
    """Train."""
    if isinstance(plan.config, BaseConfig):
        return build_base(plan.config, out, resume=resume, progress=progress)
    config = plan.config
    if not isinstance(config, sft_config.SFTConfig):
        raise TypeError(f"no recipe takes a {type(config).__name__}")
    return sft.train(config, out, resume=resume, progress=progress)
