"""Stop strings at a server: what it does with them, and how they are sent. Invariant: a stop string that was met is never taken
for the end of the turn.

Some servers report which string was met, some keep it in the text. Others cut the text there and report `stop`, as they do when
the model ends its turn. To these a closing tag is sent without its first character: the character then stays at the end of the
text, and shows that the tag was met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from cotbench.agents.openai.reply import CompletionReply

Stops = Literal["told", "kept", "cut", "ignored", "refused", "unknown"]
"""What a server does with a stop string that is met: reports it, keeps it in the text, cuts the text there, nothing; or it
refuses the field; or the test requests showed none of these."""

WARNINGS: dict[Stops, str] = {
    "ignored": "it ignores stop strings, so answers are generated up to their token budget and the excess is discarded",
    "refused": "it refuses stop strings, so answers are generated up to their token budget and the excess is discarded",
    "unknown": "test requests did not show what it does with stop strings: compare the tokens generated with the budgets",
}
"""What to say about a server, by what it does with stop strings."""

_CLOSING = "</"


def choose_test_stop(reply: CompletionReply) -> str | None:
    """Return a stop string that the same request meets again: a piece from the beginning of a greedy answer.

    Args:
        reply: the answer, generated without stop strings.

    Returns:
        The stop string; None where the answer is too short.
    """
    piece = _full_text(reply).strip()[1:3]
    return piece if len(piece) == 2 else None


def classify_stops(stop: str, free: CompletionReply, stopped: CompletionReply) -> Stops:
    """Return what a server does with stop strings.

    Args:
        stop: the stop string.
        free: the greedy answer without stop strings, which holds `stop`.
        stopped: the answer to the same request with `stop`.
    """
    if stopped.stop == stop:
        return "told"
    whole, text = _full_text(free), _full_text(stopped)
    if stop in text:
        return "kept" if _length(stopped) < _length(free) else "ignored"
    return "cut" if text.strip() == whole[: whole.index(stop)].strip() else "unknown"


def stops_to_send(stops: Sequence[str], handling: Stops) -> list[str]:
    """Return the stop strings to send for those of a request.

    Args:
        stops: the stop strings of the request, one of them a closing tag.
        handling: what the server does with stop strings.
    """
    if handling in ("told", "kept"):
        return list(stops)
    # Only one: with two, the character that stays could belong to either.
    return [stop[1:] for stop in stops if stop.startswith(_CLOSING)] if handling in ("cut", "unknown") else []


def restore_stop(reply: CompletionReply, stops: Sequence[str], handling: Stops) -> CompletionReply:
    """Return a reply with the rest of the closing tag that was met, where it was sent without its first character.

    Args:
        reply: the reply.
        stops: the stop strings of the request.
        handling: what the server does with stop strings.
    """
    if reply.finish == "length":
        return reply
    for rest in stops_to_send(stops, handling):
        tag = next(stop for stop in stops if stop.endswith(rest))
        if tag != rest and reply.text.endswith(tag.removesuffix(rest)):
            return replace(reply, text=reply.text + rest)
    return reply


def _full_text(reply: CompletionReply) -> str:
    return (reply.reasoning or "") + reply.text


def _length(reply: CompletionReply) -> int:
    return len(_full_text(reply)) if reply.tokens is None else reply.tokens
