"""The application, and the server that runs it. Invariant: it answers to this machine's own names alone, only reads, and gives
no file of the folder but those of a study's report (`report_files`): pages are made of what was read from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from cotbench.errors import CotbenchError, RunFolderError, UsageError
from cotbench.runs.comparison import compare_runs
from cotbench.view import pages
from cotbench.view.assets import assets
from cotbench.view.library import Library
from cotbench.view.query import FIELDS
from cotbench.view.report_files import report_response, split_address
from cotbench.view.run_page import RunPages
from cotbench.web.asset import FOREVER
from cotbench.web.guard import HEADERS, POLICY, Guard
from cotbench.web.hosts import LOOPBACK, hostname

_HEADERS = {**HEADERS, "Content-Security-Policy": f"{POLICY}; connect-src 'self'"}
"""A page asks for itself again, to be live."""
_HOSTS = {hostname(name) for name in LOOPBACK}


class View:
    """The pages of a folder.

    Args:
        library: the folder.
    """

    def __init__(self, library: Library) -> None:
        self._library, self._runs = library, RunPages()

    def home(self, request: Request) -> Response:
        """Answer with the runs and studies."""
        filters = {field: request.query_params.get(field, "") for field in FIELDS}
        listing = self._library.listing()
        return tagged(request, pages.list_page(str(self._library.root), listing, filters))

    def run(self, request: Request) -> Response:
        """Answer with a run."""
        name = request.query_params.get("folder", "")
        with self._library.lock:
            run = self._library.run(name)
            status = run.status().model_copy(update={"folder": name})
            page = pages.run_page(status, run.manifest(), self._runs.summary(name, run), self._runs.episodes(name, run))
        return tagged(request, page)

    def live(self, request: Request) -> Response:
        """Answer with a run without its episodes: what of its page changes while it runs."""
        name = request.query_params.get("folder", "")
        with self._library.lock:
            run = self._library.run(name)
            status = run.status().model_copy(update={"folder": name})
            page = pages.live_page(status, self._runs.summary(name, run), len(run.update_episodes().rows))
        return tagged(request, page)

    def study(self, request: Request) -> Response:
        """Answer with a study."""
        name = request.query_params.get("folder", "")
        listing = self._library.listing()
        with self._library.lock:
            study = self._library.study(name)
            status = replace(study.status(), folder=name)
        inside = [run for run in listing.runs if name == "." or run.folder.startswith(f"{name}/")]
        path = str(study.folder)
        return tagged(request, pages.study_page(status, sorted(inside, key=lambda run: run.folder), path))

    def report(self, request: Request) -> Response:
        """Answer with a file of a study's report."""
        name, file = split_address(request.path_params["path"])
        return report_response(self._library.study(name).folder, file)

    def compare(self, request: Request) -> Response:
        """Answer with the comparison of two runs."""
        names = request.query_params.getlist("run")
        if len(names) != 2:
            raise UsageError(f"two runs are compared, and {len(names)} were chosen: choose two in the list")
        anyway = request.query_params.get("anyway") == "1"
        with self._library.lock:
            first, second = (self._runs.whole(name, self._library.run(name)) for name in names)
            try:
                one, two = ({run.manifest.config.env: run} for run in (first, second))
                compared = compare_runs(one, two, anyway=anyway)
            except UsageError as error:
                if anyway or one.keys() != two.keys():
                    raise
                again = f"{request.url.path}?{request.url.query}&anyway=1"
                return HTMLResponse(pages.error_page("These two do not compare as they are", str(error), again), 409)
        return tagged(request, pages.comparison_page(names[0], names[1], compared, anyway=anyway))

    def asset(self, request: Request) -> Response:
        """Answer with a style sheet or a script."""
        for asset in assets().values():
            if asset.filename == request.path_params["filename"]:
                return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": FOREVER})
        raise HTTPException(404, "there is no such file: load the page again")


def tagged(request: Request, page: str) -> Response:
    """Return a page with its ETag, or 304 where the browser has it.

    Args:
        request: what is answered.
        page: as HTML.
    """
    tag = f'W/"{hashlib.sha256(page.encode()).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in (each.strip() for each in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return HTMLResponse(page, headers=headers)


def create_app(library: Library) -> ASGIApp:
    """Make the application.

    Args:
        library: the folder that is shown.
    """
    view = View(library)
    paths: dict[str, Callable[[Request], Response]] = {
        "/": view.home,
        "/run": view.run,
        "/live": view.live,
        "/study": view.study,
        "/report/{path:path}": view.report,
        "/compare": view.compare,
        "/static/{filename}": view.asset,
    }
    return Starlette(
        routes=[Route(path, do, methods=["GET"]) for path, do in paths.items()],
        middleware=[
            Middleware(Guard, answers=_answers, refuse=_refuse, elsewhere="nothing can be sent here", headers=_HEADERS),
            Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5),
        ],
        exception_handlers={CotbenchError: _of_error, HTTPException: _of_http},
    )


def _answers(host: str) -> bool:
    return hostname(host) in _HOSTS


def _refuse(scope: Scope, status: int, message: str) -> ASGIApp:
    return HTMLResponse(pages.error_page(HTTPStatus(status).phrase, message), status, {"Cache-Control": "no-store"})


def _of_error(request: Request, error: Exception) -> Response:
    # What is not there is a `UsageError` too.
    status = 400 if isinstance(error, UsageError) and not isinstance(error, RunFolderError) else 404
    return HTMLResponse(pages.error_page("This cannot be shown", str(error)), status, {"Cache-Control": "no-store"})


def _of_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: "there is nothing at this address", 405: "this address is read, and takes GET only"}
    message = words.get(status, str(getattr(error, "detail", error)))
    return HTMLResponse(pages.error_page(HTTPStatus(status).phrase, message), status, {"Cache-Control": "no-store"})


def server_of(library: Library, log_level: str = "warning") -> Any:
    """Make a `uvicorn.Server`; its `run(sockets=...)` serves until a signal ends it.

    Args:
        library: the folder that is shown.
        log_level: of the server.
    """
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            create_app(library),
            host="127.0.0.1",
            log_level=log_level,
            http="h11",
            ws="none",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=200,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=16_384,
        )
    )
