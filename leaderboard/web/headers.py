"""The leaderboard's outermost layer: that of `cotbench.web.guard`, with the leaderboard's hosts and its pages of errors."""

from __future__ import annotations

from starlette.types import ASGIApp, Scope

from cotbench.leaderboard.web.links import Links
from cotbench.leaderboard.web.responses import RefusedError, error_response
from cotbench.leaderboard.web.settings import Settings
from cotbench.web import guard


class Guard(guard.Guard):
    """The outermost layer of the application.

    Args:
        app: what it guards.
        settings: which hosts to answer to.
        links: for the pages that say what is wrong.
    """

    def __init__(self, app: ASGIApp, settings: Settings, links: Links) -> None:
        def refuse(scope: Scope, status: int, message: str) -> ASGIApp:
            return error_response(scope, RefusedError(status, message), links)

        super().__init__(app, settings.answers, refuse, "submit on this server's own page, or with cotbench")
