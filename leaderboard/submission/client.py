"""The client that submits to a server. Invariant: a submission is repeated until it is acknowledged or refused, and repeating
it is safe: the server stores it once.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from cotbench.errors import StoreError, SubmissionError, UsageError
from cotbench.proxy import find_proxy
from cotbench.server_url import is_loopback, read_url

TOKEN = "COTBENCH_LEADERBOARD_TOKEN"  # noqa: S105  (the variable's name)
_TRIES = 5
_TIMEOUT = 180
_LONGEST_WAIT = 60.0
_ANSWER = 1_000_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """A server's answer to a submission that it has stored.

    Attributes:
        new: False where it was there already.
        url: of the entry's page.
    """

    id: str
    state: str
    new: bool
    url: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A submission goes where it was sent, and the token nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def submit(server: str, data: bytes, token: str | None = None) -> Receipt:
    """Send a bundle.

    Args:
        server: its address, such as http://127.0.0.1:8000.
        data: the bundle.
        token: where the server wants one.

    Raises:
        UsageError: no address, a token would go over a network unencrypted, or the proxy cannot be used.
        SubmissionError: the server refuses it.
        StoreError: the server cannot be reached, or fails.
    """
    base = _base(server, token)
    headers = {"Content-Type": "application/zip", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{base}/api/entries", data, headers, method="POST")  # noqa: S310  (http or https)
    proxy = find_proxy(base, ("http", "https"))
    proxies = {} if proxy is None else dict.fromkeys(("http", "https"), proxy.url)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _NoRedirect)
    reason = ""
    for attempt in range(_TRIES):
        try:
            with opener.open(request, timeout=_TIMEOUT) as response:
                return _receipt(base, response)
        except urllib.error.HTTPError as error:
            reason = _reason(error)
            if error.code in (429, 503):
                time.sleep(min(_seconds(error.headers.get("Retry-After")), _LONGEST_WAIT))
                continue
            if error.code < 500:
                raise SubmissionError(f"{base} refuses the submission ({error.code}): {reason}") from error
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt < _TRIES - 1:
            time.sleep(0.2 * 2**attempt)
    raise StoreError(f"{base} did not take the submission ({reason}): is the server running? Submitting again is safe")


def _base(server: str, token: str | None) -> str:
    base = read_url(server if "://" in server else f"http://{server.strip()}", "--server")
    parts = urlsplit(base)
    if token and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise UsageError(f"the token would go to {parts.hostname} unencrypted: use https://, or unset {TOKEN}")
    return base


def _receipt(base: str, response: HTTPResponse) -> Receipt:
    try:
        answer: Mapping[str, Any] = json.loads(response.read(_ANSWER))
        id, state = str(answer["id"]), str(answer["state"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{base} answers, but it is not a cotbench leaderboard: check --server") from error
    return Receipt(id, state, response.status == 201, f"{base}/entries/{id}")


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(_ANSWER))["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return error.reason or "no reason given"


def _seconds(text: str | None) -> float:
    try:
        return max(0.1, float(text or 1))
    except ValueError:
        return 1.0
