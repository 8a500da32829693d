"""Names of hosts. Invariant: a name is compared as it is meant, whatever its case, port or brackets."""

from __future__ import annotations

import ipaddress

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""This machine's own names in a Host header."""


def hostname(host: str) -> str | None:
    """Return the name in a Host header, in lower case, without port and brackets; None where there is none."""
    text = host.strip().lower()
    if text.startswith("["):
        inside, closed, port = text[1:].partition("]")
        name = inside if closed and (not port or _is_port(port)) else ""
    elif text.count(":") > 1:
        name = text
    else:
        name, colon, port = text.partition(":")
        name = name if not colon or _is_port(f":{port}") else ""
    return name.removesuffix(".") or None


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is given as; None where it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit()
