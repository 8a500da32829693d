"""What the commands share: reading options into a config, plugins, the console."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from rich.console import Console

from cotbench.errors import UnknownNameError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.manifest import RunConfig

_WIDE = 120


def only_given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were typed."""
    return {name: value for name, value in options.items() if value is not None}


def new_config(given: Mapping[str, Any], asked: Mapping[str, Any]) -> RunConfig:
    """A config from typed options, `env` among them; defaults are the environment's and the config's own.

    Raises:
        UsageError: a value that does not fit; with near matches where it is a name.
    """
    check_choices(RunConfig, given)
    check_choices(Elicitation, asked)
    try:
        return RunConfig(**given, elicitation=Elicitation.for_env(given["env"], **asked))
    except ValidationError as error:
        raise bad_value(error) from error


def check_choices(model: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Refuse a name that is not among a field's choices, with near matches.

    Raises:
        UnknownNameError: names the flag.
    """
    for name, value in values.items():
        choices = get_args(model.model_fields[name].annotation)
        if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
            raise UnknownNameError("elicitation" if name == "style" else name, str(value), choices)


def bad_value(error: ValidationError) -> UsageError:
    """What is said of a value that does not fit: the flag, the value, why."""
    first = error.errors()[0]
    flag = "--" + str(first["loc"][-1]).replace("_", "-")
    return UsageError(f"{flag} {first['input']}: {first['msg']}")


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """No empty folder stays where what was begun in it fails."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # Refused where it holds something.
        raise


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def console() -> Console:
    """Standard output; wide enough for a table when it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDE)
