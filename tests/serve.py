"""Fixtures with servers: a fake one in a thread, transformers' own as a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

from cotbench.agents.openai import connection
from tests.fake_server import FakeServer, running
from tests.served import unused_port

START = 240.0
"""Seconds that a real server may take to start on a busy machine."""

_SERVE = "from transformers.cli.transformers import main; main()"


@pytest.fixture
def served_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server and no key from outside, and no waiting."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "BACKOFF", 0.001)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server that is like vLLM."""
    with running() as fake:
        yield fake


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """`transformers serve` for a model folder, on a free port; gives its URL. It is ended whatever happens."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(model: Path) -> str:
        port, log = unused_port(), tmp_path / "server.log"
        where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with log.open("wb") as output:
            begun.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-c", _SERVE, "serve", str(model), *where],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
            )
        wait_for(begun[-1], f"http://127.0.0.1:{port}/health", log)
        return f"http://127.0.0.1:{port}"

    try:
        yield start
    finally:
        for process in begun:
            process.kill()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a server answers; an error where its process ends."""
    opener, end = build_opener(ProxyHandler({})), time.monotonic() + START
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with opener.open(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
