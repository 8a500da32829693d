"""Connections of the server. Invariant: each has a deadline at every moment, and one address holds only so many, so that a
client that sends nothing, sends slowly or reads slowly keeps no other away.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from cotbench.leaderboard.web.rate_limits import network_of
from cotbench.leaderboard.web.settings import Settings

_ANSWER = 60.0
"""Seconds for an answer, beside those for an upload."""

_TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 40\r\n"
    b"retry-after: 20\r\nconnection: close\r\n\r\ntoo many connections from your address.\n"
)


def limited_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol for a connection, with deadlines and a limit for each address.

    Args:
        settings: `connections`, `header_seconds` and `upload_seconds`.
    """

    class LimitedProtocol(H11Protocol):  # type: ignore[misc]
        """A connection with a deadline: until a request's headers are there, and then until it is answered."""

        _deadline: asyncio.TimerHandle | None = None
        _answering: Any = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            address = network_of(self.client[0] if self.client else "")
            same = sum(network_of(other.client[0] if other.client else "") == address for other in self.connections)
            if same > settings.connections:
                transport.write(_TOO_MANY)
                transport.close()
                return
            self._set_deadline(settings.header_seconds)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._follow()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._follow()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            super().connection_lost(exc)

        def _follow(self) -> None:
            """Set the next deadline where a request has begun to be answered, or has been answered."""
            cycle = None if self.cycle is None or self.cycle.response_complete else self.cycle
            if cycle is not self._answering:
                self._answering = cycle
                self._set_deadline(settings.header_seconds if cycle is None else settings.upload_seconds + _ANSWER)

        def _set_deadline(self, seconds: float) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    return LimitedProtocol
