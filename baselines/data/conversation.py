"""A conversation in the form of others: OpenAI's `messages`, ShareGPT's `conversations`. Invariant: every text in it becomes
the system text, an observation, a trace or an action, or it is refused with its place; only what `METADATA` lists is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, TAGS, THINK_CLOSE, THINK_OPEN, parse_answer

METADATA = frozenset(
    (
        *("id", "uuid", "idx", "index", "name", "source", "dataset", "split", "category", "tags", "language", "license", "url"),
        *("score", "reward", "model", "created", "created_at", "timestamp", "date", "finish_reason", "usage"),
        *("metadata", "meta"),
    )
)
"""Keys of a line, a message or a part that say where it comes from, and hold nothing that a model reads or writes."""

_CONTAINERS = ("messages", "conversations")
_COLUMNS = ("env", "task", "task_type", "teacher", "success")
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of an answer, and kinds of a part, that hold the trace."""
_TRAINED = ("weight", "train", "trainable", "loss")
"""Fields of a message that say whether it is trained on."""
_ROLES = {"human": "user", "gpt": "assistant"}
"""ShareGPT's names of the roles."""
_SPELLINGS = ("trace not opened",)
"""Deviations in an answer that lose nothing: a template that opens the trace leaves the opening tag to the prompt."""
_MEND = "move it into the text, or remove it"


class ConversationError(ValueError):
    """A line that is no conversation, or holds something that is not understood; the message goes on behind its place."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of a conversation, sorted.

    Attributes:
        system: the system text, without a request for tags at its end; empty where there is none.
        observations: the user's T texts before the answers.
        actions: the T actions of the answers.
        traces: the T traces; None where an answer has none.
        columns: what the line says of the episode: env, task, task_type, teacher, success.
    """

    system: str
    observations: tuple[str, ...]
    actions: tuple[str, ...]
    traces: tuple[str | None, ...]
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Turn:
    """A message.

    Attributes:
        reasoning: what stands beside the text, in a field or a part.
        untrained: the field and the value that exclude it from training, where one does.
    """

    role: str
    text: str
    reasoning: str | None
    untrained: str | None


def read_conversation(row: Mapping[str, Any]) -> Conversation:
    """Return a line as a conversation.

    Args:
        row: with `messages` of {role, content}, or `conversations` of {from, value}. The reasoning of an answer may stand in
            tags inside its content, in a field (`reasoning_content`, `reasoning`, `thinking`), or in a part of the content.

    Raises:
        ConversationError: it is none, a key with a value is not understood, or an answer holds more than a trace and an action.
    """
    name = next((name for name in _CONTAINERS if not _empty(row.get(name))), None)
    chat = row.get(name or "")
    if name is None and any(container in row for container in _CONTAINERS):
        raise ConversationError("is not a conversation: it has no messages; remove it")
    if name is None or not isinstance(chat, list):
        raise ConversationError(
            f"is not a conversation: it has {', '.join(map(str, row)) or 'nothing'} and no `messages`; "
            "give each line a list `messages` of {role, content}"
        )
    _refuse_unknown(row, (name, *_COLUMNS, "system"), "it")
    turns = [_turn(message, number) for number, message in enumerate(chat, start=1)]
    system = _system(row.get("system"), turns)
    if turns and turns[-1].role == "user":
        turns.pop()  # The observation after the last action has no answer.
    roles = [turn.role for turn in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise ConversationError(
            "is not a conversation: after the system text, user and assistant must take turns; fix or remove it"
        )
    answers = [_answer(turn, number) for number, turn in enumerate(turns[1::2], start=1)]
    return Conversation(
        system=_without_request(system),
        observations=tuple(turn.text for turn in turns[::2]),
        actions=tuple(action for action, _ in answers),
        traces=tuple(trace for _, trace in answers),
        columns={column: row[column] for column in _COLUMNS if row.get(column) is not None},
    )


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | Sequence | Mapping) and not value)


