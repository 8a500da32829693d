"""A transport of the openai client's HTTP library that reads bodies of bounded length in bounded time. Invariant: no body, of
an answer or of an error, takes more memory than `BODY_BYTES`, or more time than an answer may, however slowly it comes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

BODY_BYTES = 16 << 20
"""Bytes of a body; one with the log-probabilities of a prompt of 100,000 tokens has half of them."""


def bounded_transport(library: Any, seconds: float, **settings: Any) -> Any:
    """Return a transport with bounds.

    Args:
        library: httpx, or a module with its names.
        seconds: how long a body may take, from the request on.
        settings: of `HTTPTransport`.
    """

    class Body(library.SyncByteStream):  # type: ignore[misc]
        """The body of an answer, read up to its bounds."""

        def __init__(self, stream: Any, deadline: float) -> None:
            self._stream, self._deadline = stream, deadline

        def __iter__(self) -> Iterator[bytes]:
            left = BODY_BYTES
            for chunk in self._stream:
                left -= len(chunk)
                if left < 0:
                    raise library.RemoteProtocolError(f"a body of more than {BODY_BYTES:,} bytes")
                if time.monotonic() > self._deadline:
                    raise library.ReadTimeout("the body came too slowly")
                yield chunk

        def close(self) -> None:
            self._stream.close()

    class Transport(library.HTTPTransport):  # type: ignore[misc]
        """A transport that asks for bodies as they are: a small compressed one can be a large one."""

        def handle_request(self, request: Any) -> Any:
            request.headers["Accept-Encoding"] = "identity"
            deadline = time.monotonic() + seconds
            response = super().handle_request(request)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                response.close()
                raise library.RemoteProtocolError("a compressed body, which was not asked for")
            response.stream = Body(response.stream, deadline)
            return response

    return Transport(**settings)
