"""What a recipe is: a way to train. Invariant: everything that the command line, a study or a report needs to know of a recipe
is in its entry; none of them lists recipes.

A recipe turns options into a config (`resolve`), says what a study must compute first (`stages`), what it costs (`cost`), and
trains into a folder with checkpoints and cards (`run`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import isclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cotbench.errors import UnknownNameError, UsageError
from cotbench.registry import Registry, require_kind

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cotbench.envs.registry import TokenSizes

ENTRY_POINTS = "cotbench.recipes"
"""The entry-point group through which an installed package offers recipes."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Values that stand in for a recipe's defaults, by name.

    Attributes:
        description: one line for `cotbench list recipes`.
        models: the models for which it is taken where no preset is named.
    """

    description: str
    values: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Masking:
    """How much reduced action supervision a config asks for.

    Attributes:
        fraction: share of the examples whose action tokens are left out of the loss; 0 is none.
        select: how they are chosen.
        usual: everything else about the masks is as the paper has it.
    """

    fraction: float
    select: str = "random"
    usual: bool = True

    def paper_row(self, method: str, fraction: float) -> str | None:
        """Return the row of the paper's tables: the method without masks, `method+` with the paper's, else None.

        Args:
            method: the paper's name of the training without masks.
            fraction: the paper's.
        """
        if self.fraction == 0:
            return method if self.usual else None
        return f"{method}+" if self == Masking(fraction) else None


@dataclass(frozen=True, slots=True)
class StageNeed:
    """Something that a study computes before a training.

    Attributes:
        stage: "traces": the demonstrations of the study's teacher; "checkpoint": the end of another arm's training; "pairs":
            the teacher's answers beside worse ones, sampled from the end of another arm's training.
        option: the config's field that is given its folder.
        recipe: of a checkpoint, and of pairs: the recipe of the arm that it comes from, or that they are sampled from.
    """

    stage: str
    option: str
    recipe: str = ""


class TrainingResult(Protocol):
    """A finished training."""

    @property
    def folder(self) -> Path:
        """Where the trained model is."""

    @property
    def summary_line(self) -> str:
        """What it came to, in a line."""


class RunRecipe(Protocol):
    """Trains."""

    def __call__(
        self, config: Any, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None
    ) -> TrainingResult:
        """Train into a folder.

        Args:
            config: of the recipe's own config model.
            out: the folder of the trained model: its checkpoints (`checkpoint-N`, each with `recipe.json`) and its card. A
                card's `progress` is the share of the training, of `steps` in all; where checkpoints are written at multiples
                of some steps alone, `save_multiple` says of how many.
            resume: go on from the newest whole checkpoint in `out`.
            progress: makes a callback of transformers that shows how far it is.
        """


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to train.

    Attributes:
        name: what `--recipe` accepts.
        description: one line for `cotbench list recipes`.
        config: the model of its options; the fields' descriptions are the command line's help.
        run: trains.
        cost: (config, an environment's sizes, episodes of training data) -> about how many tokens go through the model.
        presets: by name; the first is the usual one.
        values: what it sets where nothing else is said: `sft+` is `sft` with a mask fraction.
        complete: (options) -> options, with what follows from others filled in.
            Raises UsageError where something is missing.
        stages: (config) -> what a study must compute first.
        arm: whether it can be an arm of a study.
        arm_refusal: (config) -> why a training with these options cannot be an arm of a study; None: it can.
        agent: the registered name of the agent that plays its checkpoints.
        compares_with: the recipe that its arms are compared with; None: the study's first arm.
        masking: (config) -> its reduced action supervision; None where the recipe knows none.
        mask_options: the config's fields that say which examples are masked, when and how much.
        trace_control: (config) -> what stands in for the teacher's own traces: "none", "shuffled", "filler", or "own"; None
            where the recipe always trains on them.
        paper_row: (config) -> the row of the paper's tables that trains the same way, or None.
    """

    name: str
    description: str
    config: type[BaseModel]
    run: RunRecipe
    cost: Callable[[Any, TokenSizes, int], float]
    presets: Mapping[str, Preset] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict
    stages: Callable[[Any], tuple[StageNeed, ...]] = lambda config: (StageNeed("traces", "data"),)
    arm: bool = True
    arm_refusal: Callable[[Any], str | None] = lambda config: None
    agent: str = "hf"
    compares_with: str | None = None
    masking: Callable[[Any], Masking] | None = None
    mask_options: frozenset[str] = frozenset()
    trace_control: Callable[[Any], str] | None = None
    paper_row: Callable[[Any], str | None] = lambda config: None

    def resolve(self, options: Mapping[str, Any], preset: str | None = None) -> Any:
        """Return the config that options ask for: the preset's values, the recipe's own, then the options; the later one wins.

        Args:
            options: by the names of the config's fields.
            preset: a key of `presets`; where none is named, the one that is for `options["model"]`, or the first.

        Raises:
            UnknownNameError: no such preset or option; with near matches.
            UsageError: a value that does not fit, or a missing one.
        """
        values = dict(self.values) | dict(options)
        chosen = self.preset_name(options, preset)
        if chosen is not None:
            values = dict(self.presets[chosen].values) | values
        return validate_config(self.config, self.complete(values))

    def preset_name(self, options: Mapping[str, Any], preset: str | None = None) -> str | None:
        """Return the preset whose values stand in for the defaults; None where the recipe has none.

        Args:
            options: as `resolve` takes them.
            preset: as `resolve` takes it.

        Raises:
            UnknownNameError: no such preset; with near matches.
            UsageError: a preset is named, and the recipe has none.
        """
        if not self.presets:
            if preset is not None:
                raise UsageError(f"recipe {self.name} has no presets: omit --preset {preset}")
            return None
        fitting = (name for name, one in self.presets.items() if options.get("model") in one.models)
        chosen = preset or next(fitting, next(iter(self.presets)))
        if chosen not in self.presets:
            raise UnknownNameError("preset", chosen, self.presets)
        return chosen


