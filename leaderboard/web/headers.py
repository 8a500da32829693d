"""The outermost layer: hosts, origins, headers. Invariant: no answer leaves without the headers below; a request to another
host, or sent by another site's page, reaches no route; an error message is one line.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cotbench.leaderboard.web.links import Links
from cotbench.leaderboard.web.responses import RefusedError, error_response
from cotbench.leaderboard.web.settings import Settings

_LOG = logging.getLogger(__name__)
_SAFE = ("GET", "HEAD", "OPTIONS")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """The outermost layer of the application.

    Args:
        app: what it guards.
        settings: which hosts to answer to.
        links: for the pages that say what is wrong.
    """

    def __init__(self, app: ASGIApp, settings: Settings, links: Links) -> None:
        self.app = app
        self._settings = settings
        self._links = links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # What answers to GET answers to HEAD.
        as_get = {**scope, "method": "GET"} if head else scope
        try:
            refusal = _misdirected(scope, self._settings)
            if refusal is None:
                await self.app(as_get, receive, guarded)
                return
        except Exception:
            _LOG.exception("%s %r failed", scope["method"], scope["path"])
            if begun:
                raise
            refusal = RefusedError(500, "the server failed at this request; its log says how")
        await error_response(scope, refusal, self._links)(as_get, receive, guarded)


def _misdirected(scope: Scope, settings: Settings) -> RefusedError | None:
    """Return why the request is not for this server: another host's, or another site's."""
    headers = Headers(scope=scope)
    host = headers.getlist("host")
    if len(host) != 1 or not settings.answers(host[0]):
        return RefusedError(421, "this server does not answer to that name: use the address that it was started with")
    if scope["method"] not in _SAFE and _foreign(headers, host[0]):
        return RefusedError(403, "this was sent by a page of another site: submit on this server's own page, or with cotbench")
    return None


def _foreign(headers: Headers, host: str) -> bool:
    """Return whether a browser says that another site's page sent the request; programs say nothing."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    scheme, _, sender = origin.lower().partition("://")
    usual = {"http": ":80", "https": ":443"}.get(scheme)
    return usual is None or sender.removesuffix(usual) != host.lower().removesuffix(usual)
