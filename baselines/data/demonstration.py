"""A demonstration: a successful episode, as training data. Invariant: the columns are the truth, and the `messages` beside them
are made of them, so that writing and reading gives back the same data; no task that is scored gets past `check_trainable`.

A line of a file is an object with `messages`, the conversational format of TRL and `datasets`, and the columns of a
`Demonstration`. A line with `messages` alone comes from elsewhere, and is read as a `conversation`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_serializer, model_validator

from cotbench.baselines.data.conversation import ConversationError, read_conversation
from cotbench.baselines.data.parquet import check_suffix, read_parquet, write_rows
from cotbench.envs.registry import Instructions, env_entry, env_names
from cotbench.errors import UsageError
from cotbench.json_text import parse_json
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Message
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.episode import Episode
from cotbench.runs.manifest import MANIFEST

TRACES_JSONL = "traces.jsonl"
TRACES_PARQUET = "traces.parquet"


class Demonstration(BaseModel):
    """One episode to learn from.

    Attributes:
        env: the environment's name; empty for an imported conversation that belongs to none.
        teacher: the spec of the agent that played.
        functions: what could be called from the first turn on, as JSON schemas, one a line.
        observations: the T texts before the actions; the first holds the task.
        actions: the T executed actions.
        traces: the T traces behind them; None where there was none, so that no example is made of that step.
        instructions: the instructions of the prompt; the environment's own when left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str = ""
    task: str = ""
    task_type: str = ""
    teacher: str = ""
    success: bool = True
    functions: str = ""
    observations: tuple[str, ...]
    actions: tuple[str, ...]
    traces: tuple[str | None, ...]
    instructions: Instructions | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not len(self.observations) == len(self.actions) == len(self.traces) > 0:
            raise ValueError("a demonstration has as many observations as actions and traces, and at least one")
        return self

    @field_serializer("instructions")
    def _columns(self, instructions: Instructions | None) -> dict[str, Any] | None:
        # An object, not a list of a text and a list: columns of Parquet and `datasets` have one type.
        return None if instructions is None else {"text": instructions.text, "examples": list(instructions.examples)}

    def dialogue(self, step: int) -> Dialogue:
        """Return the state before action `step` (counted from 0), equal to that of the episode's own query."""
        instructions = self.instructions
        if instructions is None:
            instructions = env_entry(self.env).instructions() if self.env else Instructions("")
        return Dialogue(
            instructions=instructions,
            observations=self.observations[: step + 1],
            actions=self.actions[:step],
            traces=self.traces[:step],
            functions=self.functions,
        )

    def messages(self) -> list[Message]:
        """Return the whole episode as a chat: the prompt of CoT mode, and each answer with its trace."""
        elicitation = Elicitation.for_env(self.env) if self.env else Elicitation()
        chat = elicitation.messages(self.dialogue(len(self.actions) - 1), "cot")
        answers = iter(map(answer_text, self.actions, self.traces))
        turns = [Message("assistant", next(answers)) if message.role == "assistant" else message for message in chat]
        return [*turns, Message("assistant", next(answers))]


def answer_text(action: str, trace: str | None) -> str:
    """Return an answer as a model in CoT mode writes it.

    Args:
        action: the action.
        trace: the reasoning; None for the action alone.
    """
    reasoning = "" if trace is None else f"{THINK_OPEN}{trace}{THINK_CLOSE}\n"
    return f"{reasoning}{ACTION_OPEN}{action}{ACTION_CLOSE}"


