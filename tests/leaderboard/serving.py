"""A leaderboard, served on a free port by the real server, and requests as they go over the wire."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.leaderboard.made import edited, packed, setting

needs_web = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("sqlalchemy", "fastapi", "uvicorn", "jinja2", "python_multipart")),
    reason="what serves the leaderboard is not installed: pip install -e '.[leaderboard]'",
)
ZIP = {"Content-Type": "application/zip"}
BOUNDARY = "form-boundary"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def served(store: Any, **settings: Any) -> Iterator[str]:
    """The address of a server of that store; `settings` as of `Settings`."""
    from cotbench.leaderboard.web.app import server_of
    from cotbench.leaderboard.web.settings import Settings

    server = server_of(store, Settings(**{"port": 0, **settings}), "critical")
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not (server.started and server.servers):
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def ask(
    server: str,
    path: str,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own. A body that is an iterator is sent in chunks, without a length."""
    parts = urlsplit(server)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def sent(server: str, data: bytes, query: str = "", **headers: str) -> Answer:
    """Submit a bundle through the API."""
    return ask(server, f"/api/entries{query}", "POST", data, {**ZIP, **headers})


def form(fields: Mapping[str, str], file: bytes | None = None) -> tuple[bytes, dict[str, str]]:
    """What a browser sends for the form: body and headers."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if file is not None:
        head = 'Content-Disposition: form-data; name="file"; filename="run.zip"\r\nContent-Type: application/zip'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + file + b"\r\n")
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def variant(number: int) -> bytes:
    """A submission like no other number's: one episode was answered with so many tokens."""
    return edited(packed(), episodes=setting(0, "trajectory", 0, "decision", "action_tokens", to=number))
