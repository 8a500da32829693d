"""Parse a server's answer. Invariant: what a server does not report stays unknown; nothing is guessed into a `Generation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.prompting.generation import Generation, GenerationRequest, first_stop


@dataclass(frozen=True, slots=True)
class CompletionReply:
    """The first choice of an answer.

    Attributes:
        text: the generated text.
        reasoning: the text that a server's reasoning parser took out of it; None where it took nothing.
        finish: "stop", "length", "tool_calls", ...
        stop: the stop string that was met, where the server reports it (vLLM: `stop_reason`, SGLang: `matched_stop`).
        calls: tool calls, as the server sent them.
        pieces: the text of each generated token, where reported.
        logprobs: the log-probability of each generated token, where reported.
        ids: the id of each generated token, where reported.
        tokens: number of generated tokens; None where not reported.
        prompt_tokens: number of tokens of the prompt; None where not reported.
        cached_tokens: number of these that were in the server's KV cache.
        reasoning_tokens: number of the generated tokens that are reasoning.
    """

    text: str
    reasoning: str | None = None
    finish: str | None = None
    stop: str | None = None
    calls: tuple[Mapping[str, Any], ...] = ()
    pieces: tuple[str, ...] = ()
    logprobs: tuple[float, ...] | None = None
    ids: tuple[int, ...] = ()
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def read_reply(loaded: Mapping[str, Any]) -> CompletionReply:
    """Parse a decoded answer of either endpoint, which has a choice."""
    choice = loaded["choices"][0]
    message = _mapping(choice.get("message"))
    text = choice.get("text") if "text" in choice else message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    usage = _mapping(loaded.get("usage"))
    stop = choice.get("stop_reason", choice.get("matched_stop"))
    pieces, logprobs = _token_logprobs(_mapping(choice.get("logprobs")))
    ids = choice.get("token_ids")
    return CompletionReply(
        text=text if isinstance(text, str) else "",
        reasoning=reasoning if isinstance(reasoning, str) else None,
        finish=choice.get("finish_reason"),
        stop=stop if isinstance(stop, str) else None,
        calls=tuple(call for call in message.get("tool_calls") or () if isinstance(call, Mapping)),
        pieces=pieces,
        logprobs=logprobs,
        ids=tuple(ids) if isinstance(ids, list) else (),
        tokens=_count(usage, "completion_tokens"),
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(_mapping(usage.get("prompt_tokens_details")), "cached_tokens") or 0,
        reasoning_tokens=_count(_mapping(usage.get("completion_tokens_details")), "reasoning_tokens") or 0,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


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
        scores, names = logprobs.get("token_logprobs") or [], logprobs.get("tokens") or []
        pieces = tuple(map(str, names)) if len(names) == len(scores) else ()
    known = [float(score) for score in scores if isinstance(score, int | float)]
    return (pieces, tuple(known)) if known and len(known) == len(scores) else ((), None)


def _decode_pieces(pieces: Sequence[object]) -> tuple[str, ...]:
    """Return the text that each token adds, from its bytes: a character can be spread over several tokens."""
    texts, sofar, before = [], b"", ""
    for piece in pieces:
        if not isinstance(piece, list):
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
    """
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
