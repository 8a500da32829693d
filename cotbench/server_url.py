"""The URL of a server, as a user names it. Invariant: what leaves here was meant as an address, names one host, and holds no
secret, so it may be written down.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from cotbench.errors import UsageError


def read_url(text: str, source: str) -> str:
    """Return a server's URL, with the scheme in lower case and no slash at its end.

    Args:
        text: what the user wrote.
        source: where it stands; begins the message of an error.

    Raises:
        UsageError: it is not `http://HOST`, with a port and a path at most. The message does not repeat it: it may hold a
            password.
    """
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # Brackets that do not fit, or a port that is no number.
        address = False
    # An empty port and an empty first folder are what `http:/host` and `https//host` leave behind another `http://`.
    if not address or parts.netloc.endswith(":") or parts.path.startswith("//") or " " in url or not url.isprintable():
        raise UsageError(f"{source}: not the address of a server, such as http://127.0.0.1:8000 or https://host/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"{source}: the URL holds more than a host and a path; put a key into an environment variable, not into the URL"
        )
    return parts.scheme + url[len(parts.scheme) :]


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: `localhost`, 127.0.0.1, ::1, or the address that stands for all of its own."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
