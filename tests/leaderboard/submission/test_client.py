"""The client that submits: where a submission goes, and which way."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cotbench.errors import UsageError
from cotbench.leaderboard.submission.client import submit

SECRET = "cotbench-secret-0123456789"


@dataclass
class _Board:
    """A server that stores everything; `requests` are the paths that it was asked for, each with its token."""

    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def _board() -> Iterator[_Board]:
    board = _Board()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            board.requests.append((self.path, self.headers["Authorization"]))
            body = json.dumps({"id": "0123456789ab", "state": "pending"}).encode()
            self.send_response(201)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    board.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield board
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def board() -> Iterator[_Board]:
    with _board() as one:
        yield one


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("form", ["{url}", "{url}/", "HTTP://{host}", "{host}", " {host} ", "{local}"])
def test_an_address_may_lack_its_scheme(form: str, board: _Board) -> None:
    host = board.url.removeprefix("http://")
    server = form.format(url=board.url, host=host, local=board.url.replace("127.0.0.1", "localhost"))
    assert submit(server, b"zip", SECRET).url.endswith("/entries/0123456789ab")
    assert board.requests == [("/api/entries", f"Bearer {SECRET}")]


@pytest.mark.parametrize(
    "server",
    [
        "http:/host",
        "https//host",
        "https:host",
        "ftp://host",
        "//host",
        "",
        ":8000",
        "host:port",
        "ho st",
        "http://http://host",
    ],
)
def test_a_slip_is_no_address(server: str) -> None:
    with pytest.raises(UsageError, match=r"^--server: not the address of a server"):
        submit(server, b"zip")


@pytest.mark.parametrize("server", [f"https://me:{SECRET}@host", f"me:{SECRET}@host", f"https://host?token={SECRET}"])
def test_a_password_belongs_into_no_address(server: str) -> None:
    with pytest.raises(UsageError, match="holds more than a host and a path") as raised:
        submit(server, b"zip")
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_this_machine_is_reached_without_a_proxy(board: _Board, monkeypatch: pytest.MonkeyPatch) -> None:
    with _board() as proxy:
        for name in ("HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        submit(board.url, b"zip", SECRET)
        assert len(board.requests) == 1 and not proxy.requests
        submit("http://board.test", b"zip")
        assert proxy.requests == [("http://board.test/api/entries", None)]
        monkeypatch.delenv("HTTP_PROXY")
        submit("http://board.test", b"zip")
        assert len(proxy.requests) == 2, "ALL_PROXY counts as it does for agents"


def test_a_proxy_that_cannot_be_used_is_named(board: _Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://me:{SECRET}@127.0.0.1:1")
    submit(board.url, b"zip")
    with pytest.raises(UsageError, match=r"^ALL_PROXY names a socks5:// proxy, which cannot be used here") as raised:
        submit("https://board.test", b"zip")
    assert SECRET not in "".join(traceback.format_exception(raised.value))
