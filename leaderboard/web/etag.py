"""What a browser has already. Invariant: the tag of a page changes whenever an entry or the page's code does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from cotbench.leaderboard.web.assets import assets


def tagged(request: Request, changes: int, make: Callable[[], Response]) -> Response:
    """The answer, or none where the browser has it.

    Args:
        changes: of the store, before the answer was made.
    """
    address = f"{request.headers.get('host')} {request.url.path}?{request.url.query}"
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
    """A hash of the templates, the style sheets and the scripts."""
    folder = resources.files("cotbench.leaderboard.web").joinpath("templates")
    texts = sorted((each.name, each.read_text("utf-8")) for each in folder.iterdir() if each.is_file())
    return hashlib.sha256(repr((texts, [asset.filename for asset in assets().values()])).encode()).hexdigest()
