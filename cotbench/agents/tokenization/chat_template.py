"""Render messages to token ids. Invariant: the prompt of a longer dialogue begins with the token ids of the shorter one,
whatever the model's chat template does to thinking blocks; no text of a message is ever read as a control token.

Templates strip past thinking, or open a thinking block for the answer. So a template is rendered over placeholders, the
messages' own text is put in afterwards, and a thinking tag that it opens by itself is taken away: the elicitation opens
the tags.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Message
from cotbench.prompting.parsing import THINK_OPEN

_CACHED_CHARS, _CACHED_TEXTS = 80, 8192
"""Ids of texts up to so many characters are cached, of so many texts."""


class Chat:
    """Encode prompts and texts with a tokenizer and its chat template; a plain template of our own where the model has none.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= set(tokenizer.all_special_tokens)
        words = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, words))) if words else None
        self._system_role = self._accepts_system()
        self._encode_cached = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)  # Tags and actions come again and again.

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens around it."""
        return list(self._encode_cached(text) if len(text) <= _CACHED_CHARS else self._encode(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of the prompt `p`: the chat, and the opening of the assistant's turn.

        Raises:
            AgentError: the template drops a message.
        """
        return self.encode(self.prompt_text(messages))

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Return the prompt `p` as text; errors as in `prompt_ids`."""
        chat = list(messages) if self._system_role else system_in_first_user(messages)
        places = [f"@@cotbench:{index}@@" for index in range(len(chat))]
        rendered = self._render([Message(message.role, place) for message, place in zip(chat, places, strict=True)])
        pieces = []
        for message, place in zip(chat, places, strict=True):
            before, found, rendered = rendered.partition(place)
            if not found:
                raise AgentError(f"the chat template of {self._tokenizer.name_or_path} drops a {message.role} message")
            pieces += [before, self.escape_special(message.content)]
        if rendered.rstrip().endswith(THINK_OPEN):
            rendered = rendered.rstrip().removesuffix(THINK_OPEN)
        return "".join((*pieces, rendered))

    def escape_special(self, content: str) -> str:
        """Return a message's text with control tokens broken up: what a model wrote must not end its turn in our prompt."""
        if self._special is None:
            return content
        return self._special.sub(lambda match: f"{match[0][:1]} {match[0][1:]}", content)

    def _render(self, messages: Sequence[Message]) -> str:
        if self._tokenizer.chat_template is None:
            return (self._tokenizer.bos_token or "") + _plain_chat(messages)
        chat = [message._asdict() for message in messages]
        return str(self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def _accepts_system(self) -> bool:
        """Return whether the template knows the system role; some refuse it, some leave it out silently."""
        try:
            return "@@s@@" in self._render([Message("system", "@@s@@"), Message("user", "@@u@@")])
        except Exception:  # A template may raise anything, usually jinja2's TemplateError.
            return False


def system_in_first_user(messages: Sequence[Message]) -> list[Message]:
    """Return a chat without a system message, for templates that know none: its text stands before the first user's."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    first = rest[0]
    return [Message(first.role, f"{system}\n\n{first.content}"), *rest[1:]]


def _plain_chat(messages: Sequence[Message]) -> str:
    names = {"system": "Instructions", "user": "Observation", "assistant": "Answer"}
    return "".join(f"{names[message.role]}:\n{message.content}\n\n" for message in messages) + "Answer:\n"
