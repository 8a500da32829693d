"""Command-line options from config models. Invariant: an option's name, type, default and help are in the model's field alone;
an option that was not typed is not passed to the command, so a default is never taken for a value that was typed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer
from pydantic import BaseModel

from cotbench.errors import UsageError
from cotbench.flags import ELICITATION, OUTPUT, Option, by_field, options_of, read_value
from cotbench.plugins import load_plugins

Typed: TypeAlias = Mapping[type[BaseModel], dict[str, Any]]
"""Typed values by model and field; a nested model's fields are in a dict of their own."""

_METAVARS = {int: "INT", float: "FLOAT", Path: "PATH", str: "TEXT"}


def with_options(*models: type[BaseModel], without: tuple[str, ...] = ()) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator that gives a command the options of models.

    Args:
        models: config models; the command's first parameter is the typed values (`Typed`).
        without: names of fields that are no options of this command.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        options = {
            f"{model.__name__}_{'_'.join(option.path)}": (model, option)
            for model in models
            for option in options_of(model, without)
        }
        hints = get_type_hints(command, include_extras=True)
        own = list(inspect.signature(command).parameters.values())[1:]

        def run(**values: Any) -> int:
            found: dict[type[BaseModel], list[tuple[Option, Any]]] = {model: [] for model in models}
            for name, (model, option) in options.items():
                value = values.pop(name)
                if values.pop(f"no_{name}", None):
                    if value:
                        raise UsageError(f"{option.name} and {option.negative} contradict: omit one")
                    value = False
                if value is not None and value != []:
                    found[model].append((option, read_value(option, value)))
            return command({model: by_field(some) for model, some in found.items()}, **values)

        before = [parameter for parameter in own if parameter.kind is not parameter.KEYWORD_ONLY]
        after = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
        option_parameters = [
            inspect.Parameter(prefix + name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, (_, option) in options.items()
            for prefix, annotation in typer_options(option).items()
        ]
        parameters = [
            *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name]) for one in before),
            *option_parameters,
            *(one.replace(annotation=hints[one.name]) for one in after),
        ]
        wrapper: Any = run
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__signature__ = inspect.Signature(parameters, return_annotation=int)
        wrapper.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": int}
        return run

    return decorate


def typer_options(option: Option) -> dict[str, Any]:
    """Return the annotations of the parameters that an option is read by; each is None where it was not typed.

    A `--no-` form is a parameter of its own, by the prefix "no_", hidden and named in the help of the first: a column of
    `--help` with the few such forms would leave no room for the descriptions.
    """
    flag = option.flag
    about: dict[str, Any] = {"help": _help(option), "rich_help_panel": option.panel or None}
    if option.annotation is not bool:
        metavar = flag.metavar or _METAVARS.get(option.annotation, "TEXT")
        kind: Any = list[str] | None if option.many and not flag.joined else str | None
        return {"": Annotated[kind, typer.Option(option.name, *flag.names, metavar=metavar, **about)]}
    found: dict[str, Any] = {"": Annotated[bool | None, typer.Option(option.name, *flag.names, **about)]}
    if option.open:
        found["no_"] = Annotated[bool | None, typer.Option(option.negative, hidden=True)]
    return found


def _help(option: Option) -> str:
    """Return help in rich's markup; typer's own form of a default that is not the parameter's adds brackets to brackets."""
    text = _capitalised(option.help) + (f" (or {option.negative})" if option.open else "")
    return text.replace("[", "\\[") + (f" [dim]\\[default: {option.default}][/dim]" if option.default else "")


def _capitalised(text: str) -> str:
    """Return a help text with a capital, as the options of the commands themselves have it; not where a value comes first."""
    return text if re.match(r"[\w-]+[:,] ", text) else text[:1].upper() + text[1:]


def field_option(model: type[BaseModel], field: str, panel: str = "") -> Any:
    """Return the annotation of a parameter that is a field's option, for a command that lists its own.

    Args:
        model: the config model.
        field: the name of the field.
        panel: the panel of `--help`, where the field names none.
    """
    option = next(one for one in options_of(model) if one.field == field)
    about: dict[str, Any] = {"help": _help(option), "rich_help_panel": option.panel or panel or None}
    if not option.choices and option.annotation in (int, float):
        bounds = {type(extra).__name__.lower(): extra for extra in option.info.metadata}
        about |= {"min": bounds["ge"].ge} if "ge" in bounds else {}
        about |= {"max": bounds["le"].le} if "le" in bounds else {}
    kind: Any = str if option.choices else option.annotation
    return Annotated[kind | None, typer.Option(option.name, *option.flag.names, **about)]


def _load(names: list[str] | None) -> list[str] | None:
    load_plugins(names or [])
    return names


Import = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="FILE|MODULE",
        callback=_load,
        is_eager=True,
        help="Python file or module that registers agents, environments, probes or recipes; may be repeated",
        rich_help_panel=OUTPUT,
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="[DIR]", help="Continue what was begun in DIR; without a value: in the folder of --out", rich_help_panel=OUTPUT
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Stop at the first failure that has a traceback, and print it",
        rich_help_panel=OUTPUT,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Print also the rows left out of tables because they say nothing, and how numbers are computed",
        rich_help_panel=OUTPUT,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with options of this command, by their names; options of the command line override it",
        rich_help_panel=OUTPUT,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop", rich_help_panel=OUTPUT)]

if TYPE_CHECKING:
    Style: TypeAlias = str | None
    TraceTokens: TypeAlias = int | None
    Temperature: TypeAlias = float | None
    ObservationChars: TypeAlias = int | None
    Data: TypeAlias = Path | None

_FIELDS = {
    "Style": ("prompting.elicitation:Elicitation", "style", ELICITATION),
    "TraceTokens": ("prompting.elicitation:Elicitation", "trace_tokens", ELICITATION),
    "Temperature": ("prompting.elicitation:Elicitation", "temperature", ELICITATION),
    "ObservationChars": ("prompting.elicitation:Elicitation", "observation_chars", ELICITATION),
    "Data": ("runs.resources:Resources", "data", ""),
}
"""Options of single fields, for commands that list their options themselves; a model is loaded when its field is used."""


def __getattr__(name: str) -> Any:
    if name not in _FIELDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cotbench.registry import load

    path, field, panel = _FIELDS[name]
    return field_option(load(f"cotbench.{path}"), field, panel)
