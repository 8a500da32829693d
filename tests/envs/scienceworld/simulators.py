"""Simulators that outlive the environment that started them, for tests of what the environment does. Starting Java takes longer
than most of these tests; that it starts, is lost, and ends with its environment is tested in test_scienceworld.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cotbench.envs.scienceworld.server import STEP_SECONDS, Server

_idle: dict[float, list[Server]] = {}


class Lent:
    """A simulator; closed, it is kept for the next one who wants one, unless a call went wrong."""

    def __init__(self, seconds: float = STEP_SECONDS) -> None:
        waiting = _idle.setdefault(seconds, [])
        self._seconds = seconds
        self._server: Server | None = waiting.pop() if waiting else Server(seconds)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._server, name)
        return self._guarded(found) if callable(found) else found

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            try:
                return call(*arguments, **options)
            except BaseException:
                server, self._server = self._server, None
                if server is not None:
                    server.close()
                raise

        return guarded

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            _idle[self._seconds].append(server)


def kept() -> set[int]:
    """The processes that wait for the next one."""
    return {server.pid for servers in _idle.values() for server in servers}


@contextmanager
def closed_at_the_end() -> Iterator[None]:
    """Close what is kept when the last test of a file is over: tests of others look for a Java left behind."""
    yield
    for servers in _idle.values():
        while servers:
            servers.pop().close()
