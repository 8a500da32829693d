"""The outermost layer of a server: hosts, origins, headers. Invariant: no answer leaves without the headers below, or its own
of their names; a request to another host, or sent by another site's page, reaches no route; an error message is one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

Refuse = Callable[[Scope, int, str], ASGIApp]
"""Returns the answer to a request that is refused: with its status, and what is wrong."""


class Guard:
    """The outermost layer of an application.

    Args:
        app: what it guards.
        answers: whether the server answers to a Host header.
        refuse: makes the answer to a request that is refused.
        elsewhere: what to do instead of sending a form of another site.
        headers: of every answer that has no others of these names.
    """

    def __init__(
        self,
        app: ASGIApp,
        answers: Callable[[str], bool],
        refuse: Refuse,
        elsewhere: str,
        headers: Mapping[str, str] = HEADERS,
    ) -> None:
        self.app = app
        self._answers, self._refuse, self._elsewhere, self._headers = answers, refuse, elsewhere, headers

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
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # What answers to GET answers to HEAD.
        as_get = {**scope, "method": "GET"} if head else scope
        try:
            refusal = self._misdirected(scope)
            if refusal is None:
                await self.app(as_get, receive, guarded)
                return
        except Exception:
            _LOG.exception("%s %r failed", scope["method"], scope["path"])
            if begun:
                raise
            refusal = (500, "the server failed at this request; its log says how")
        await self._refuse(scope, *refusal)(as_get, receive, guarded)

    def _misdirected(self, scope: Scope) -> tuple[int, str] | None:
        """Return why the request is not for this server: another host's, or another site's."""
        headers = Headers(scope=scope)
        host = headers.getlist("host")
        if len(host) != 1 or not self._answers(host[0]):
            return 421, "this server does not answer to that name: use the address that it was started with"
        if scope["method"] not in _SAFE and _foreign(headers, host[0]):
            return 403, f"this was sent by a page of another site: {self._elsewhere}"
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
