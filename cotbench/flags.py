"""How a field of a config model stands on the command line. Invariant: name, type, default and help of an option are said once,
in the model's field; the command line reads them there, and a command line that is derived from a config is read back as it.

A field `max_steps: int | None = Field(None, description="step budget")` is the option `--max-steps`. A field of type bool is
`--name`, and `--name/--no-name` where it can be left open or is true by itself. A tuple is an option that may be repeated, or
one with commas between its values. The fields of a nested model are options too. A `Flag` in the annotation says what is
otherwise:

    episodes: Annotated[int | None, Flag(names=("-n",), panel=TASKS, default="all")] = Field(None, description=...)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from cotbench.errors import UnknownNameError, UsageError

TASKS, ELICITATION, EXECUTION, OUTPUT = "Tasks", "Elicitation", "Execution", "Output"
MODEL, MASKING, OPTIMISATION = "Model and data", "Reduced action supervision", "Optimisation"
"""Panels of `--help`."""


INLINE = "inline:"
"""Before the content itself, where an option takes a file."""


@dataclass(frozen=True, slots=True)
class Flag:
    """What the command line says of a field beyond its name, type, default and description.

    Attributes:
        name: of the option, where it is not the field's: "--task" for a field `tasks`.
        names: further spellings: "-n".
        panel: the group of `--help` that it stands in.
        default: what `--help` says stands there where nothing is given, where the field's default does not say it.
        metavar: what `--help` calls the value.
        joined: a tuple is written with commas, not by repeating the option.
        hidden: no option: it is set in a file, or in Python.
        table: the field is a dict whose keys are fields of this model: each is an option.
        read: returns the value that a typed text stands for: the content of the file that it names, or what stands behind
            `INLINE`. `write` returns a text that is read as a value.
    """

    name: str = ""
    names: tuple[str, ...] = ()
    panel: str = ""
    default: str = ""
    metavar: str = ""
    joined: bool = False
    hidden: bool = False
    table: type[BaseModel] | None = None
    read: Callable[[str], Any] | None = None
    write: Callable[[Any], str] | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command, read from a model's field.

    Attributes:
        path: the names of the fields that lead to it, from the model on: ("elicitation", "style").
        name: the option's: "--max-steps".
        annotation: the type of the value, None left out; of a tuple, its items' type.
        many: the field is a tuple.
        open: a bool that can be left open, or is true by itself: then there is a `--no-` form too.
        choices: what the value may be, where the type says it.
        panel: the group of `--help`; of a nested model's options, the nested model's.
        config: the model's, as far as it decides which values are valid.
    """

    path: tuple[str, ...]
    name: str
    annotation: Any
    many: bool
    open: bool
    choices: tuple[str, ...]
    panel: str
    info: FieldInfo
    flag: Flag
    config: ConfigDict

    @property
    def field(self) -> str:
        """The field's name."""
        return self.path[-1]

    @property
    def negative(self) -> str:
        """The `--no-` form."""
        return self.name.replace("--", "--no-", 1)

    @property
    def default(self) -> str:
        """What `--help` says stands there where nothing is given; empty where nothing is to be said."""
        value = None if self.info.is_required() else self.info.default
        if self.flag.default or value is None or value is False or value == ():
            return self.flag.default
        if value is True:
            return self.name.removeprefix("--")
        return ",".join(map(_format, value)) if isinstance(value, tuple) else _format(value)

    @property
    def help(self) -> str:
        """The field's description; choices that it does not name are added."""
        text = self.info.description or ""
        unnamed = any(choice not in text for choice in self.choices)
        return f"{text}: {', '.join(self.choices[:-1])} or {self.choices[-1]}" if unnamed else text


def options_of(model: type[BaseModel], without: Collection[str] = ()) -> Iterator[Option]:
    """Yield the options of a model's fields, in their order; a nested model's stand in its place.

    Args:
        model: the config model.
        without: names of fields that are no options here.
    """
    yield from _options(model, (), without, "")


def _options(model: type[BaseModel], path: tuple[str, ...], without: Collection[str], panel: str) -> Iterator[Option]:
    for field, info in model.model_fields.items():
        flag = next((extra for extra in info.metadata if isinstance(extra, Flag)), Flag())
        annotation = _without_none(info.annotation)
        if flag.hidden or field in without:
            continue
        nested = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else flag.table
        if nested is not None:
            yield from _options(nested, (*path, field), without, flag.panel or panel)
            continue
        if get_origin(annotation) in (dict, Mapping):
            continue
        many = get_origin(annotation) is tuple and flag.read is None
        item = get_args(annotation)[0] if many else annotation
        if get_origin(item) is Annotated:
            item = get_args(item)[0]
        yield Option(
            path=(*path, field),
            name=flag.name or "--" + field.replace("_", "-"),
            annotation=item,
            many=many,
            open=item is bool and (info.annotation is not annotation or info.default is True),
            choices=get_args(item) if get_origin(item) is Literal else (),
            panel=flag.panel or panel,
            info=info,
            flag=flag,
            config=ConfigDict(allow_inf_nan=model.model_config.get("allow_inf_nan", True)),
        )


