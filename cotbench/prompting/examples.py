"""Example episodes that are shown before a task (few-shot), and texts of a prompt in files. Invariant: what was read is the
content of the file, never its path, so an elicitation is the same wherever its files lie.

A file of examples is TOML or JSON:

    [[examples]]
    observation = "You are in a kitchen. Your task is to: put a mug on the desk."

    [[examples.turns]]
    trace = "A mug is often on the countertop."
    action = "go to countertop 1"
    observation = "On the countertop 1, you see a mug 1."

    [[examples.turns]]
    action = "take mug 1 from countertop 1"

The last turn has no observation: the next example, or the task, follows it. An option that takes such a file also takes
`inline:` and the content itself (JSON, of examples), as derived command lines write it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import INLINE
from cotbench.prompting.parsing import USUAL_TAGS, Tags

MAX_SYSTEM_CHARS = 30_000
"""Characters of a system prompt: as UTF-8 it fits into one argument of a command line."""

MAX_EXAMPLES_BYTES = 100_000
"""Bytes of all examples as JSON; they fit into one argument of a command line."""

_STRICT = ConfigDict(frozen=True, extra="forbid")


class ExampleTurn(BaseModel):
    """One action of an example.

    Attributes:
        trace: the reasoning before it, shown in CoT mode; None where there is none.
        action: as the environment spells it, without tags.
        observation: what the environment returned; None in the last turn.
    """

    model_config = _STRICT

    trace: str | None = Field(None, min_length=1)
    action: str = Field(min_length=1)
    observation: str | None = Field(None, min_length=1)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the turn."""
        return tuple(text for text in (self.trace, self.action, self.observation) if text is not None)


class ExampleEpisode(BaseModel):
    """One example: an episode, or its beginning.

    Attributes:
        observation: the first one, with the task.
        turns: what was done.
    """

    model_config = _STRICT

    observation: str = Field(min_length=1)
    turns: tuple[ExampleTurn, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _alternates(self) -> Self:
        *before, last = self.turns
        for number, turn in enumerate(before):
            if turn.observation is None:
                raise ValueError(f"turn {number + 1} of {len(self.turns)} has no observation")
        if last.observation is not None:
            raise ValueError("the last turn has an observation: omit it, because the next example or the task follows it")
        texts = [text for turn in self.turns for text in turn.texts]
        _check_tags((self.observation, *texts), USUAL_TAGS)
        return self


Examples = tuple[ExampleEpisode, ...]
_EXAMPLES: TypeAdapter[Examples] = TypeAdapter(Examples)


def check_examples(examples: Examples, tags: Tags = USUAL_TAGS) -> Examples:
    """Return examples that are not too long, and hold no tags.

    Args:
        examples: the examples.
        tags: of their elicitation.

    Raises:
        ValueError: they are, or do.
    """
    for example in examples:
        _check_tags((example.observation, *(text for turn in example.turns for text in turn.texts)), tags)
    size = len(_as_json(examples).encode())
    if size > MAX_EXAMPLES_BYTES:
        raise ValueError(f"the examples have {size} bytes, and {MAX_EXAMPLES_BYTES} are the most: give fewer or shorter ones")
    return examples


def _check_tags(texts: Iterable[str], tags: Tags) -> None:
    for text in texts:
        found = next((tag for tag in tags.all if tag in text.lower()), None)
        if found is not None:
            raise ValueError(f"{found} stands in a text: write trace and action without tags, which are added")


def has_traces(examples: Sequence[ExampleEpisode]) -> bool:
    """Return whether any turn of the examples has a trace, so that they look different in the two modes."""
    return any(turn.trace is not None for example in examples for turn in example.turns)


def read_system_prompt(typed: str) -> str:
    """Return the text of a system prompt.

    Args:
        typed: the path of a text file, or the text behind `inline:`.

    Raises:
        UsageError: no such file, not text, empty or too long.
    """
    text = typed.removeprefix(INLINE) if typed.startswith(INLINE) else _read_text("--system-prompt", typed).strip()
    where = "the text" if typed.startswith(INLINE) else typed
    if not text.strip():
        raise UsageError(f"--system-prompt: {where} is empty: omit the option for the environment's own instructions")
    if len(text) > MAX_SYSTEM_CHARS:
        raise UsageError(f"--system-prompt: {where} has {len(text)} characters, and {MAX_SYSTEM_CHARS} are the most")
    return text


def write_system_prompt(text: str) -> str:
    """Return what `read_system_prompt` reads as this text."""
    return INLINE + text


def read_examples(typed: str) -> Examples:
    """Return the examples of a file.

    Args:
        typed: the path of a `.toml` or `.json` file, or JSON behind `inline:`.

    Raises:
        UsageError: no such file, not TOML or JSON, or not of the form of examples; says where in the file.
    """
    where = "the text" if typed.startswith(INLINE) else typed
    try:
        if typed.startswith(INLINE):
            content: Any = json.loads(typed.removeprefix(INLINE))
        else:
            text = _read_text("--examples", typed)
            content = json.loads(text) if Path(typed).suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError.
        form = "JSON" if typed.startswith(INLINE) or Path(typed).suffix == ".json" else "TOML"
        raise UsageError(f"--examples: {where} is not {form} ({error})") from error
    if isinstance(content, dict):
        unknown = sorted(content.keys() - {"examples"})
        if unknown:
            raise UnknownNameError("table", unknown[0], ["examples"], f"of --examples {where}")
        content = content.get("examples")
    if not isinstance(content, list) or not content:
        raise UsageError(f"--examples: {where} holds no examples: write [[examples]] with observation and [[examples.turns]]")
    try:
        return check_examples(_EXAMPLES.validate_python(tuple(content)))
    except ValidationError as error:
        raise _misplaced(error, where) from error
    except ValueError as error:
        raise UsageError(f"--examples: {error}") from error


def write_examples(examples: Sequence[Any]) -> str:
    """Return what `read_examples` reads as these examples.

    Args:
        examples: `ExampleEpisode`s, or their fields.
    """
    return INLINE + _as_json(_EXAMPLES.validate_python(tuple(examples)))


def _as_json(examples: Examples) -> str:
    return json.dumps([example.model_dump(exclude_none=True) for example in examples], ensure_ascii=False)


def _misplaced(error: ValidationError, where: str) -> UsageError:
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = " ".join(f"turn {part + 1}" if number > 1 else f"example {part + 1}" for number, part in enumerate(first["loc"])
                     if isinstance(part, int))  # fmt: skip
    field = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = ExampleTurn if "turns" in first["loc"] else ExampleEpisode
        return UnknownNameError("field", field, model.model_fields, f"of {place} in {where}")
    message = first["msg"].removeprefix("Value error, ")
    named = f" {field}" if isinstance(first["loc"][-1], str) else ""
    return UsageError(f"--examples: {where}: {place}{named}: {message}")


def _read_text(option: str, path: str) -> str:
    """Return the text of a file.

    Raises:
        UsageError: it cannot be read, or is not text.
    """
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {path} is not text in UTF-8") from error
