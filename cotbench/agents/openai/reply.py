"""Parse a server's answer. Invariant: what is parsed is the answer that the model wrote, to its end. An error in a body, an end
that is not normal, or a content that is not understood is a `ReplyError`, never an empty answer. What a server does not report
stays unknown; nothing is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cotbench.errors import AgentError
from cotbench.prompting.generation import Generation, GenerationRequest, first_stop

Finish = Literal["stop", "length", "tool_calls"]

_FINISHES: Mapping[str, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "repetition": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}
"""The names that servers have for a normal finish: the model ended its turn, met a stop string, or repeated itself where vLLM
was told to end that; its budget was spent; or it called a function. Any other name is an error, also beside text: there are new
names for what cuts an answer off, and half an answer is not the model's.
"""

_PASSING = ("abort", "error", None)
"""Finishes that another attempt may not have; None: there was none, which is how some servers abort."""

_TEXT_PARTS = ("text", "output_text", "refusal")
_REASONING_PARTS = ("thinking", "reasoning")
_LABELS = frozenset({"type", "role", "id", "name", "index"})
"""Fields that hold nothing of what the model wrote."""


class ReplyError(AgentError):
    """A body that holds no answer of the model.

    Attributes:
        status: the HTTP status that the body names, where it does.
        transient: whether another attempt may succeed, where there is no status to tell.
    """

    def __init__(self, text: str, status: int | None = None, *, transient: bool = False) -> None:
        super().__init__(text)
        self.status, self.transient = status, transient


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call of the model.

    Attributes:
        name: the function's name, as the server sent it.
        arguments: as the server sent them: a text, or decoded JSON.
    """

    name: str
    arguments: object


@dataclass(frozen=True, slots=True)
class CompletionReply:
    """The first choice of an answer.

    Attributes:
        text: the generated text.
        reasoning: the text that a server's reasoning parser took out of it; None where it took nothing.
        finish: why it ended.
        stop: the stop string that was met, where the server reports it (vLLM: `stop_reason`, SGLang: `matched_stop`).
        calls: tool calls.
        pieces: the text of each generated token, where reported.
        logprobs: the log-probability of each generated token, where reported.
        token_logprobs: these of a completion as they were sent: with an echoed prompt's, of which the first has none.
        ids: the id of each generated token, where reported.
        tokens: number of generated tokens; None where not reported.
        prompt_tokens: number of tokens of the prompt; None where not reported.
        cached_tokens: number of these that were in the server's KV cache.
        reasoning_tokens: number of the generated tokens that are reasoning.
    """

    text: str
    reasoning: str | None = None
    finish: Finish = "stop"
    stop: str | None = None
    calls: tuple[ToolCall, ...] = ()
    pieces: tuple[str, ...] = ()
    logprobs: tuple[float, ...] | None = None
    token_logprobs: tuple[object, ...] = ()
    ids: tuple[int, ...] = ()
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def read_reply(loaded: object) -> CompletionReply:
    """Parse a decoded answer of either endpoint.

    Raises:
        ReplyError: it is an error, has no choice, did not end normally, or holds what is not understood.
    """
    body = _mapping(loaded)
    choices = _list(body.get("choices"))
    choice = _mapping(choices[0]) if choices else {}
    for error in (body.get("error"), choice.get("error")):
        if error:
            status = _status(error)
            raise ReplyError(f"answered with an error: {error_message(error)}", status, transient=status is None)
    if not choice:
        raise ReplyError(f"answered without a choice: {_dump(loaded)}", _status(body), transient=True)
    finish = _finish(choice)
    message = _mapping(choice.get("message"))
    calls = _calls(message)
    if finish == "tool_calls" and not calls:
        raise ReplyError(f"answered with finish_reason {choice['finish_reason']!r} and no call: {_dump(choice)}")
    text, reasoning = _content(choice, message, has_calls=bool(calls))
    usage = _mapping(body.get("usage"))
    stop = choice.get("stop_reason", choice.get("matched_stop"))
    listed = _mapping(choice.get("logprobs"))
    pieces, logprobs = _token_logprobs(listed)
    ids = _list(choice.get("token_ids"))
    return CompletionReply(
        text=text,
        reasoning=reasoning,
        finish=finish,
        stop=stop if isinstance(stop, str) else None,
        calls=calls,
        pieces=pieces,
        logprobs=logprobs,
        token_logprobs=tuple(_list(listed.get("token_logprobs"))),
        ids=tuple(ids) if all(isinstance(id_, int) for id_ in ids) else (),
        tokens=_count(usage, "completion_tokens"),
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(_mapping(usage.get("prompt_tokens_details")), "cached_tokens") or 0,
        reasoning_tokens=_count(_mapping(usage.get("completion_tokens_details")), "reasoning_tokens") or 0,
    )


