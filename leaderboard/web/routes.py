"""The pages' routes. Invariant: a page is made from what the store says at one moment, and every error is a page of the same
look.
"""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import UploadFile

from cotbench.errors import DuplicateEntryError, SubmissionError, UnknownNameError
from cotbench.leaderboard.boards.labels import board_title
from cotbench.leaderboard.boards.view import board_view
from cotbench.leaderboard.web.assets import assets
from cotbench.leaderboard.web.board_query import parse_board_query
from cotbench.leaderboard.web.pages import Choice, Typed, board_page, docs_page, entry_page, submit_page
from cotbench.leaderboard.web.rate_limits import bearer, check_rate, client_of
from cotbench.leaderboard.web.responses import RefusedError, tagged
from cotbench.leaderboard.web.service import Service

_ID = re.compile(r"[0-9a-f]{12}")
_FIELD = 10_000
"""Characters of a form's field."""
_FOREVER = "public, max-age=31536000, immutable"


class Pages:
    """The pages.

    Args:
        app: whose schema the API's page shows.
        service: does the work.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self._app = app
        self._service = service

    async def home(self, request: Request) -> Response:
        """Answer with a board."""
        store, links = self._service.store, self._service.links

        def read() -> Response:
            changes, boards = store.changes(), store.boards()
            try:
                wanted = parse_board_query(request.query_params, boards)
            except UnknownNameError as error:
                choices = tuple(Choice(board_title(board), links.board(board) or links.home()) for board in boards)
                raise RefusedError(404, str(error), choices=choices) from error

            def make() -> Response:
                overview = () if request.query_params else self._service.overview(boards)
                view = board_view(store, wanted.board, wanted.state)
                return HTMLResponse(board_page(view, wanted, boards, links, overview=overview))

            return tagged(request, changes, make)

        return await self._service.read(read)

    async def entry(self, request: Request, entry_id: str) -> Response:
        """Answer with an entry."""
        if not _ID.fullmatch(entry_id):
            raise RefusedError(404, f"{entry_id[:100]!r} is not the id of an entry, which has twelve hexadecimal digits")

        def read() -> Response:
            changes, entry = self._service.store.changes(), self._service.store.entry(entry_id)
            return tagged(
                request,
                changes,
                lambda: HTMLResponse(entry_page(entry, self._service.episodes(entry_id), self._service.links)),
            )

        return await self._service.read(read)

    async def form(self, request: Request) -> Response:
        """Answer with the form."""
        return self._form(request, 200)

    async def submit(self, request: Request) -> Response:
        """Take what the form sends."""
        service = self._service
        check_rate(service.rates, client_of(request))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise RefusedError(
                415, "this address takes multipart/form-data, as the form sends it; programs use POST /api/entries"
            )
        async with (
            service.uploads.limited(request) as limited,
            limited.form(max_files=1, max_fields=8, max_part_size=_FIELD) as fields,
        ):
            texts = {name: value for name, value in fields.items() if isinstance(value, str)}
            typed = Typed(*(texts.get(name, "").strip() for name in ("name", "team", "link")))
            try:
                await service.admit(request, texts.get("token", "").strip() or bearer(request))
                file = fields.get("file")
                if not isinstance(file, UploadFile) or not file.size:
                    raise SubmissionError("no bundle was chosen: cotbench leaderboard bundle RUN makes one")
                entry, _ = await service.take(file.file, typed.name, typed.team, typed.link)
            except DuplicateEntryError as error:
                return self._form(request, 409, typed, str(error))
            except SubmissionError as error:
                return self._form(request, 422, typed, str(error))
            except RefusedError as refusal:
                return self._form(request, refusal.status, typed, refusal.message, refusal.headers)
        return RedirectResponse(service.links.entry(entry.id), 303, {"Cache-Control": "no-store"})

    def _form(
        self, request: Request, status: int, typed: Typed | None = None, error: str = "", headers: dict[str, str] | None = None
    ) -> Response:
        page = submit_page(
            self._service.links,
            token_required=self._service.settings.token_required,
            server=_server(request),
            typed=typed,
            error=error,
        )
        return HTMLResponse(page, status, {"Cache-Control": "no-store", **(headers or {})})

    async def docs(self, request: Request) -> Response:
        """Answer with the documentation of the API."""
        required = self._service.settings.token_required
        page = docs_page(self._app.openapi(), self._service.links, token_required=required, server=_server(request))
        return HTMLResponse(page, headers={"Cache-Control": "no-cache"})

    async def asset(self, filename: str) -> Response:
        """Answer with a style sheet or a script."""
        for asset in assets().values():
            if asset.filename == filename:
                return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": _FOREVER})
        raise RefusedError(404, "no such file: reload the page")


def _server(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def add_pages(app: FastAPI, views: Pages) -> None:
    """Add the pages to the application; they are not in the API's schema."""
    for path, do in (
        ("/", views.home),
        ("/entries/{entry_id}", views.entry),
        ("/submit", views.form),
        ("/api", views.docs),
        ("/static/{filename}", views.asset),
    ):
        app.add_api_route(path, do, include_in_schema=False, response_class=HTMLResponse, response_model=None)
    app.add_api_route(
        "/submit", views.submit, methods=["POST"], include_in_schema=False, response_class=HTMLResponse, response_model=None
    )
