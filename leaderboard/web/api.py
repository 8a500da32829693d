"""The API. Invariant: reading needs nothing but GET, what is refused says why in JSON, and a submission that is acknowledged is
on the disk.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from cotbench.leaderboard.boards.view import board_view, parse_board
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import STATES, Entry, State
from cotbench.leaderboard.web.board_query import known_boards
from cotbench.leaderboard.web.board_table import board_csv
from cotbench.leaderboard.web.models import Accepted, BoardRows, Boards, Entries, Health, Refused, board_name
from cotbench.leaderboard.web.rate_limits import bearer, check_rate, client_of
from cotbench.leaderboard.web.responses import RefusedError, tagged
from cotbench.leaderboard.web.service import Service

ZIP = ("application/zip", "application/x-zip-compressed")
_MOST = 200

StateName = Literal["pending", "replayed", "rejected", "unchecked", "all"]
EntryId = Annotated[str, Path(pattern="^[0-9a-f]{12}$", description="an entry's id: twelve hexadecimal digits")]
Slug = Annotated[str, Path(max_length=100, description="a board: ENV_SCHEME_SPLIT_MODE, as in alfworld_paper_ood_cot")]
StateOf = Annotated[StateName, Query(description="of the entries; ranks are the same in every view")]
Name = Annotated[str, Query(max_length=100, description="instead of the bundle's name")]
Team = Annotated[str, Query(max_length=100, description="instead of the bundle's team")]
Link = Annotated[str, Query(max_length=500, description="instead of the bundle's link")]
Limit = Annotated[int, Query(ge=1, le=_MOST, description="how many")]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000, description="how many newer ones are left out")]

_Route = tuple[str, Any, str, Any, tuple[int, ...]]
"""Address, function, title, model, refusals."""
_ABOUT: dict[int, str] = {
    400: "The request cannot be read.",
    401: "A token is needed, or it is not known.",
    403: "It was sent by another site's page.",
    404: "There is no such thing.",
    408: "The upload took too long.",
    409: "The same episodes are there under another name.",
    413: "The upload is too long.",
    415: "The body is no zip.",
    422: "It is refused: the error names the place.",
    429: "Too many requests; Retry-After says when to come back.",
    503: "Too many uploads at once, or the database does not answer; Retry-After says when to come back.",
}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Refused, "description": _ABOUT[status]} for status in statuses}


class Api:
    """The routes under /api.

    Args:
        service: does the work.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(self, request: Request, name: Name = "", team: Team = "", link: Link = "") -> Response:
        """Send a bundle, as “cotbench leaderboard bundle RUN” makes it. Once it is acknowledged, the entry is on the disk; it
        is pending until it was replayed.
        """
        service = self._service
        check_rate(service.rates, client_of(request))
        await service.admit(request, bearer(request))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in ZIP:
            raise RefusedError(415, f"a submission is a zip: send the bundle with Content-Type: {ZIP[0]}")
        async with service.uploads.limited(request) as limited:
            with await service.uploads.spooled(limited) as file:
                entry, new = await service.take(file, name, team, link)
        url = str(request.base_url).rstrip("/") + service.links.entry(entry.id)
        return _json(Accepted(id=entry.id, state=entry.state, url=url), 201 if new else 200, {"Location": url})

    async def entries(self, state: StateOf = "all", limit: Limit = 50, offset: Offset = 0) -> Response:
        """The entries, newest first, whole: details, state, the first difference of a rejected one, and all numbers."""
        store, chosen = self._service.store, _state(state)

        def read() -> Entries:
            return Entries(total=store.count(chosen), entries=tuple(store.entries(chosen, limit, offset)))

        return _json(await self._service.read(read))

    async def entry(self, entry_id: EntryId) -> Response:
        """One entry."""
        return _json(await self._service.read(lambda: self._service.store.entry(entry_id)))

    async def bundle(self, entry_id: EntryId) -> Response:
        """What was submitted: the manifest and every episode, in a zip. “cotbench leaderboard verify” replays it anywhere."""
        data = await self._service.read(lambda: self._service.store.bundle(entry_id))
        name = f'attachment; filename="{entry_id}.zip"'
        return Response(data, media_type=ZIP[0], headers={"Content-Disposition": name})

    async def boards(self, request: Request) -> Response:
        """The boards that have entries."""
        found = await self._service.read(self._service.store.boards)
        return _json(Boards(boards=tuple(board_name(board, self._url(request, board)) for board in found)))

    async def board(self, request: Request, slug: Slug, state: StateOf = "replayed") -> Response:
        """A board: its rows by rank, with every number, its interval and n; and what the paper reports."""
        chosen = _state(state)

        def read() -> Response:
            changes = self._service.store.changes()
            board = parse_board(slug, known_boards(self._service.store.boards()))

            def make() -> Response:
                view = board_view(self._service.store, board, chosen)
                name = board_name(board, self._url(request, board))
                return _json(BoardRows(board=name, state=chosen, rows=view.rows, reported=view.reported))

            return tagged(request, changes, make)

        return await self._service.read(read)

    async def board_csv(self, request: Request, slug: Slug, state: StateOf = "replayed") -> Response:
        """The same as a table; the paper's rows are not in it."""

        def read() -> Response:
            changes = self._service.store.changes()
            board = parse_board(slug, known_boards(self._service.store.boards()))

            def make() -> Response:
                text = board_csv(board_view(self._service.store, board, _state(state)).rows)
                name = f'attachment; filename="{board.slug}.csv"'
                return Response(text, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": name})

            return tagged(request, changes, make)

        return await self._service.read(read)

    async def health(self) -> Response:
        """Whether the server works, and its database."""
        await self._service.read(self._service.store.changes)
        return _json(Health(status="ok"))

    def _url(self, request: Request, board: Board) -> str:
        return str(request.base_url).rstrip("/") + (self._service.links.board(board) or "")


def _state(name: StateName) -> State | None:
    return next((state for state in STATES if state == name), None)


def _json(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(), status, headers, "application/json")


def add_api(app: FastAPI, api: Api) -> None:
    """Add the routes to the application."""
    body = {"requestBody": {"required": True, "content": {ZIP[0]: {"schema": {"type": "string", "format": "binary"}}}}}
    security: dict[str, Any] = {"security": [{}, {"token": []}]}
    app.add_api_route(
        "/api/entries",
        api.submit,
        methods=["POST"],
        summary="Submit",
        status_code=201,
        response_model=Accepted,
        response_description="It is new, and kept.",
        responses={
            200: {"model": Accepted, "description": "It was there already."},
            **_refusals(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
        },
        openapi_extra={**body, **security},
    )
    first = (
        ("/api/entries", api.entries, "Entries", Entries, (422,)),
        ("/api/entries/{entry_id}", api.entry, "An entry", Entry, (404, 422)),
        ("/api/boards", api.boards, "Boards", Boards, ()),
    )
    _add_models(app, first)
    files: tuple[tuple[str, Any, str, str], ...] = (
        ("/api/entries/{entry_id}/bundle", api.bundle, "An entry's bundle", ZIP[0]),
        ("/api/boards/{slug}.csv", api.board_csv, "A board as CSV", "text/csv"),
    )
    for path, do, summary, kind in files:
        content = {"content": {kind: {"schema": {"type": "string"}}}, "description": "The file."}
        app.add_api_route(
            path, do, summary=summary, response_class=Response, responses={200: content, **_refusals(404, 422, 503)}
        )
    # After the CSV, whose address it would take for a board's.
    last = (
        ("/api/boards/{slug}", api.board, "A board", BoardRows, (404, 422)),
        ("/healthz", api.health, "Health", Health, ()),
    )
    _add_models(app, last)


def _add_models(app: FastAPI, routes: tuple[_Route, ...]) -> None:
    """Add routes that answer with a model."""
    for path, do, summary, model, refusals in routes:
        app.add_api_route(
            path,
            do,
            summary=summary,
            response_model=model,
            response_description="As asked.",
            responses=_refusals(*refusals, 503),
        )
