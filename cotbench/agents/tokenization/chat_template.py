"""Render messages to token ids. Invariants: the prompt of a longer dialogue begins with the token ids of the shorter one and of
the answer given there, whatever the model's chat template does; no text of a message is ever read as a control token; no prompt
depends on the clock.

A prompt is put together from the texts that the template writes around messages (`turn_layout`) and the messages' own. Each
assistant's turn is encoded in the pieces in which it is generated: the tags, and what stands between them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

from cotbench.agents.tokenization.template_clock import TEMPLATE_DATE, pin_clock, reads_clock
from cotbench.agents.tokenization.turn_layout import find_layout
from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Message
from cotbench.prompting.parsing import USUAL_TAGS, Tags

_CACHED_CHARS, _CACHED_TEXTS, _CACHED_STARTS = 1000, 8192, 64
"""Ids of texts up to so many characters are cached, of so many texts; and of so many beginnings of dialogues."""

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
"""A token of SentencePiece that stands for one byte."""

_ANCHOR = "\n"
"""Text before a piece where a tokenizer puts a blank before every text."""


class Chat:
    """Encode prompts and texts with a tokenizer and its chat template; a plain template of our own where the model has none.

    Args:
        tokenizer: of transformers.
        tags: that stand in the assistant's turns.

    Attributes:
        turn_end: the ids that end the assistant's turn as the template writes past turns, up to and including the first control
            token; where it writes none, the tokenizer's end-of-sequence token; nothing where there is none.
        token_text: returns the text of one token.

    Raises:
        AgentError: the template drops, moves or rewrites messages, or the tokenizer cannot encode a turn in pieces.
    """

    def __init__(self, tokenizer: Any, tags: Tags = USUAL_TAGS) -> None:
        self._tokenizer = tokenizer
        self.tags = tags
        # What the harness writes into the assistant's turn (see `cotbench.prompting.generation`).
        self._pieces_pattern = re.compile(
            f"({tags.think_open}|{tags.think_close}\n|{tags.think_close}|{tags.action_open}|{tags.action_close})"
        )
        self._variants: dict[Tags, Chat] = {tags: self}
        self._template = template_of(tokenizer)
        try:
            self._layout = find_layout(self._render)
        except AgentError as error:
            raise AgentError(f"the chat template of {tokenizer.name_or_path} cannot be used: {error}") from error
        self._control = self._control_tokens()
        self._encode_cached = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)  # Tags, actions, the history of an episode.
        self._encode_start = lru_cache(maxsize=_CACHED_STARTS)(self._tokenize)
        self.token_text = lru_cache(maxsize=None)(lambda token: self.decode([token]))
        self._anchor_ids: tuple[int, ...] | None = None
        if self._unreadable_piece() is not None:
            self._anchor_ids = self._tokenize(_ANCHOR)
            self._encode_cached.cache_clear()
            if (found := self._unreadable_piece()) is not None:
                piece, decoded = found
                raise AgentError(
                    f"the tokenizer of {tokenizer.name_or_path} reads {piece!r} as {decoded!r}: it cannot write that"
                )
        self.turn_end = self._turn_end()

    def with_tags(self, tags: Tags) -> Chat:
        """Return the same tokenizer and template for turns with other tags.

        Args:
            tags: of an elicitation.

        Raises:
            AgentError: the tokenizer cannot write them piece by piece.
        """
        if tags not in self._variants:
            self._variants[tags] = Chat(self._tokenizer, tags)
        return self._variants[tags]

    @property
    def end_ids(self) -> frozenset[int]:
        """Return the tokens that end the assistant's turn: the template's, and the tokenizer's end of a sequence."""
        ends = {self._tokenizer.eos_token_id, *self.turn_end[-1:]}
        return frozenset(end for end in ends if end is not None)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text that stands behind another, without special tokens around it."""
        return list(self._encode_cached(text) if len(text) <= _CACHED_CHARS else self._encode(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        if self._anchor_ids is None:
            return self._tokenize(text)
        ids, length = self._tokenize(_ANCHOR + text), len(self._anchor_ids)
        return ids[length:] if ids[:length] == self._anchor_ids else self._tokenize(text)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_whole(self, text: str) -> list[int]:
        """Return the token ids of a text that stands alone, encoded as a whole."""
        return list(self._tokenize(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @cached_property
    def decodes_bytes(self) -> bool:
        """Return whether the text of tokens is their bytes, one after the other, read as UTF-8."""
        decoder = getattr(getattr(self._tokenizer, "backend_tokenizer", None), "decoder", None)
        return type(decoder).__name__ == "ByteLevel"

    @cached_property
    def decodes_pieces(self) -> bool:
        """Return whether the text of tokens is that of their pieces, one after the other, as SentencePiece has it.

        Bytes that follow each other are read together, and a blank at the start may be left out.
        """
        decoder = getattr(getattr(self._tokenizer, "backend_tokenizer", None), "decoder", None)
        if type(decoder).__name__ != "Sequence":
            return False
        settings: Any = decoder
        steps = json.loads(settings.__getstate__())["decoders"]
        kinds = [step["type"] for step in steps]
        if kinds not in (["Replace", "ByteFallback", "Fuse"], ["Replace", "ByteFallback", "Fuse", "Strip"]):
            return False
        return bool(steps[0]["content"]) and all(step["start"] <= 1 and step["stop"] == 0 for step in steps[3:])

    def is_byte(self, token: int) -> bool:
        """Return whether a token of a tokenizer with `decodes_pieces` stands for one byte."""
        return _BYTE.fullmatch(str(self._tokenizer.convert_ids_to_tokens(token))) is not None

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of the prompt `p`: the chat, and the opening of the assistant's turn.

        Args:
            messages: a system message, then user and assistant in turn; the last is a user's.
        """
        start, *pieces = self._pieces(messages)
        ids = list(self._encode_start(start))
        for piece in pieces:
            ids += self.encode(piece)
        return ids

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """Return the prompt `p` as text; see `prompt_ids`."""
        return "".join(self._pieces(messages))

    def template_difference(self, sent: Sequence[dict[str, str]], messages: Sequence[Message], opening: str) -> str:
        """Return why a server that renders this template itself makes another prompt of messages; empty where it does not.

        Args:
            sent: the messages as they are sent, the opened turn last.
            messages: the same messages, as `prompt_text` takes them.
            opening: the text of the opened turn.
        """
        if self._template is None:
            return ""
        if reads_clock(self._template):
            return "the chat template writes the date of today"
        try:
            text = self._tokenizer.apply_chat_template(sent, tokenize=False, continue_final_message=True)
        except Exception:  # A template may raise anything; and one that cuts out thinking leaves no turn to be continued.
            text = None
        same = text == self.prompt_text(messages) + opening
        return "" if same else f"the chat template does not write a turn that stands at {opening!r} as it writes past turns"

    def _pieces(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield the texts of a prompt that are encoded one by one."""
        layout = self._layout
        roles = [message.role for message in messages]
        if roles != ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]:
            raise ValueError("a chat is a system message, then messages of user and assistant in turn")
        if layout.system_end is None:
            first, *rest = system_in_first_user(messages)
            text = layout.head + self.escape_special(first.content)
        else:
            system, first, *rest = messages
            text = layout.head + self.escape_special(system.content) + layout.system_end + self.escape_special(first.content)
        for answer, observation in zip(rest[::2], rest[1::2], strict=True):
            yield text + layout.opening
            yield from filter(None, self._pieces_pattern.split(self.escape_special(answer.content)))
            text = layout.closing + self.escape_special(observation.content)
        yield text + layout.opening

    def escape_special(self, content: str) -> str:
        """Return a message's text with control tokens broken up: what a model wrote must not end its turn in our prompt.

        The tags of the elicitation stay whole, also where a model has them as control tokens.
        """
        if self._control is None:
            return content
        return self._control.sub(lambda match: f"{match[0][:1]} {match[0][1:]}", content)

    def _control_tokens(self) -> re.Pattern[str] | None:
        """Return a pattern of the control tokens: special ones, and those that the template writes between messages."""
        words = set(self._tokenizer.all_special_tokens)
        for token in self._tokenizer.added_tokens_decoder.values():
            text = str(token)
            if token.special or (text.strip() and any(text in separator for separator in self._layout.separators)):
                words.add(text)
        longest_first = sorted(
            (word for word in words if word and word not in self.tags.all), key=lambda word: (-len(word), word)
        )
        return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def _unreadable_piece(self) -> tuple[str, str] | None:
        """Return a piece that, encoded on its own behind others, does not decode to itself, and what it decodes to."""
        ids: list[int] = []
        tags = self.tags
        for piece in ("go", tags.think_open, "go", f"{tags.think_close}\n", tags.action_open, "go", tags.action_close):
            before = self.decode(ids)
            ids += self.encode(piece)
            if (decoded := self.decode(ids)) != before + piece:
                return piece, decoded.removeprefix(before)
        return None

    def _turn_end(self) -> tuple[int, ...]:
        match = None if self._control is None else self._control.search(self._layout.closing)
        if match is not None:
            return tuple(self.encode(self._layout.closing[: match.end()]))
        end = self._tokenizer.eos_token_id
        return () if end is None else (end,)

    def _render(self, messages: Sequence[Message]) -> str:
        if self._template is None:
            return (self._tokenizer.bos_token or "") + _plain_chat(messages)
        chat = [message._asdict() for message in messages]
        options: dict[str, Any] = {"chat_template": pin_clock(self._template), "add_generation_prompt": True}
        return str(self._tokenizer.apply_chat_template(chat, tokenize=False, **options))


def template_of(tokenizer: Any) -> str | None:
    """Return the chat template that a tokenizer uses, also where it has several by name; None where it has none.

    Raises:
        AgentError: it has several, and none is the default.
    """
    template = tokenizer.chat_template
    if template is None or isinstance(template, str):
        return template
    if not isinstance(template.get("default"), str):
        raise AgentError(
            f"the tokenizer of {tokenizer.name_or_path} has chat templates {sorted(template)}, and none is 'default'"
        )
    return str(template["default"])


def describe_template(tokenizer: Any) -> dict[str, Any]:
    """Return what a manifest records of a tokenizer's chat template: its sha256, and the date where it asks the clock."""
    template = template_of(tokenizer)
    if template is None:
        return {"chat_template_sha256": None}
    clock = {"template_date": TEMPLATE_DATE.date().isoformat()} if reads_clock(template) else {}
    return {"chat_template_sha256": hashlib.sha256(template.encode()).hexdigest(), **clock}


def system_in_first_user(messages: Sequence[Message]) -> list[Message]:
    """Return a chat without a system message, for templates that know none: its text stands before the first user's."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    first = rest[0]
    return [Message(first.role, f"{system}\n\n{first.content}"), *rest[1:]]


def _plain_chat(messages: Sequence[Message]) -> str:
    names = {"system": "Instructions", "user": "Observation", "assistant": "Answer"}
    return "".join(f"{names[message.role]}:\n{message.content}\n\n" for message in messages) + "Answer:\n"