def from_episode(episode: Episode, env: str, teacher: str, instructions: Instructions | None = None) -> Demonstration:
    """Return the demonstration in a CoT episode. A step whose trace is empty has none.

    Args:
        episode: the episode.
        env: the environment's name.
        teacher: the spec of the agent that played it.
        instructions: those of its prompts; None: the environment's own.

    Raises:
        ValueError: the episode has no step.
    """
    steps = episode.trajectory
    return Demonstration(
        instructions=instructions,
        env=env,
        task=episode.task,
        task_type=episode.task_type,
        teacher=teacher,
        success=episode.success,
        functions=episode.functions,
        observations=(episode.first_observation, *(step.observation for step in steps[:-1])),
        actions=tuple(step.action for step in steps),
        traces=tuple(step.decision.trace if (step.decision.trace or "").strip() else None for step in steps),
    )


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Return the successful demonstrations of a traces folder, a .jsonl or a .parquet file.

    Args:
        path: the folder or the file.

    Raises:
        UsageError: no such file, a line that is neither a demonstration nor a conversation, or nothing to learn from.
        MissingExtraError: a .parquet file, and pyarrow is not installed.
    """
    file = _file_of(path)
    if file.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"{file} is neither a traces folder nor a .jsonl or .parquet file: give one of these")
    rows = read_parquet(file) if file.suffix == ".parquet" else _json_rows(file)
    found = [_read(row, place) for place, row in rows]
    if not found:
        raise UsageError(f"{file} is empty: make demonstrations with cotbench traces")
    successful = [demonstration for demonstration in found if demonstration.success]
    if not successful:
        raise UsageError(
            f"{file} holds unsuccessful episodes only, {len(found)} of them: there is nothing to learn from; "
            "make demonstrations with cotbench traces"
        )
    return successful


def _file_of(path: Path) -> Path:
    if path.is_dir():
        for name in (TRACES_JSONL, TRACES_PARQUET):
            if (path / name).is_file():
                return path / name
        begun = (path / MANIFEST).is_file()
        todo = f"finish it with: cotbench traces --resume {path}" if begun else "make one with cotbench traces --out DIR"
        raise UsageError(f"{path} is not a traces folder: it has no {TRACES_JSONL}; {todo}")
    if not path.is_file():
        raise UsageError(f"no file or folder {path}: make demonstrations with cotbench traces --out {path}")
    return path


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield f"{path}:{number}", parse_json(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                what = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
                raise UsageError(f"{path}:{number} is not JSON ({what}): write one object a line, or remove it") from error
            except ValueError as error:
                raise UsageError(f"{path}:{number} cannot be used ({error}): fix or remove it") from error


def _read(row: Any, place: str) -> Demonstration:
    """Return a line or a row as a demonstration: from our own columns where they are, else from a conversation."""
    if not isinstance(row, dict):
        raise UsageError(f"{place} is not an object with `messages`: write one conversation a line")
    try:
        if "observations" in row and "actions" in row:
            demonstration = Demonstration.model_validate({name: value for name, value in row.items() if name != "messages"})
            _check_messages(row.get("messages"), demonstration)
        else:
            demonstration = _conversation(row)
    except ConversationError as error:
        raise UsageError(f"{place} {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "whole"
        raise UsageError(f"{place} is not a demonstration ({name}: {first['msg']}): fix or remove it") from error
    if demonstration.env and demonstration.env not in env_names():
        raise UsageError(
            f"{place} is of an unknown environment {demonstration.env!r}: leave env empty, or see cotbench list envs"
        )
    return demonstration


def _conversation(row: dict[str, Any]) -> Demonstration:
    """Return a conversation as a demonstration: observations are the user's texts, actions and traces the assistant's."""
    read = read_conversation(row)
    return Demonstration(
        **read.columns,
        observations=read.observations,
        actions=read.actions,
        traces=read.traces,
        instructions=Instructions(read.system),
    )


def _check_messages(messages: Any, demonstration: Demonstration) -> None:
    """Refuse `messages` whose answers are not those of the columns beside them, which would be ignored.

    Raises:
        ConversationError: they differ.
    """
    if not isinstance(messages, list):
        return
    found = [
        {name: value for name, value in one.items() if value is not None}
        for one in messages
        if isinstance(one, dict) and one.get("role") == "assistant"
    ]
    answers = map(answer_text, demonstration.actions, demonstration.traces)
    if found != [Message("assistant", text)._asdict() for text in answers]:
        raise ConversationError(
            "holds other answers in `messages` than in its columns `actions` and `traces`: remove the former or the latter"
        )


def _row(demonstration: Demonstration) -> dict[str, Any]:
    messages = [message._asdict() for message in demonstration.messages()]
    return {"messages": messages, **demonstration.model_dump(mode="json")}


def write_demonstrations(path: Path, demonstrations: Sequence[Demonstration]) -> None:
    """Write a .jsonl or a .parquet file, as the suffix says, atomically.

    Args:
        path: the file, replaced where it exists.
        demonstrations: what is written, in this order.

    Raises:
        UsageError: the suffix is another one.
        MissingExtraError: a .parquet file, and pyarrow is not installed.
    """
    check_suffix(path)
    write = write_parquet if path.suffix == ".parquet" else write_jsonl
    write(path, demonstrations)


def write_jsonl(path: Path, demonstrations: Iterable[Demonstration]) -> None:
    """Write one demonstration a line, atomically.

    Args:
        path: the file, replaced where it exists.
        demonstrations: what is written, in this order.
    """
    write_atomically(path, (json.dumps(_row(one), ensure_ascii=False) + "\n" for one in demonstrations))


def write_parquet(path: Path, demonstrations: Iterable[Demonstration]) -> None:
    """Write the same columns as Parquet, atomically.

    Args:
        path: the file, replaced where it exists.
        demonstrations: what is written, in this order.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    write_rows(path, map(_row, demonstrations), _columns)


def _columns(arrow: Any) -> dict[str, Any]:
    text = arrow.string()
    columns = dict.fromkeys(Demonstration.model_fields, text)
    columns |= {"success": arrow.bool_(), **dict.fromkeys(("observations", "actions", "traces"), arrow.list_(text))}
    columns["instructions"] = arrow.struct({"text": text, "examples": arrow.list_(text)})
    return {"messages": arrow.list_(arrow.struct({"role": text, "content": text})), **columns}
