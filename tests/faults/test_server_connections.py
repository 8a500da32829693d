"""Clients of the leaderboard's server that send nothing, slowly, or read nothing: they cost their own address alone."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.leaderboard.serving import needs_web, served

pytestmark = needs_web

OTHER = "127.0.0.2"
"""Another address of this machine, as Linux has it."""


@contextmanager
def _server(folder: Path, **settings: float) -> Iterator[int]:
    from cotbench.leaderboard.store import Store

    store = Store.open(folder / "board.db")
    try:
        with served(store, **settings) as url:
            yield int(urlsplit(url).port or 0)
    finally:
        store.close()


def _connect(port: int, source: str = "127.0.0.1", sent: bytes = b"") -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))
    if sent:
        found.sendall(sent)
    return found


def _status(port: int, source: str) -> int:
    """The status of the page as an honest client at that address gets it; 0 where the connection is ended without one."""
    with _connect(port, source, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n") as client:
        answer = client.recv(100)
    return int(answer.split()[1]) if answer else 0


def _is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        while client.recv(65_536):
            pass
        return False
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("count", [300, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127.0"], ids=["nothing", "half a request"])
def test_half_open_connections_cost_their_own_address(tmp_path: Path, sent: bytes, count: int) -> None:
    try:
        socket.create_server((OTHER, 0)).close()
    except OSError:
        pytest.skip("this system has one loopback address only")
    with _server(tmp_path, header_seconds=2.0) as port, ExitStack() as stack:
        half_open = [stack.enter_context(_connect(port, sent=sent)) for _ in range(count)]
        end = time.monotonic() + 20
        while sum(map(_is_open, half_open)) > 100 and time.monotonic() < end:
            time.sleep(0.05)
        assert _status(port, OTHER) == 200
        while any(map(_is_open, half_open)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(map(_is_open, half_open)), "each ends by itself"
        assert _status(port, "127.0.0.1") == 200


def test_one_address_has_a_number_of_connections(tmp_path: Path) -> None:
    with _server(tmp_path, connections=3) as port, ExitStack() as stack:
        held = [stack.enter_context(_connect(port)) for _ in range(3)]
        assert _status(port, "127.0.0.1") in {429, 0}
        assert all(map(_is_open, held))
        held[0].close()
        end = time.monotonic() + 20
        while _status(port, "127.0.0.1") != 200:
            assert time.monotonic() < end


def test_a_request_that_trickles_in_is_ended(tmp_path: Path) -> None:
    with _server(tmp_path, header_seconds=1.0) as port, _connect(port, sent=b"GET / HTTP/1.1\r\n") as client:
        begun = time.monotonic()
        while _is_open(client):
            client.setblocking(True)
            try:
                client.sendall(b"a: b\r\n")
            except ConnectionError:
                break
            time.sleep(0.1)
            assert time.monotonic() - begun < 20
        assert time.monotonic() - begun >= 0.9


def test_a_body_that_trickles_in_after_the_answer_is_ended(tmp_path: Path) -> None:
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
    with _server(tmp_path, header_seconds=1.0) as port, _connect(port, sent=request) as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        client.settimeout(0.1)
        begun = time.monotonic()
        while True:
            assert time.monotonic() - begun < 20
            try:
                client.sendall(b"x")
                if client.recv(65_536) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
