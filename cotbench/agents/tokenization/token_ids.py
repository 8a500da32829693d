"""Token ids of text pieces. Invariant: a piece that was generated keeps the ids that it was generated as."""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.prompting.generation import Prefill


def prefill_ids(chat: Chat, opened: Prefill) -> list[int]:
    """Token ids of the assistant's turn so far."""
    ids: list[int] = []
    for piece in opened:
        ids += chat.encode(piece) if isinstance(piece, str) else truncate_ids(chat, piece.ids, piece.text)
    return ids


def truncate_ids(chat: Chat, ids: Sequence[int], text: str) -> list[int]:
    """Token ids of `text`, which is the beginning of what `ids` say: the same tokens as far as they go, the rest encoded anew.

    A tag can begin inside a token; then the token's first part has to become a token of its own.
    """
    for count in range(len(ids), -1, -1):
        start = chat.decode(ids[:count])
        if text.startswith(start):
            rest = text[len(start) :]
            return [*ids[:count], *(chat.encode(rest) if rest else [])]
    return chat.encode(text)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    shorter = min(len(left), len(right))
    if list(left[:shorter]) == list(right[:shorter]):
        return shorter
    return next(index for index in range(shorter) if left[index] != right[index])