def error_message(body: object) -> str:
    """Return the message in an error's body, in the form of any server."""
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error"):
            if body.get(name):
                return error_message(body[name])
    return body if isinstance(body, str) else "" if body is None else _dump(body)


def _status(error: object) -> int | None:
    """Return the HTTP status that an error's body names."""
    code = error.get("code") if isinstance(error, Mapping) else None
    number = int(code) if isinstance(code, str) and len(code) == 3 and code.isdecimal() else code
    return number if isinstance(number, int) and 400 <= number < 600 else None


def _finish(choice: Mapping[str, Any]) -> Finish:
    reason = choice.get("finish_reason") or None
    finish = _FINISHES.get(reason.lower()) if isinstance(reason, str) else None
    if finish is None:
        what = f"with finish_reason {reason!r}, which is not a normal end" if reason else "without a finish_reason"
        raise ReplyError(f"answered {what}: {_dump(choice)}", transient=reason in _PASSING)
    return finish


def _content(choice: Mapping[str, Any], message: Mapping[str, Any], *, has_calls: bool) -> tuple[str, str | None]:
    """Return the text and the reasoning of a choice."""
    content = choice.get("text") or message.get("content")
    taken = message.get("reasoning_content") or message.get("thinking") or message.get("reasoning")
    reasoning = None if taken is None else _joined(taken, message)
    if isinstance(content, list):
        text, thought = _parts(content)
        return text, reasoning or thought
    if content is None:
        content = message.get("refusal") or choice.get("text")
    if content is None:
        if not message or (_holds(message, "content") and not (has_calls or reasoning)):
            raise ReplyError(f"answered with content that cotbench does not understand: {_dump(choice)}")
        content = ""
    if not isinstance(content, str):
        raise ReplyError(f"answered with content that cotbench does not understand: {_dump(content)}")
    return content, reasoning


def _parts(content: Sequence[object]) -> tuple[str, str | None]:
    """Return the text and the reasoning of a content that is a list of parts."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        fields = part if isinstance(part, Mapping) else {"type": "text", "text": part}
        kind = fields.get("type")
        if kind in _TEXT_PARTS or kind in _REASONING_PARTS:
            value = fields.get(kind) if fields.get("text") is None else fields["text"]
            (texts if kind in _TEXT_PARTS else thoughts).append(_joined(value, fields))
        elif _holds(fields):
            raise ReplyError(f"answered with a part of content that cotbench does not understand: {_dump(part)}")
    return "".join(texts), "".join(thoughts) if thoughts else None


def _joined(value: object, holder: Mapping[str, Any]) -> str:
    """Return the text of a value: a text, or a list of texts and of parts with one.

    Args:
        value: the value; None where there is none.
        holder: the mapping that it was taken from.
    """
    pieces = value if isinstance(value, list) else [value]
    texts = [piece.get("text") if isinstance(piece, Mapping) else piece for piece in pieces]
    if value is None and not _holds(holder):
        return ""
    if not all(isinstance(text, str) for text in texts):
        raise ReplyError(f"answered with a part of content that cotbench does not understand: {_dump(holder)}")
    return "".join(map(str, texts))


def _holds(value: object, *known: str) -> bool:
    """Return whether a value holds anything but labels and known fields."""
    if isinstance(value, Mapping):
        return any(_holds(each) for name, each in value.items() if name not in _LABELS and name not in known)
    return any(map(_holds, value)) if isinstance(value, list) else bool(value)


def _calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Return the tool calls of a message; its `function_call`, the older form, is one."""
    listed = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    if not isinstance(listed, list):
        raise ReplyError(f"answered with tool calls that cotbench does not understand: {_dump(listed)}")
    return tuple(map(_call, listed))


