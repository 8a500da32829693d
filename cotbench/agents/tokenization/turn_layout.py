"""How a chat template writes turns. Invariant: what is known of a template is what it wrote when it was rendered, never what
its name promises: a template that moves, drops or rewrites messages is refused.

A template is rendered over placeholders, once. The assistant's turn is opened and closed as the template writes *past* turns,
so a longer dialogue begins with the shorter one, answer included. The generation prompt is only compared with that: some
templates open a thinking block there, some close an empty one ("thinking off"), some leave out the end of a header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Message
from cotbench.prompting.parsing import THINK_CLOSE, THINK_OPEN

Render = Callable[[Sequence[Message]], str]
"""Returns the text of a chat, with the opening of the assistant's turn behind it; may raise anything."""

_THINKING = re.compile(rf"(?:{THINK_OPEN}\s*(?:{THINK_CLOSE}\s*)?|{THINK_CLOSE}\s*)$")
"""A thinking block at the end of an opening: opened, or opened and closed, or closed alone."""

_PLACEHOLDER = "@@cotbench:{}@@"
_TURNS = 3
"""User turns of the longest chat that is rendered: two turns of the assistant are past."""


@dataclass(frozen=True, slots=True)
class TurnLayout:
    """The texts that a template writes between the texts of messages.

    Attributes:
        head: before the system text; before the first user's where `system_end` is None.
        system_end: between the system text and the first user's; None where the template takes no system role.
        opening: between a user's text and the assistant's.
        closing: between the assistant's text and the next user's.
    """

    head: str
    system_end: str | None
    opening: str
    closing: str

    @property
    def separators(self) -> tuple[str, ...]:
        """Return all texts that the template writes."""
        return self.head, self.system_end or "", self.opening, self.closing


def find_layout(render: Render) -> TurnLayout:
    """Return how a template writes turns.

    Args:
        render: renders a chat by the template.

    Raises:
        AgentError: it cannot be used; the message says why, and does not name the template.
    """
    try:
        return _layout(render, system=True)
    except AgentError:  # Some templates refuse the system role, some move it behind later turns, some leave it out.
        return _layout(render, system=False)


def _layout(render: Render, *, system: bool) -> TurnLayout:
    texts = _separators(render, system=system, turns=_TURNS)
    head = texts[: 1 + system]
    rest, generation_prompt = texts[1 + system : -1], texts[-1]
    openings, closings = set(rest[::2]), set(rest[1::2])
    if len(openings) > 1 or len(closings) > 1:
        raise AgentError("it does not write all past turns alike")
    (opening,), (closing,) = openings, closings
    if _separators(render, system=system, turns=1) != [*head, generation_prompt]:
        raise AgentError("it writes the first turn of a longer chat differently from that of a chat of one turn")
    past, begun = _THINKING.sub("", opening), _THINKING.sub("", generation_prompt)
    if not (past.startswith(begun) or begun.startswith(past)):
        raise AgentError(f"it opens a turn with {_short(begun)}, and writes past turns with {_short(past)}")
    return TurnLayout(head[0], head[1] if system else None, past, closing)


def _separators(render: Render, *, system: bool, turns: int) -> list[str]:
    """Return the texts before, between and behind the messages of a chat, which ends with a user's.

    Raises:
        AgentError: a message is missing, twice there, or at another place.
    """
    roles = [*(["system"] if system else []), *["user", "assistant"] * (turns - 1), "user"]
    chat = [Message(role, _PLACEHOLDER.format(index)) for index, role in enumerate(roles)]
    try:
        rest = render(chat)
    except Exception as error:  # A template may raise anything, usually jinja2's TemplateError.
        reason = " ".join(str(error).split())[:160]
        raise AgentError(f"it refuses a chat of {turns} turns ({type(error).__name__}: {reason})") from error
    return [*_split(rest, chat)]


def _split(rest: str, chat: Sequence[Message]) -> Iterator[str]:
    for message in chat:
        if rest.count(message.content) != 1:
            raise AgentError(f"it drops or repeats a {message.role} message, or moves it after a later one")
        before, _, rest = rest.partition(message.content)
        yield before
    yield rest


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"...{text[-57:]}")
