"""A whole answer of CoT mode in token ids. Invariant: training and probes make an answer here and nowhere else, in the pieces
in which evaluation opens it.
"""

from __future__ import annotations

from typing import Literal

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import prefill_ids
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN

Label = Literal["prompt", "think_open", "trace", "think_close", "action_open", "action", "closing"]
"""What a piece is."""


def answer_pieces(chat: Chat, trace: str, action: str, end: int | None = None) -> list[tuple[Label, list[int]]]:
    """The answer, piece by piece (`cotbench.prompting.generation`); trace and action are encoded on their own.

    Args:
        end: a token that ends the assistant's turn, put behind the answer; None for none.
    """
    return [
        ("think_open", prefill_ids(chat, (THINK_OPEN,))),
        ("trace", chat.encode(chat.escape_special(trace))),
        ("think_close", prefill_ids(chat, (f"{THINK_CLOSE}\n",))),
        ("action_open", prefill_ids(chat, (ACTION_OPEN,))),
        ("action", chat.encode(chat.escape_special(action))),
        ("closing", [*chat.encode(ACTION_CLOSE), *([] if end is None else [end])]),
    ]