def validate_config(model: type[BaseModel], values: Mapping[str, Any]) -> Any:
    """Return a config of these values.

    Args:
        model: the config's model.
        values: by the names of its fields.

    Raises:
        UnknownNameError: no such field; with near matches.
        UsageError: a value that does not fit: names the flag.
    """
    from pydantic import ValidationError

    for name in values:
        if name not in model.model_fields:
            raise UnknownNameError("option", name, model.model_fields, "of this recipe")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + ".".join(map(str, first["loc"])).replace("_", "-")
        raise UsageError(f"{flag} {first['input']}: {first['msg']}") from error


def _check(name: str, recipe: Recipe) -> None:
    """Raise an error for a recipe whose parts are not what they have to be.

    Raises:
        UsageError: names the part.
    """
    from pydantic import BaseModel

    if not (isclass(recipe.config) and issubclass(recipe.config, BaseModel)):
        raise UsageError(f"recipe {name!r}: config is {recipe.config!r}, not a subclass of pydantic's BaseModel")
    for part in ("run", "cost", "complete", "stages", "arm_refusal", "paper_row"):
        if not callable(getattr(recipe, part)):
            raise UsageError(f"recipe {name!r}: {part} is {getattr(recipe, part)!r}, not a function")
    for preset, one in recipe.presets.items():
        if not isinstance(one, Preset):
            raise UsageError(f"recipe {name!r}: preset {preset!r} is a {type(one).__name__}, not a Preset")


_registry: Registry[Recipe] = Registry(
    "recipe",
    ENTRY_POINTS,
    Recipe,
    {
        "sft": "cotbench.baselines.recipes.sft:SFT",
        "sft+": "cotbench.baselines.recipes.sft:SFT_PLUS",
        "dpo": "cotbench.baselines.recipes.dpo:DPO",
        "dpo+": "cotbench.baselines.recipes.dpo:DPO_PLUS",
        "grpo": "cotbench.baselines.recipes.grpo.recipe:GRPO",
        "grpo+": "cotbench.baselines.recipes.grpo.recipe:GRPO_PLUS",
        "frodo": "cotbench.baselines.recipes.frodo:FRODO",
        "base": "cotbench.baselines.recipes.base:BASE",
    },
    _check,
)


def register_recipe(recipe: Recipe) -> Recipe:
    """Make a recipe known by its name; returns it, so that a package's entry point can name it.

    Raises:
        UsageError: the name is taken, or it is no recipe.
    """
    require_kind("recipe", recipe, Recipe)
    _registry.register(recipe.name, recipe)
    return recipe


def recipe_names() -> list[str]:
    """Return the names that `--recipe` accepts."""
    return _registry.names()


def recipe_named(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UnknownNameError: there is none.
    """
    return _registry.get(name)


def agent_of(recipe: str) -> str:
    """Return the registered name of the agent that plays what a recipe trained; `hf` for a recipe that is not known here."""
    return recipe_named(recipe).agent if recipe in recipe_names() else "hf"
