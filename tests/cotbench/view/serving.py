"""A folder, served on a free port by the real server, and requests as they go over the wire."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

needs_view = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("starlette", "uvicorn", "jinja2")),
    reason="what serves the page is not installed: pip install 'cotbench[view]'",
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    text: str


class Served:
    """A server of a folder."""

    def __init__(self, port: int, library: Any) -> None:
        self.port, self.library = port, library
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request; `headers` with underscores for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named: Mapping[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    def now(self) -> None:
        """Let the next answer be of what there is now, not of a moment ago."""
        self.library._next_search = self.library._fresh_until = float("-inf")


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """Serve a folder."""
    import socket

    from cotbench.view.app import server_of
    from cotbench.view.library import Library

    library = Library(root)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(16)
    server = server_of(library, "critical")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    try:
        yield Served(listening.getsockname()[1], library)
    finally:
        server.should_exit = True
        thread.join(60)