def flag_of(model: type[BaseModel], field: str) -> str:
    """Return the option that sets a field: "--task" for `tasks`; for a field without one, as it would be named."""
    found = (option.name for option in options_of(model) if option.field == field)
    return next(found, "--" + field.replace("_", "-"))


def to_arguments(model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """Return the command line that sets fields of a model to these values; None is left out.

    Args:
        model: the config model.
        values: by the names of fields; of a nested model, a mapping or an instance of it.

    Raises:
        KeyError: a field that has no option.
        ValueError: a value that no command line says: a tuple that is empty though its default is not, or a comma in an item
            of a tuple that is written with commas.
    """
    known = _options_by_path(model)
    return [word for path, value in _leaves(values, (), known) for word in _words(known[path], value)]


@lru_cache(maxsize=64)
def _options_by_path(model: type[BaseModel]) -> Mapping[tuple[str, ...], Option]:
    """Return all options of a model, read once: a study's plan has a command line for each of ten thousand stages."""
    return {option.path: option for option in options_of(model)}


def _leaves(
    values: Mapping[str, Any], path: tuple[str, ...], known: Mapping[tuple[str, ...], Option]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for field, value in values.items():
        here = (*path, field)
        within = dict(value) if isinstance(value, Mapping | BaseModel) else None
        if within is not None and here not in known:
            yield from _leaves(within, here, known)
        else:
            yield here, value


def _words(option: Option, value: Any) -> list[str]:
    if value is None or (value is False and not option.open):
        return []
    if isinstance(value, bool):
        return [option.name if value else option.negative]
    if option.flag.write is not None:
        return [] if not value else [option.name, option.flag.write(value)]
    if not option.many:
        return [option.name, _text(value)]
    if not value and not option.flag.joined and option.info.default != ():
        raise ValueError(f"{option.name}: no command line makes it empty")
    texts = [_text(one) for one in value]
    if not option.flag.joined:
        return [word for text in texts for word in (option.name, text)]
    if any("," in text for text in texts):
        raise ValueError(f"{option.name}: a comma in one of {texts}")
    return [option.name, ",".join(texts)]


def read_value(option: Option, typed: str | bool | Sequence[str]) -> Any:
    """Return the value of an option from what was typed.

    Args:
        option: the option.
        typed: a text; of a bool, the value; of an option that may be repeated, all its texts.

    Raises:
        UnknownNameError: not one of the choices; with near matches.
        UsageError: it does not fit the field's type or bounds, or names a file that cannot be read.
    """
    texts: Any = typed
    if option.flag.read is not None and isinstance(typed, str):
        texts = option.flag.read(typed)
    if option.many and option.flag.joined and isinstance(typed, str):
        texts = [part.strip() for part in typed.split(",") if part.strip()]
    for text in (texts if option.many else [texts]) if option.choices else ():
        if text not in option.choices:
            raise UnknownNameError(option.name.lstrip("-"), str(text), option.choices)
    bounds = [extra for extra in option.info.metadata if not isinstance(extra, Flag)]
    annotation: Any = option.info.annotation
    for bound in bounds:
        annotation = Annotated[annotation, bound]
    try:
        return TypeAdapter(annotation, config=option.config).validate_python(tuple(texts) if option.many else texts)
    except ValidationError as error:
        first = error.errors()[0]
        value = typed if isinstance(typed, str) else first["input"]
        raise UsageError(f"{option.name} {value}: {first['msg']}") from error


def with_contents(model: type[BaseModel], values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return fields of a model as a file gives them, with the contents of the files that they name.

    Args:
        model: the config model.
        values: by the names of fields.
        folder: of the file that they stand in; the paths in it are relative to it.

    Raises:
        UsageError: a file cannot be read.
    """
    found = dict(values)
    for option in options_of(model):
        typed = found.get(option.field)
        if len(option.path) == 1 and option.flag.read is not None and isinstance(typed, str):
            content = read_value(option, typed if typed.startswith(INLINE) else str(folder / typed))
            found[option.field] = TypeAdapter(Any).dump_python(content, mode="json", exclude_none=True)
    return found


def by_field(values: Sequence[tuple[Option, Any]]) -> dict[str, Any]:
    """Return options' values by the names of fields, those of a nested model in a dict of their own."""
    found: dict[str, Any] = {}
    for option, value in values:
        place = found
        for name in option.path[:-1]:
            place = place.setdefault(name, {})
        place[option.field] = value
    return found


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _format(value: Any) -> str:
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def _without_none(annotation: Any) -> Any:
    """`int` of `int | None`."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [one for one in get_args(annotation) if one is not NoneType]
        return rest[0] if len(rest) == 1 else annotation
    return annotation
