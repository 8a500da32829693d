"""Address and key of a server. Invariant: an address holds no secret, so it may be written down; a key is read from the
environment and sent to the server alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from cotbench.errors import AgentError, UsageError

BASE_URL = "OPENAI_BASE_URL"
"""The environment variable with the URL, where a spec names none."""

OPENAI = "https://api.openai.com/v1"

_TARGET = re.compile(r"(?P<model>.*?)@(?P<url>https?://.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r".*@[\w.-]+:\d+(/.*)?", re.DOTALL)


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

    Raises:
        UsageError: no model, a URL without http://, or one with a password in it.
    """
    match = _TARGET.fullmatch(target)
    if match is None and _HOST.fullmatch(target):
        raise UsageError(f"openai:{target}: write the URL with http:// or https:// before the host")
    model = match["model"] if match else target
    url = (match["url"] if match else os.environ.get(BASE_URL) or OPENAI).rstrip("/")
    if not model:
        raise UsageError("an openai: agent needs the name of a model: openai:MODEL@URL")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"openai:{model}: {BASE_URL} is not a URL such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"openai:{model}: the URL holds more than a host and a path; a key belongs into an environment variable "
            "(OPENAI_API_KEY, or the one that ?key_env= names)"
        )
    return Address(model, url if parts.path else f"{url}/v1")


def read_key(variable: str, url: str) -> str | None:
    """Read the key of a server from an environment variable.

    Args:
        variable: its name; empty when no key is to be sent.
        url: the server; OpenAI's own accepts no request without a key.

    Returns:
        The key; None where there is none to send.

    Raises:
        UsageError: that is not the name of a variable. The message does not repeat it: it may be a key.
        AgentError: the key is missing, or no key.
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
        raise AgentError(f"the environment variable {variable} holds characters that no key has: set it again")
    return key
