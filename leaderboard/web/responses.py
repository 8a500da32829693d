"""Answers beside a page or a model: refusals, and answers that a browser may have already. Invariant: a refusal says what is
wrong and what to do, in one line that holds nothing secret, as JSON under /api and as a page elsewhere; the ETag of an answer
changes whenever an entry, an environment or the page's code does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Scope

from cotbench.leaderboard.web.assets import assets
from cotbench.leaderboard.web.board_query import envs_in_order
from cotbench.leaderboard.web.links import Links
from cotbench.leaderboard.web.pages import Choice, error_page


class RefusedError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what is wrong and what to do.
        choices: pages that may have been meant.
        headers: such as Retry-After.
    """

    def __init__(
        self, status: int, message: str, *, choices: tuple[Choice, ...] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.choices = choices
        self.headers = dict(headers or {})


def error_response(scope: Scope, refusal: RefusedError, links: Links) -> Response:
    """Return the answer to a request that is refused: JSON under /api, a page elsewhere."""
    headers = {"Cache-Control": "no-store", **refusal.headers}
    path = str(scope.get("path", ""))
    if path.startswith("/api/") or path in ("/openapi.json", "/healthz"):
        return JSONResponse({"error": refusal.message}, refusal.status, headers)
    try:
        title = HTTPStatus(refusal.status).phrase
    except ValueError:
        title = f"Error {refusal.status}"
    return HTMLResponse(error_page(title, refusal.message, refusal.choices, links), refusal.status, headers)


def tagged(request: Request, changes: int, make: Callable[[], Response]) -> Response:
    """Return the answer with its ETag, or 304 where the browser has it.

    Args:
        request: whose address the tag depends on.
        changes: of the store, before the answer was made.
        make: makes the answer.
    """
    address = f"{request.headers.get('host')} {request.url.path}?{request.url.query} {envs_in_order()}"
    tag = f'W/"{hashlib.sha256(f"{changes} {_code()} {address}".encode("utf-8", "replace")).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    had = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    if tag in had:
        return Response(status_code=304, headers=headers)
    answer = make()
    for name, value in headers.items():
        answer.headers[name] = value
    return answer


@cache
def _code() -> str:
    """Return a hash of the templates, the style sheets and the scripts."""
    folder = resources.files("cotbench.leaderboard.web").joinpath("templates")
    texts = sorted((each.name, each.read_text("utf-8")) for each in folder.iterdir() if each.is_file())
    return hashlib.sha256(repr((texts, [asset.filename for asset in assets().values()])).encode()).hexdigest()
