"""The work of the routes, apart from HTTP. Invariant: at most four submissions are unpacked and checked at once, whatever
arrives; pages do not wait for them; an acknowledgement is given after the store has returned.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request

from cotbench.errors import CotbenchError, StoreError, SubmissionError, UsageError
from cotbench.leaderboard.boards.overview import EnvOverview, env_overview
from cotbench.leaderboard.boards.view import board_view
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import Entry
from cotbench.leaderboard.store.store import Store, accept_submission
from cotbench.leaderboard.submission.bundle import unpack
from cotbench.leaderboard.web.board_query import known_boards, parse_board_query
from cotbench.leaderboard.web.entry_sections import EntryEpisodes, entry_episodes
from cotbench.leaderboard.web.links import Links
from cotbench.leaderboard.web.pages import board_page
from cotbench.leaderboard.web.rate_limits import FAILED_TOKENS, Rates, Uploads, check_rate, client_of
from cotbench.leaderboard.web.responses import RefusedError
from cotbench.leaderboard.web.settings import Settings

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
AT_ONCE = 4
_CACHED = 16
"""Entries whose episodes are kept for the next reader, at most 1 MB each."""


@dataclass(slots=True)
class Service:
    """The leaderboard, served.

    Attributes:
        rates: submissions of each address; `failed` its wrong tokens.
    """

    store: Store
    settings: Settings
    links: Links
    rates: Rates
    uploads: Uploads
    failed: Rates = field(default_factory=lambda: Rates(FAILED_TOKENS))
    _readers: Any = field(default_factory=lambda: anyio.CapacityLimiter(AT_ONCE))
    _takers: Any = field(default_factory=lambda: anyio.CapacityLimiter(AT_ONCE))
    _episodes: OrderedDict[str, EntryEpisodes] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def read(self, do: Callable[[], T]) -> T:
        """Read the store in a thread."""
        found: T = await anyio.to_thread.run_sync(do, limiter=self._readers)
        return found

    async def take(self, file: BinaryIO, name: str, team: str, link: str) -> tuple[Entry, bool]:
        """Check and store a submission in a thread; see `accept_submission`.

        Raises:
            SubmissionError: it is refused.
            RefusedError: this server cannot check it.
        """
        try:
            taken: tuple[Entry, bool] = await anyio.to_thread.run_sync(
                lambda: accept_submission(self.store, file, name=name, team=team, link=link), limiter=self._takers
            )
            return taken
        except (SubmissionError, StoreError):
            raise
        except UsageError as error:
            raise SubmissionError(str(error)) from error
        except CotbenchError as error:
            _LOG.error("a submission could not be checked: %s", error)
            raise RefusedError(503, "this server cannot check this run; its log says why") from error

    async def admit(self, request: Request, token: str | None) -> None:
        """Refuse a submission without a token where one is required.

        Raises:
            RefusedError: 401, or 429 after too many wrong tokens.
        """
        if not self.settings.token_required:
            return
        address = client_of(request)
        check_rate(self.failed, address, take=False)
        if not token:
            raise _unknown("a submission to this server needs a token: ask whoever runs it, or set COTBENCH_LEADERBOARD_TOKEN")
        if not await self.read(lambda: self.store.knows(token)):
            self.failed.wait(address)
            raise _unknown("this token is unknown here, or was revoked")

    async def warm(self) -> None:
        """Render the first page once, so that no request waits for what is loaded and computed with it."""
        await self.read(self._first_page)

    def _first_page(self) -> None:
        try:
            boards = self.store.boards()
            wanted = parse_board_query({}, boards)
            board_page(board_view(self.store, wanted.board), wanted, boards, self.links, overview=self.overview(boards))
        except StoreError:
            return  # A request gets the error.

    def overview(self, boards: Sequence[Board]) -> tuple[EnvOverview, ...]:
        """Return all environments at a glance.

        Args:
            boards: those that have entries.
        """
        return env_overview(self.store, known_boards(boards), boards)

    def episodes(self, entry: str) -> EntryEpisodes:
        """Return the episodes of an entry for its page, cached.

        Raises:
            UnknownNameError: no such entry.
        """
        with self._lock:
            if entry in self._episodes:
                self._episodes.move_to_end(entry)
                return self._episodes[entry]
        found = entry_episodes(unpack(self.store.bundle(entry)))
        with self._lock:
            self._episodes[entry] = found
            if len(self._episodes) > _CACHED:
                self._episodes.popitem(last=False)
        return found


def _unknown(message: str) -> RefusedError:
    return RefusedError(401, message, headers={"WWW-Authenticate": "Bearer"})
