"""`cotbench train`: train a model on traces, with or without reduced action supervision.

The options are those of the recipe that the arguments name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from cotbench.baselines.recipes.choice import RecipeChoice
from cotbench.cli.flags import Import, Resume, Typed, with_options
from cotbench.cli.terminal import echo, echo_json
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import MODEL, OUTPUT


def make_command(arguments: list[str]) -> Callable[..., int]:
    """Return the command with the options of one recipe: the one of `--recipe`, or of the file of `--config`, or of the
    training in the folder of `--resume`; else the usual one.

    Args:
        arguments: of the command line, after `train`; the plugins that they name are loaded.

    Raises:
        UnknownNameError: there is no such recipe.
        UsageError: a plugin that cannot be loaded.
    """
    from cotbench.plugins import load_plugins

    load_plugins(_values(arguments, "--import"))
    config = recipe_config(_recipe_of(arguments))

    @with_options(RecipeChoice, config)
    def train(
        typed: Typed,
        *,
        option: Annotated[
            list[str] | None,
            typer.Option(
                "--option",
                "-o",
                metavar="NAME=VALUE",
                help="An option of the recipe, written as in TOML; may be repeated",
                rich_help_panel=MODEL,
            ),
        ] = None,
        out: Annotated[Path | None, typer.Option(help="Folder of the trained model", rich_help_panel=OUTPUT)] = None,
        resume: Resume = None,
        import_: Import = None,
        trust: Trust = False,
        json_: Annotated[bool, typer.Option("--json", help="Print the recipe card instead", rich_help_panel=OUTPUT)] = False,
    ) -> int:
        """Train a model on traces: checkpoints are loaded as hf:OUT/checkpoint-N, the last state as hf:OUT."""
        given = options_of(option or [])
        tables = {name: {**given[name], **value} for name, value in typed[config].items() if isinstance(given.get(name), dict)}
        return _train(typed[RecipeChoice], given | typed[config] | tables, (out, resume), import_ or [], trust, json_)

    return train


def recipe_config(name: str | None) -> type[BaseModel]:
    """Return the config model of a recipe.

    Args:
        name: None: of the usual recipe.

    Raises:
        UnknownNameError: there is no such recipe.
    """
    from cotbench.baselines.recipes.resolve import DEFAULT
    from cotbench.recipes import recipe_named

    return recipe_named(name or DEFAULT).config


def _recipe_of(arguments: list[str]) -> str | None:
    """Return the recipe that the arguments name; None also where a file cannot be read: the command reports that when it
    runs.
    """
    import json
    import tomllib
    from contextlib import suppress

    from cotbench.cli.resume import RESUME_OUT

    named = _values(arguments, "--recipe")
    if named:
        return named[-1]
    with suppress(OSError, ValueError, LookupError, TypeError):
        return str(tomllib.loads(Path(_values(arguments, "--config")[-1]).read_text("utf-8"))["recipe"])
    with suppress(OSError, ValueError, LookupError, TypeError):
        resumed = _values(arguments, "--resume")[-1]
        folder = Path(_values(arguments, "--out")[-1] if resumed == RESUME_OUT else resumed)
        return str(json.loads((folder / "training.json").read_text("utf-8"))["recipe"])
    return None


def _values(arguments: list[str], name: str) -> list[str]:
    """Return all values of an option, before the command line is parsed."""
    following = [value for word, value in pairwise(arguments) if word == name]
    return following + [word.removeprefix(f"{name}=") for word in arguments if word.startswith(f"{name}=")]


def _train(
    choice: dict[str, Any],
    given: dict[str, Any],
    where: tuple[Path | None, str | None],
    imports: list[str],
    trust: bool,
    as_json: bool,
) -> int:
    from cotbench.baselines.recipes.require import require_training
    from cotbench.cli.resume import resume_command, resume_folder
    from cotbench.errors import UsageError

    begun = resume_folder(where[1], where[0])
    target = begun or where[0]
    if target is None:
        raise UsageError("--out is missing: the folder of the trained model")
    require_training()
    from cotbench.api.training import play_tiny_episodes
    from cotbench.baselines.recipes import resolve
    from cotbench.baselines.training.recipe_card import CARD, first_process
    from cotbench.cli.progress import progress as watch

    plan = resolve.resolve_config(choice.get("recipe"), choice.get("preset"), choice.get("config"), given, begun)
    config = plan.config.model_dump(mode="json")
    if begun is not None:
        confirm(config, begun, typed=given, trust=trust)
    again = resume_command("train", target, imports, config=config)
    try:
        play_tiny_episodes(plan, partial(watch, quiet=as_json))
        trained = resolve.run_recipe(plan, target, resume=begun is not None, progress=progress(quiet=as_json))
    except KeyboardInterrupt:
        return _print_interrupted(target, again)
    if not first_process():
        return 0
    if as_json:
        echo_json((target / CARD).read_text("utf-8"), nl=False)
    else:
        echo(trained.summary_line)
        echo(f"play it with: cotbench run --agent {plan.recipe.agent}:{_loadable_path(target)}")
    return 0


def _print_interrupted(target: Path, again: str) -> int:
    """Print after which step the training goes on, in the first of several processes; return the exit code."""
    from cotbench.baselines.training.recipe_card import TRAINING_FOLDER, first_process
    from cotbench.baselines.training.trainer import saved_steps
    from cotbench.cli.interruption import INTERRUPTED
    from cotbench.cli.resume import print_interrupted

    if not first_process():
        return INTERRUPTED
    return print_interrupted(_saved(target, saved_steps(target)), again, target / TRAINING_FOLDER.manifest)


def _saved(target: Path, steps: Mapping[Path, int]) -> str:
    """Return which state of a training was saved; of several models that are trained in folders of their own, each one's."""
    if target in steps:
        return f"its state after step {steps[target]} was saved"
    parts = " and ".join(f"after step {step} in {folder}" for folder, step in steps.items())
    return f"its state was saved {parts}" if parts else "no step was saved"


def options_of(options: list[str]) -> dict[str, Any]:
    """Parse options as TOML; a value that is no TOML is a text.

    Args:
        options: texts NAME=VALUE.

    Raises:
        UsageError: a text of another form.
    """
    import tomllib

    from cotbench.errors import UsageError

    found: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"--option {text}: write it as NAME=VALUE, such as betas=[0.9,0.95]")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except (tomllib.TOMLDecodeError, KeyError):
            found[name.strip()] = value
    return found


def _loadable_path(target: Path) -> str:
    return str(target) if str(target).startswith((".", "/", "~")) else f"./{target}"


def progress(*, quiet: bool) -> Any:
    """Return the class of the callback that shows the progress of a training on standard error; None where nothing is to be
    shown.
    """
    import sys

    if quiet and not sys.stderr.isatty():
        return None
    from cotbench.cli.train_progress import ProgressCallback

    return ProgressCallback