def _call(call: object) -> ToolCall:
    fields = _mapping(call)
    function = _mapping(fields.get("function", fields))
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or (arguments is None and _holds(function)):
        raise ReplyError(f"answered with a tool call that cotbench does not understand: {_dump(call)}")
    return ToolCall(name, arguments)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else None


def _token_logprobs(logprobs: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Return texts and log-probabilities of the generated tokens, from the form of either endpoint."""
    content = logprobs.get("content")
    if isinstance(content, list) and content:
        entries = [_mapping(entry) for entry in content]
        scores = [entry.get("logprob") for entry in entries]
        pieces = _decode_pieces([entry.get("bytes") for entry in entries]) or tuple(
            str(entry.get("token")) for entry in entries
        )
    else:
        scores, names = _list(logprobs.get("token_logprobs")), _list(logprobs.get("tokens"))
        pieces = tuple(map(str, names)) if len(names) == len(scores) else ()
    known = [float(score) for score in scores if isinstance(score, int | float)]
    return (pieces, tuple(known)) if known and len(known) == len(scores) else ((), None)


def _decode_pieces(pieces: Sequence[object]) -> tuple[str, ...]:
    """Return the text that each token adds, from its bytes: a character can be spread over several tokens."""
    texts, sofar, before = [], b"", ""
    for piece in pieces:
        if not isinstance(piece, list) or not all(isinstance(byte, int) and 0 <= byte < 256 for byte in piece):
            return ()
        sofar += bytes(piece)
        text = sofar.decode("utf-8", "ignore")
        texts.append(text[len(before) :])
        before = text
    return tuple(texts)


def to_generation(
    reply: CompletionReply,
    request: GenerationRequest,
    growth: Callable[[Sequence[int]], tuple[str, ...]],
    count: Callable[[str], int | None],
) -> Generation:
    """Return a reply as the generation of a request, cut where the request ends it.

    A server may keep the stop string in the text, and none knows our rule for lines: the text is searched here. A stop string
    that is neither in the text nor reported was not met.

    Args:
        reply: the reply.
        request: the request of the program.
        growth: returns the text after each of some ids, where there is a tokenizer; else nothing.
        count: returns the number of tokens of a text, where there is a tokenizer; else None.

    Raises:
        AgentError: the server took a tool call out of the text, though none was asked for.
    """
    if reply.calls:
        raise AgentError(
            f"the server took a call of {reply.calls[0].name!r} out of an answer that was to be text: start it without a "
            "parser of tool calls, or use ?tools=native"
        )
    text_after_token = growth(reply.ids) if reply.ids else ()
    joined = "".join(reply.pieces)
    # Else these are not texts but names of tokens. Some servers leave out the pieces of the stop string.
    if not text_after_token and (joined.startswith(reply.text) or reply.text.startswith(joined)):
        text_after_token = tuple("".join(reply.pieces[: end + 1]) for end in range(len(reply.pieces)))
    found = first_stop(reply.text, request.stops, request.one_line)
    text, stop = found if found is not None else (reply.text, _end(reply, request))
    total = reply.tokens if reply.tokens is not None else len(text_after_token) or count(reply.text) or 0
    logprobs, ids = reply.logprobs, reply.ids
    if stop == "eos":  # The token that ends the turn is counted, and no text.
        text_after_token = tuple(each for each in text_after_token if len(each) <= len(text))
        last = ids[len(text_after_token) :]
        completion_ids = ids[: len(text_after_token)]
        return Generation(text, stop, total, text_after_token, completion_ids, logprobs, last[0] if len(last) == 1 else None)
    ended = next(
        (place for place, each in enumerate(text_after_token, 1) if first_stop(each, request.stops, request.one_line)), None
    )
    if ended is not None:
        cut = None if logprobs is None else logprobs[:ended]
        return Generation(text, stop, min(total, ended), text_after_token[:ended], ids[:ended], cut)
    # The server generated more text, and reports no tokens to cut.
    if found is not None and reply.text[len(text) + len(stop) :].strip():
        end = count(reply.text[: len(text) + len(stop)])
        return Generation(text, stop, total if end is None else min(total, end), (), (), None)
    return Generation(text, stop, total, text_after_token, ids, logprobs)


def _end(reply: CompletionReply, request: GenerationRequest) -> str:
    if reply.finish == "length":
        return "budget"
    return reply.stop if reply.stop in request.stops else "eos"
