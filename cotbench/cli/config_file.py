"""`--config FILE`: options of a command in a TOML file. Invariant: a key is an option's name or its field's, a value is read as
if it were typed, and what is typed beside the file wins.

    agent = "hf:qwen"
    limit = 40

    [elicitation]
    temperature = 0.7
    system_prompt = "system.txt"

Paths are relative to the file. The fields of a nested model stand in its table, or beside the others.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cotbench.cli.flags import Typed
from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import INLINE, Option, by_field, options_of, read_value


def with_config_file(typed: Typed, path: Path | None, without: tuple[str, ...] = ()) -> Typed:
    """Return the values of a file with those that were typed, which win.

    Args:
        typed: what was typed, by the models of the command.
        path: the file; None: there is none.
        without: names of fields that no file sets.

    Raises:
        UsageError: it cannot be read, is not TOML, or a value does not fit.
        UnknownNameError: no such option, with near matches.
    """
    if path is None:
        return typed
    found = _read(path, list(typed), without)
    return {model: _merged(by_field(found[model]), values) for model, values in typed.items()}


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both_tables else value
    return merged


def _read(
    path: Path, models: list[type[BaseModel]], without: tuple[str, ...]
) -> dict[type[BaseModel], list[tuple[Option, Any]]]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from error
    known = [(model, option) for model in models for option in options_of(model, without)]
    found: dict[type[BaseModel], list[tuple[Option, Any]]] = {model: [] for model in models}
    for table, key, value in _leaves(content, {option.path[0] for _, option in known if len(option.path) > 1}):
        here = [(model, option) for model, option in known if not table or option.path[0] == table]
        match = next(((model, option) for model, option in here if _plain(key) in _keys(option)), None)
        if match is None:
            names = {name for _, option in here for name in _keys(option)}
            raise UnknownNameError("option", key, names, f"of {f'[{table}] in ' if table else ''}{path}")
        model, option = match
        if any(option is before for before, _ in found[model]):
            raise UsageError(f"{path} sets {option.name} twice: omit one")
        try:
            found[model].append((option, read_value(option, _from(path.parent, option, value))))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
    return found


def _leaves(content: Mapping[str, Any], tables: set[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield the table, key and value of everything that a file sets; the table is empty at the top."""
    for key, value in content.items():
        if isinstance(value, dict) and _plain(key) in tables:
            yield from ((_plain(key), inner, one) for inner, one in value.items())
        else:
            yield "", key, value


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _keys(option: Option) -> set[str]:
    """Return how a file may call an option: by its field, or by its long names."""
    return {option.field, *(_plain(name) for name in (option.name, *option.flag.names) if name.startswith("--"))}


def _from(folder: Path, option: Option, value: Any) -> Any:
    """Return a value with its path, where it is one, relative to the file's folder."""
    is_path = option.annotation is Path or option.flag.read is not None
    if is_path and isinstance(value, str) and not value.startswith(INLINE):
        return str(folder / value)
    return [value] if option.many and not option.flag.joined and isinstance(value, str) else value
