"""What each arm of a study trains with, and which arm's end it begins from. Invariant: pure functions of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cotbench.errors import UnknownNameError, UsageError
from cotbench.recipes import Recipe, StageNeed, recipe_named
from cotbench.study.config import Arm, StudyConfig

LEARNING = frozenset(
    (
        *("epochs", "max_steps", "learning_rate", "batch_size", "unit", "lr_schedule", "warmup", "weight_decay", "betas"),
        *("ema_decay", "max_grad_norm", "traces", "match_compute"),
    )
)
"""Options of `[train]` that hold for arms that begin with the study's model alone: how far a model is from what it shall learn,
and in what units the loss is, differs too much between recipes for one learning rate."""


def recipe_of(arm: Arm) -> Recipe:
    """Return an arm's recipe.

    Raises:
        UsageError: it cannot be an arm of a study.
    """
    recipe = recipe_named(arm.recipe)
    if not recipe.arm:
        raise UsageError(f"arm {arm.name}: recipe {arm.recipe} cannot be an arm of a study")
    return recipe


def arm_config(config: StudyConfig, model: str, arm: Arm) -> Any:
    """Return what an arm trains with: its recipe's config, with names of stages where folders are not known yet.

    Raises:
        UsageError: the recipe takes no such option, or no such value of it; names the arm.
    """
    options = arm_options(config, next(iter(config.envs)), model, arm, config.seeds[0])
    return _resolved(arm, options)


def arm_options(config: StudyConfig, env: str, model: str, arm: Arm, seed: int) -> dict[str, Any]:
    """Return the options of an arm's training, `preset` among them; what a study sets for all recipes where they know it.

    Of `[train]`, an arm that begins from another arm's end takes what its recipe knows, without `LEARNING`; any other arm all.

    Args:
        config: the study.
        env: name of the environment.
        model: the study's model.
        arm: the arm.
        seed: of the training.

    Raises:
        UsageError: the recipe takes no such option, or no such value of it; names the arm.
    """
    known = recipe_of(arm).config.model_fields
    usual: dict[str, Any] = {
        "model": model,
        "env": env,
        "scheme": config.scheme,
        "seed": seed,
        "checkpoints": tuple(share for share in config.checkpoints if share > 0),
        "elicitation": config.elicitation_of(config.elicited_as(arm.name)) or None,
        "threads": config.threads,
    }
    usual = {name: one for name, one in usual.items() if one is not None and name in known}
    shared = {name: one for name, one in config.train.items() if name == "preset" or (name in known and name not in LEARNING)}
    options = {**shared, **arm.options, **usual}
    if any(need.stage == "checkpoint" for need in recipe_of(arm).stages(_resolved(arm, options))):
        return options
    return {**config.train, **arm.options, **usual}


def start_of(config: StudyConfig, arm: Arm, need: StageNeed, seed: int | None = None) -> Arm:
    """Return the arm from whose end another one begins, or is sampled: the first of the recipe.

    Args:
        config: the study.
        arm: the arm that begins there.
        need: what its recipe says that it needs.
        seed: of the training; None: any.

    Raises:
        UsageError: there is none, it is not trained with the seed, or it stands behind the other.
    """
    first = next((one for one in config.arms if one.recipe == need.recipe), None)
    if first is None:
        raise UsageError(f"this study has no arm of recipe {need.recipe}, from which another begins: add one")
    if seed is not None and seed not in first.seeds_of(config.seeds):
        raise UsageError(f"arm {first.name} is not trained with seed {seed}, from which another arm begins: add it there")
    if config.arms.index(first) > config.arms.index(arm):
        raise UsageError(f"arm {arm.name} begins from arm {first.name}: put it behind that one")
    return first


def starts(config: StudyConfig) -> Mapping[str, str]:
    """Return arm -> the arm from whose end it begins, for the arms that begin so.

    Args:
        config: the study.
    """
    found: dict[str, str] = {}
    for arm in config.arms:
        for need in recipe_of(arm).stages(arm_config(config, config.models[0], arm)):
            if need.stage == "checkpoint":
                found[arm.name] = start_of(config, arm, need).name
    return found


def _resolved(arm: Arm, options: Mapping[str, Any]) -> Any:
    rest = dict(options)
    preset = rest.pop("preset", None)
    recipe = recipe_of(arm)
    if "data" in recipe.config.model_fields:
        rest.setdefault("data", ("traces",))
    try:
        found = recipe.resolve(rest, preset)
    except UnknownNameError:
        raise
    except UsageError as error:
        raise UsageError(f"arm {arm.name}: {error}") from error
    refusal = recipe.arm_refusal(found)
    if refusal is not None:
        raise UsageError(f"arm {arm.name}: {refusal}")
    return found
