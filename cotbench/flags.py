"""How a field of a config model stands on the command line. Invariant: name, type, default and help of an option are said once,
in the model's field; the command line reads them there, and a command line that is derived from a config is read back as it.

A field `max_steps: int | None = Field(None, description="step budget")` is the option `--max-steps`. A field of type bool is
`--name`, and `--name/--no-name` where it can be left open or is true by itself. A tuple is an option that may be repeated, or
one with commas between its values. A `Flag` in the annotation says what is otherwise:

    episodes: Annotated[int | None, Flag(names=("-n",), panel=TASKS, default="all")] = Field(None, description=...)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


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
    """

    name: str = ""
    names: tuple[str, ...] = ()
    panel: str = ""
    default: str = ""
    metavar: str = ""
    joined: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command, read from a model's field.

    Attributes:
        field: the field's name.
        name: the option's: "--max-steps".
        annotation: the type of the value, None left out; of a tuple, its items' type.
        many: the field is a tuple.
        open: a bool that can be left open, or is true by itself: then there is a `--no-` form too.
        choices: what the value may be, where the type says it.
    """

    field: str
    name: str
    annotation: Any
    many: bool
    open: bool
    choices: tuple[str, ...]
    info: FieldInfo
    flag: Flag


def options_of(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """The options of a model's fields, in their order; of nested models none.

    Args:
        model: the config model.
        prefix: is put before the name of each option: "elicitation" gives `--elicitation-style`.
    """
    for field, info in model.model_fields.items():
        flag = next((extra for extra in info.metadata if isinstance(extra, Flag)), Flag())
        annotation = _without_none(info.annotation)
        many = get_origin(annotation) is tuple
        nested = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if flag.hidden or nested or get_origin(annotation) in (dict, Mapping):
            continue
        item = get_args(annotation)[0] if many else annotation
        choices = get_args(item) if get_origin(item) is Literal else ()
        optional = info.annotation is not annotation
        name = flag.name or "--" + "-".join(filter(None, (prefix, field.replace("_", "-"))))
        yield Option(field, name, item, many, item is bool and (optional or info.default is True), choices, info, flag)


def to_arguments(model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """The command line that sets fields of a model to these values; None is left out.

    Args:
        model: the config model.
        values: by the names of fields.

    Raises:
        KeyError: a field that has no option.
    """
    known = {option.field: option for option in options_of(model)}
    words: list[str] = []
    for field, value in values.items():
        option = known[field]
        if value is None or (value is False and not option.open):
            continue
        if value is True:
            words.append(option.name)
        elif value is False:
            words.append(option.name.replace("--", "--no-", 1))
        elif option.many and option.flag.joined:
            words += [option.name, ",".join(_text(one) for one in value)]
        elif option.many:
            words += [word for one in value for word in (option.name, _text(one))]
        else:
            words += [option.name, _text(value)]
    return words


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _without_none(annotation: Any) -> Any:
    """`int` of `int | None`."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [one for one in get_args(annotation) if one is not NoneType]
        return rest[0] if len(rest) == 1 else annotation
    return annotation
