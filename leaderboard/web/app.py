"""The application, and the server that runs it. Invariant: it holds no state but the store's, so any number of processes can
serve one leaderboard; what a client says of itself (its address, its protocol) is not believed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from cotbench import __version__
from cotbench.errors import DuplicateEntryError, StoreError, SubmissionError, UnknownNameError
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.web.api import Api, add_api
from cotbench.leaderboard.web.assets import assets
from cotbench.leaderboard.web.headers import Guard
from cotbench.leaderboard.web.links import Links, ServerLinks
from cotbench.leaderboard.web.rate_limits import Rates, Uploads
from cotbench.leaderboard.web.responses import RefusedError, error_response
from cotbench.leaderboard.web.routes import Pages, add_pages
from cotbench.leaderboard.web.service import Service
from cotbench.leaderboard.web.settings import Settings

_LOG = logging.getLogger(__name__)
_ABOUT = "Scores that anyone can verify: entries of cotbench, their boards and what they were made of."


def create_app(store: Store, settings: Settings) -> FastAPI:
    """Make the application with the leaderboard's pages and API.

    Args:
        store: stays open as long as the application is used.
        settings: how it is served.
    """
    links = ServerLinks({name: asset.filename for name, asset in assets().items()})
    service = Service(store, settings, links, Rates(settings.rate), Uploads(settings))

    @asynccontextmanager
    async def serving(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(service.warm())
        yield
        await warming

    # Pages that load scripts from elsewhere are off: /api is our own.
    app = FastAPI(
        title="cotbench leaderboard",
        version=__version__,
        description=_ABOUT,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=serving,
    )
    add_api(app, Api(service))
    add_pages(app, Pages(app, service))
    _add_refusals(app, links)
    _describe_tokens(app)
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    app.add_middleware(Guard, settings=settings, links=links)
    return app


def _add_refusals(app: FastAPI, links: Links) -> None:
    """Answer with a refusal where an exception is raised."""

    def as_refusal(error: Exception, path: str) -> RefusedError:
        if isinstance(error, RefusedError):
            return error
        if isinstance(error, DuplicateEntryError):
            return RefusedError(409, str(error))
        if isinstance(error, SubmissionError):
            return RefusedError(422, str(error))
        if isinstance(error, UnknownNameError):
            return RefusedError(404, str(error))
        if isinstance(error, RequestValidationError):
            return RefusedError(422, _first(error))
        if isinstance(error, HTTPException):
            return _of_http(error, _allowed(app, path))
        _LOG.error("%s", error)
        return RefusedError(503, "the leaderboard's database does not answer now: try again", headers={"Retry-After": "5"})

    async def answer(request: Request, error: Exception) -> Response:
        return error_response(request.scope, as_refusal(error, request.url.path), links)

    for kind in (RefusedError, SubmissionError, UnknownNameError, RequestValidationError, HTTPException, StoreError):
        app.add_exception_handler(kind, answer)


def _first(error: RequestValidationError) -> str:
    """Describe the first thing that is wrong with a parameter."""
    first = error.errors()[0]
    where = " ".join(map(str, first["loc"]))
    return f"{where} is refused: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _of_http(error: HTTPException, allowed: list[str]) -> RefusedError:
    if error.status_code == 404:
        return RefusedError(404, "there is nothing at this address")
    if error.status_code == 405:
        methods = ", ".join(allowed)
        return RefusedError(405, f"this address takes {methods} only", headers={"Allow": methods})
    return RefusedError(error.status_code, str(error.detail), headers=error.headers)


def _allowed(app: FastAPI, path: str) -> list[str]:
    """Return the methods of an address, over all routes that have it."""
    found: set[str] = set()
    for route in app.routes:
        if isinstance(route, Route) and route.path_regex.match(path):
            found |= route.methods or set()
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _describe_tokens(app: FastAPI) -> None:
    """Make the schema, which is cached, and add how a token is given where one is required."""
    about = {"type": "http", "scheme": "bearer", "description": "where the server asks for one"}
    app.openapi().setdefault("components", {})["securitySchemes"] = {"token": about}


_CONNECTIONS = 1_000
_HEADERS = 16_384
"""Bytes of a request's line and headers."""


def server_of(store: Store, settings: Settings, log_level: str = "warning") -> Any:
    """Make a `uvicorn.Server`; its `run()` serves until a signal ends it."""
    import uvicorn

    from cotbench.leaderboard.web.connections import limited_protocol

    return uvicorn.Server(
        uvicorn.Config(
            create_app(store, settings),
            host=settings.host.strip("[]"),
            port=settings.port,
            log_level=log_level,
            http=limited_protocol(settings),
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
