"""The proxy between this machine and a server. Invariant: requests to this machine go through none, and no message holds the
URL of a proxy, which may hold a password.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cotbench.errors import UsageError
from cotbench.installation import install_command
from cotbench.server_url import is_loopback


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that the user's environment names.

    Attributes:
        url: its URL.
        variable: the environment variable that names it.
    """

    url: str = field(repr=False)
    variable: str


def find_proxy(url: str, schemes: Collection[str]) -> Proxy | None:
    """Return the proxy that requests to a server go through, by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

    Args:
        url: the server.
        schemes: the schemes of the proxies that the client can use.

    Raises:
        UsageError: the variable holds no URL, or one that the client cannot use.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc) or proxy_bypass(host):
        return None
    proxies = getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if kind is None:
        return None
    named = (name for name in os.environ if name.lower() == f"{kind}_proxy" and os.environ[name])
    variable = next(named, f"the system's {kind} proxy")
    proxy = proxies[kind] if "://" in proxies[kind] else f"http://{proxies[kind]}"
    exempt = f"or send no requests for {host} through it: NO_PROXY={host}"
    try:
        parts = urlsplit(proxy)
        scheme, address = parts.scheme, bool(parts.hostname) and parts.port != 0
    except ValueError:
        scheme, address = "", False
    if not address:
        raise UsageError(f"{variable} holds no URL of a proxy, such as http://proxy:3128: correct it, {exempt}")
    if scheme not in schemes:
        raise UsageError(
            f"{variable} names a {scheme}:// proxy, which cannot be used here ({', '.join(sorted(schemes))} can): "
            f"name another, {exempt}"
        )
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise UsageError(
            f"{variable} names a {scheme}:// proxy, which needs the extra 'socks': {install_command('socks')}, {exempt}"
        )
    return Proxy(proxy, variable)
