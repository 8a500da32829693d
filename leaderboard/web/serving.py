"""Serving the application. Invariant: what a client says of itself (its address, its protocol) is not believed."""

from __future__ import annotations

from typing import Any

from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.web.app import create_app
from cotbench.leaderboard.web.settings import Settings

_CONNECTIONS = 1_000
_HEADERS = 16_384
"""Bytes of a request's line and headers."""


def server_of(store: Store, settings: Settings, log_level: str = "warning") -> Any:
    """A `uvicorn.Server`, not running yet; `run()` serves until it is told to end."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            create_app(store, settings),
            host=settings.host.strip("[]"),
            port=settings.port,
            log_level=log_level,
            http="h11",
            ws="none",
            access_log=False,
            # X-Forwarded-For would let anybody choose the address that is counted.
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            backlog=_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=30,
            h11_max_incomplete_event_size=_HEADERS,
        )
    )