def _refuse_unknown(fields: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for name, value in fields.items():
        if name not in known and name not in METADATA and not _empty(value):
            raise ConversationError(f"is not a conversation that can be read: {where} has `{name}`, which is unknown; {_MEND}")


def _system(beside: Any, turns: list[_Turn]) -> str:
    """Take the system text out of the turns, or from the line's own key `system`."""
    found = [turns.pop(0).text] if turns and turns[0].role == "system" else []
    if not _empty(beside):
        if not isinstance(beside, str):
            raise ConversationError("is not a conversation: its `system` is not a text; fix or remove it")
        found.append(beside)
    if len(set(found)) > 1:
        raise ConversationError("is not a conversation: it has a `system` and another system message; remove one of them")
    return found[0] if found else ""


def _turn(message: Any, number: int) -> _Turn:
    """Return a message's role and texts."""
    where = f"message {number}"
    fields: Mapping[str, Any] = message if isinstance(message, dict) else {}
    named, held = ("from", "value") if _empty(fields.get("role")) else ("role", "content")
    role = _ROLES.get(str(fields.get(named)), fields.get(named))
    if role not in ("system", "user", "assistant"):
        raise ConversationError(f"is not a conversation: {where} is not a text of system, user or assistant; fix or remove it")
    _refuse_unknown(fields, (named, held, *_REASONING, *_TRAINED), where)
    parts, text = _content(fields.get(held), where)
    beside = [*(_reasoning_field(fields, name, where) for name in _REASONING), "\n".join(parts)]
    reasoning = {one.strip() for one in beside if one.strip()}
    if len(reasoning) > 1:
        raise ConversationError(f"is not a conversation: {where} has two different traces besides its text; remove one")
    if reasoning and role != "assistant":
        raise ConversationError(f"is not a conversation: {where} has reasoning, but is not an answer; {_MEND}")
    return _Turn(role, text, next(iter(reasoning), None), _untrained(fields, role, where))


def _untrained(fields: Mapping[str, Any], role: str, where: str) -> str | None:
    """Return the flag that excludes a message from training; refuse one that no training of ours follows."""
    flags = {name: fields[name] for name in _TRAINED if not _empty(fields.get(name))}
    for name, value in flags.items():
        if value not in (0, 1) or (value and role != "assistant"):
            raise ConversationError(
                f"is not a conversation that can be trained on: {where} has {name} {value!r}, but answers with a trace are "
                f"trained on, each alike, and nothing else; remove `{name}`"
            )
    return next((f"{name} {value!r}" for name, value in flags.items() if not value), None)


def _reasoning_field(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not _empty(value) and not isinstance(value, str):
        raise ConversationError(f"is not a conversation: `{name}` of {where} is not a text; {_MEND}")
    return value or ""


def _content(content: Any, where: str) -> tuple[list[str], str]:
    """Return the reasoning parts of a content, and its text; several parts are joined by line breaks, as servers join them."""
    if isinstance(content, str):
        return [], content
    if not isinstance(content, list):
        raise ConversationError(f"is not a conversation: {where} is not a text of system, user or assistant; fix or remove it")
    reasoning: list[str] = []
    texts: list[str] = []
    for kind, text in _parts(content, where):
        if kind == "text":
            texts.append(text)
        elif any(one.strip() for one in texts):
            raise ConversationError(f"is not a conversation: {where} has reasoning after its text; put it before")
        else:
            reasoning.append(text)
    return reasoning, "\n".join(texts)


def _parts(content: list[Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each part of a content: {"type": "text", "text": ...}, or the same with a kind of reasoning."""
    for part in content:
        fields: Mapping[str, Any] = part if isinstance(part, dict) else {}
        kind = fields.get("type")
        if kind != "text" and kind not in _REASONING:
            raise ConversationError(f"is not a conversation that can be read: {where} has a part of type {kind!r}; {_MEND}")
        _refuse_unknown(fields, ("type", "text", kind, "signature"), f"a part of {where}")
        found = [value for name, value in fields.items() if name in ("text", kind) and not _empty(value)]
        inner = found[0] if found else ""
        if isinstance(inner, list):  # Mistral's reasoning is a list of texts.
            inner = "\n".join(text for _, text in _parts(inner, where))
        if len(found) > 1 or not isinstance(inner, str):
            raise ConversationError(f"is not a conversation: a part of {where} is not one text; fix or remove it")
        yield kind, inner


def _answer(turn: _Turn, number: int) -> tuple[str, str | None]:
    """Return the action and the trace of an answer; refuse one that holds anything else."""
    answer = parse_answer(turn.text)
    if not answer.action or "no action tag" in answer.problems:
        form = f"{THINK_OPEN}REASONING{THINK_CLOSE}\n{ACTION_OPEN}ACTION{ACTION_CLOSE}"
        raise ConversationError(f"is not a conversation with actions: answer {number} has none; write answers as {form!r}")
    problems = [problem for problem in answer.problems if problem not in _SPELLINGS]
    if problems:
        raise ConversationError(
            f"is not a conversation with actions: answer {number} is not one trace and one action ({problems[0]}); fix or "
            "remove it"
        )
    if turn.untrained is not None and (answer.trace or turn.reasoning):
        raise ConversationError(
            f"is not a conversation that can be trained on: answer {number} has {turn.untrained}, but every answer with a "
            "trace is trained on; remove its trace"
        )
    if turn.reasoning is None:
        return answer.action, answer.trace or None
    if any(tag in turn.reasoning.lower() for tag in TAGS):
        raise ConversationError(f"is not a conversation with actions: the reasoning of answer {number} holds a tag; remove it")
    if answer.trace and answer.trace != turn.reasoning:
        raise ConversationError(
            f"is not a conversation with actions: answer {number} has one trace in its text and another in a field; remove one"
        )
    return answer.action, turn.reasoning


def _without_request(system: str) -> str:
    """Return a system text without an elicitation's request at its end, which is added again when the data is used."""
    for style in ("prefill", "template"):
        for mode in MODES:
            system = system.removesuffix(Elicitation(style=style).instruction(mode))
    return system.rstrip()
