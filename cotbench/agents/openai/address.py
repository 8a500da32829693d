"""Address and key of a server. Invariant: an address holds no secret, so it may be written down; a key is read from the
environment and sent to the server alone, and in plain text to no other machine; what may have been meant as an address is
never taken for a model's name.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from cotbench.errors import AgentError, UsageError
from cotbench.server_url import is_loopback, read_url

BASE_URL = "OPENAI_BASE_URL"
"""The environment variable with the URL, where a spec names none."""

OPENAI = "https://api.openai.com/v1"

_TARGET = re.compile(r"(?P<model>.*?)@(?P<url>https?://.*)", re.DOTALL | re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VERSION = re.compile(r"[A-Za-z0-9_-]+(\.\d+)*")


@dataclass(frozen=True, slots=True)
class Address:
    """A model at a server.

    Attributes:
        model: the server's name for it.
        url: the base URL, to which `/chat/completions` and `/completions` are appended.
    """

    model: str
    url: str


def read_address(target: str) -> Address:
    """Parse `MODEL@URL`; `/v1` is added to a URL without a path.

    What stands before a URL is the model's name, whatever it holds. Without a URL, an `@` may be a slip in one: then it is
    part of a name only for a server in `OPENAI_BASE_URL`, and there where it begins a part of a path (`@cf/meta/llama`) or
    stands before a version (`claude@20240229`, `model@v1.2`): letters, digits, `_`, `-`, and numbers after dots.

    Raises:
        UsageError: no model, an `@` that may have been meant as an address, or a URL that is none or holds a password.
    """
    match = _TARGET.fullmatch(target)
    model = (match["model"] if match else target).strip()
    if not model or model.endswith("@"):
        raise UsageError("an openai: agent needs the name of a model: openai:MODEL@URL")
    if match:
        url = read_url(match["url"], f"openai:{model}")
    else:
        named = os.environ.get(BASE_URL, "").strip()
        _check_name(model, allowed=bool(named))
        url = read_url(named, BASE_URL) if named else OPENAI
    return Address(model, url if urlsplit(url).path else f"{url}/v1")


def _check_name(name: str, *, allowed: bool) -> None:
    """Raise an error where a name without a URL holds an `@` that may have been meant as an address.

    Args:
        name: the name.
        allowed: whether an `@` that cannot be one is part of the name.
    """
    for match in re.finditer("@", name):
        before, after = name[: match.start()], name[match.end() :]
        version = re.split("[/@]" if not before or before.endswith("/") else "@", after)[0]
        if not allowed or not _VERSION.fullmatch(version) or version.lower() == "localhost" or _is_ip_address(version):
            raise UsageError(
                f"openai:{before}@...: what follows the @ is not a URL: write the URL with http:// or https:// before the host "
                "(openai:MODEL@URL), also after a model name that itself contains an @"
            )


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def read_key(variable: str, url: str) -> str | None:
    """Read the key of a server from an environment variable.

    Args:
        variable: its name; empty when no key is to be sent.
        url: the server; OpenAI's own accepts no request without a key.

    Returns:
        The key; None where there is none to send.

    Raises:
        UsageError: that is not the name of a variable. The message does not repeat it: it may be a key.
        AgentError: the key is missing, or no key, or would go over the network in plain text.
    """
    if not variable:
        return None
    if not _NAME.fullmatch(variable):
        raise UsageError("key_env takes the name of an environment variable that holds the key, not a key")
    key = os.environ.get(variable, "").strip()
    if not key:
        if url == OPENAI:
            raise AgentError(f"{OPENAI} needs a key: put one into the environment variable {variable}, or name a server: @URL")
        return None
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise AgentError(f"the environment variable {variable} holds characters that cannot be in a key: set it again")
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise AgentError(
            f"the key in {variable} would go to {url} in plain text: use https://, or a tunnel to this machine, or send no key "
            "with ?key_env="
        )
    return key
