"""Text of tokens that come one by one. Invariant: after each token the text is what decoding all of them at once gives; it is
found without doing that where the tokenizer's decoder allows it.

A byte-level decoder writes down the bytes of all tokens and reads them as UTF-8. So the text may be cut wherever a character
ends, and most tokens have a text of their own that is simply appended. A decoder of SentencePiece's kind (Gemma, Llama 2,
Mistral) reads bytes that follow each other together, and leaves a blank out at the very start: the text may be cut behind any
token with a text that is no byte, and the token before the cut stands in for all before it. Other decoders look at a token's
neighbours in ways of their own: for these all tokens are decoded each time.
"""

from __future__ import annotations

from cotbench.agents.tokenization.chat_template import Chat

_INCOMPLETE = "\ufffd"
"""What stands for bytes that are no character, or not yet one."""


class Detokenizer:
    """Keep the text of a growing list of tokens.

    Args:
        chat: the tokenizer.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._ids: list[int] = []
        self._text = ""
        self._pending: list[int] = []
        self._before: tuple[list[int], str] = ([], "")

    def append(self, token: int) -> str:
        """Append a token; return the text of all of them."""
        if self._chat.decodes_bytes:
            return self._append_bytes(token)
        if self._chat.decodes_pieces:
            return self._append_piece(token)
        self._ids.append(token)
        return self._chat.decode(self._ids)

    def _append_piece(self, token: int) -> str:
        self._pending.append(token)
        before, text_before = self._before
        text = self._text + self._chat.decode([*before, *self._pending])[len(text_before) :]
        alone = self._chat.decode([token])
        if alone and not self._chat.is_byte(token):
            self._text, self._pending, self._before = text, [], ([token], alone)
        return text

    def _append_bytes(self, token: int) -> str:
        self._pending.append(token)
        new = self._chat.token_text(token) if len(self._pending) == 1 else self._chat.decode(self._pending)
        if new.endswith(_INCOMPLETE):
            return self._text + new
        self._text += new
        self._pending.clear()
        return self._text
