"""The settings of the server. Invariant: a server that can be reached from other machines requires tokens, and answers to known
names only.
"""

from __future__ import annotations

from dataclasses import dataclass

from cotbench.errors import UsageError
from cotbench.leaderboard.submission.limits import PACKED
from cotbench.web.hosts import LOOPBACK, address_of, hostname


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings.

    Attributes:
        host: the address to listen on, 127.0.0.1 or another loopback address unless tokens are required.
        port: 0 takes a free one.
        token_required: whether a submission needs a token.
        hosts: names in the Host header to answer to, without port, beside the address itself; a wildcard address answers to
            every IP address, which no name can be bent to.
        rate: submissions a minute from one address.
        max_bytes: of an upload.
        upload_seconds: within which an upload must have arrived.
        connections: open connections from one address.
        header_seconds: within which a request's headers must have arrived.

    Raises:
        UsageError: reachable from other machines, and no token required.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_required: bool = False
    hosts: tuple[str, ...] = ()
    rate: int = 600
    max_bytes: int = PACKED
    upload_seconds: float = 120.0
    connections: int = 100
    header_seconds: float = 20.0

    def __post_init__(self) -> None:
        if not self.loopback and not self.token_required:
            raise UsageError(f"{self.host} can be reached from other machines: ask for tokens, or listen on 127.0.0.1")

    @property
    def loopback(self) -> bool:
        """Return whether only this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        address = address_of(self.host)
        return address is not None and address.is_loopback

    def answers(self, host: str) -> bool:
        """Return whether the server answers to a Host header."""
        name = hostname(host)
        own = (*self.hosts, self.host, *(LOOPBACK if self.loopback else ()))
        if name is None:
            return False
        if name in {hostname(one) for one in own}:
            return True
        bound = address_of(self.host)
        return bound is not None and bound.is_unspecified and address_of(name) is not None
