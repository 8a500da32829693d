"""Limits of submissions: rates, sizes, times. Invariant: no client can fill the memory or the disk, be it with many requests,
with one that never ends, or with one whose stated length is wrong.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import BinaryIO, cast

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from cotbench.leaderboard.web.responses import RefusedError
from cotbench.leaderboard.web.settings import Settings

_ADDRESSES = 10_000
_IN_MEMORY = 256_000
"""Bytes of an upload that are kept in memory; a longer one goes into a temporary file."""
_AT_ONCE = 16
"""The uploads under way hold together at most so many times the largest one."""
FAILED_TOKENS = 10
"""Wrong tokens a minute from one address; above, right ones are not looked at either."""


@dataclass(slots=True)
class Rates:
    """A limit of requests by address: so many at once, then one whenever enough time has passed (token bucket).

    Attributes:
        a_minute: how often.
        now: seconds, from any beginning.
    """

    a_minute: int
    now: Callable[[], float] = time.monotonic
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait(self, address: str, *, take: bool = True) -> float:
        """Return the seconds that an address has to wait; 0 where it may go on.

        Args:
            take: whether this counts.
        """
        now = self.now()
        left, since = self._left.pop(address, (float(self.a_minute), now))
        left = min(float(self.a_minute), left + (now - since) * self.a_minute / 60)
        allowed = left >= 1
        self._left[address] = (left - 1 if allowed and take else left, now)
        if len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self.a_minute


def check_rate(rates: Rates, address: str, *, take: bool = True) -> None:
    """Refuse an address that sends too often.

    Raises:
        RefusedError: 429, with Retry-After.
    """
    wait = rates.wait(address, take=take)
    if wait:
        seconds = max(1, math.ceil(wait))
        raise RefusedError(429, f"too many requests: try again in {seconds} s", headers={"Retry-After": str(seconds)})


def client_of(request: Request) -> str:
    """Return the client's address, as `network_of`."""
    return network_of(request.client.host if request.client is not None else "")


def network_of(host: str) -> str:
    """Return an address as it is counted: of IPv6 the /64 network, which one household has."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ip_network((address, 64), strict=False)) if address.version == 6 else host


def bearer(request: Request) -> str | None:
    """Return the token in the Authorization header."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


@dataclass(slots=True)
class Uploads:
    """The uploads under way.

    Attributes:
        held: bytes of all of them together.
    """

    settings: Settings
    held: int = 0

    @asynccontextmanager
    async def limited(self, request: Request) -> AsyncIterator[Request]:
        """Give the request with a body that ends in time and is not too long, whichever way it is read.

        Raises:
            RefusedError: 413 too long, 408 too slow, 503 too many at once.
        """
        most = self.settings.max_bytes
        announced = request.headers.get("content-length")
        if announced is not None and (not announced.isdecimal() or len(announced) > 15 or int(announced) > most):
            raise _too_long(most)
        read, end = 0, time.monotonic() + self.settings.upload_seconds

        async def receive() -> Message:
            nonlocal read
            try:
                with anyio.fail_after(max(0.0, end - time.monotonic())):
                    message = await request.receive()
            except TimeoutError as error:
                raise _too_slow(self.settings.upload_seconds) from error
            size = len(message.get("body", b""))
            read += size
            self.held += size
            if read > most:
                raise _too_long(most)
            if self.held > _AT_ONCE * most:
                raise RefusedError(503, "too many uploads at once: try again", headers={"Retry-After": "5"})
            return message

        try:
            yield Request(request.scope, receive)
        except ClientDisconnect as error:
            raise RefusedError(400, "the connection ended before the upload did") from error
        finally:
            self.held -= read

    async def spooled(self, request: Request) -> BinaryIO:
        """Return the body of a request that `limited` gave, as a file at its beginning; the caller closes it."""
        file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  (the caller's)
        try:
            async for chunk in request.stream():
                file.write(chunk)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return cast(BinaryIO, file)


def _too_slow(seconds: float) -> RefusedError:
    return RefusedError(408, f"the upload took longer than {seconds:g} s", headers={"Connection": "close"})


def _too_long(most: int) -> RefusedError:
    return RefusedError(
        413, f"the upload is longer than {most / 1e6:g} MB: submit one run at a time", headers={"Connection": "close"}
    )
