"""What the commands share: reading options into a config, plugins, the console."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
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


def import_plugins(names: Iterable[str]) -> None:
    """Import Python files or modules, so that the agents in them are registered.

    Raises:
        UsageError: not found, or it fails.
    """
    for name in names:
        path = Path(name)
        try:
            if path.suffix == ".py":
                spec = importlib.util.spec_from_file_location(path.stem, path)
                if spec is None or spec.loader is None or not path.is_file():
                    raise UsageError(f"--import {name}: no such file")
                module = importlib.util.module_from_spec(spec)
                sys.modules[path.stem] = module
                spec.loader.exec_module(module)
            else:
                importlib.import_module(name)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"--import {name}: {type(error).__name__}: {error}") from error


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def console() -> Console:
    """Standard output; wide enough for a table when it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDE)
