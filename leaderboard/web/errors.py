"""A request that is refused. Invariant: it says what is wrong and what to do, in one line that holds nothing secret, and comes
as JSON under /api and as a page elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Scope

from cotbench.leaderboard.web.links import Links
from cotbench.leaderboard.web.pages import Choice, error_page


class RefusedError(Exception):
    """What is answered instead.

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
    """The answer to a request that is refused."""
    headers = {"Cache-Control": "no-store", **refusal.headers}
    path = str(scope.get("path", ""))
    if path.startswith("/api/") or path in ("/openapi.json", "/healthz"):
        return JSONResponse({"error": refusal.message}, refusal.status, headers)
    try:
        title = HTTPStatus(refusal.status).phrase
    except ValueError:
        title = f"Error {refusal.status}"
    return HTMLResponse(error_page(title, refusal.message, refusal.choices, links), refusal.status, headers)
