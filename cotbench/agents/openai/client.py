"""What the `openai:` agent asks: a server, or an engine that takes the same requests. Invariant: every failure of a request is
a `ServerError`; what is returned is the model's answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

from cotbench.agents.openai.reply import CompletionReply

Path = Literal["chat/completions", "completions"]


class CompletionClient(Protocol):
    """Anything that answers requests in the form of OpenAI's protocol.

    Attributes:
        url: names it in messages; the base URL of a server.
    """

    url: str

    def ask(self, path: Path, body: Mapping[str, Any], *, final: Collection[int] = ()) -> CompletionReply:
        """Return the answer to a request; see `Connection.ask`."""

    def models(self) -> list[dict[str, Any]]:
        """Return the list of models."""

    def look_up(self, url: str) -> object:
        """Return the decoded answer to a GET request; None where there is none."""

    def close(self) -> None:
        """Start no further request."""

    def redact(self, text: str) -> str:
        """Return a text without the key."""
