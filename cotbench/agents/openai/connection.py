"""Requests to one server, repeated where that can help. Invariant: every failure is a `ServerError`; what is returned is the
model's answer; neither holds the key, even where the server echoes it. Requests to this machine go through no proxy, and what
the environment holds for OpenAI alone goes to no other server.
"""

from __future__ import annotations

import json
import os
import random
import re
import ssl
import threading
import weakref
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from cotbench.agents.openai.address import OPENAI
from cotbench.agents.openai.bounded_transport import bounded_transport
from cotbench.agents.openai.client import Path
from cotbench.agents.openai.reply import CompletionReply, ReplyError, ToolCall, error_message, read_reply
from cotbench.errors import AgentError, MissingExtraError
from cotbench.json_text import replace_surrogates
from cotbench.proxy import find_proxy

BACKOFF = 0.5
"""Seconds before the second attempt; doubled for each further one, and multiplied by a random factor from 1 to 2."""

LONGEST_WAIT = 60.0
"""Seconds between two attempts at most, whatever the server asks for."""

_MODELS_TIMEOUT = 60.0
_NO_KEY = "none"
_SHORTEST_SECRET = 8
"""Characters of a key that is one: a shorter one (`none`, `x`) stands in other words, and is hidden in no message."""
_TRANSIENT = (408, 409, 425, 429)
_PERMANENT = (501, 505)
_PROXIES = ("http", "https", "socks5", "socks5h")
_EXCERPT_CHARS = 300
_OVERFLOW = re.compile(
    r"context.{0,20}(length|window|size)|max_model_len|maximum.{0,20}tokens|too (long|many tokens)", re.IGNORECASE
)


class ServerError(AgentError):
    """A request failed.

    Attributes:
        status: the HTTP status, where there was an answer.
        transient: whether another attempt may succeed.
        retry_after: seconds to wait by the server's `Retry-After`; None where it sent none.
    """

    def __init__(
        self, text: str, status: int | None = None, *, transient: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.transient, self.retry_after = status, transient, retry_after

    @property
    def refused(self) -> bool:
        """True where the server understood and refused: a field or an endpoint that it does not have."""
        return self.status in (400, 404, 405, 415, 422, 501)

    @property
    def overflow(self) -> bool:
        """True where a prompt was too long, judged by the server's message."""
        return self.status in (400, 413, 422) and _OVERFLOW.search(str(self)) is not None


class Connection:
    """A client of one server, with retries.

    Args:
        url: the base URL, to which the endpoints' paths are appended.
        key: sent as the bearer token; None where the server wants none.
        timeout: seconds to wait for an answer.
        retries: further attempts after a failure that may pass: 408, 409, 425, 429, 5xx, time-outs, broken connections, bodies
            that are cut off or no JSON, answers that were aborted.

    Raises:
        MissingExtraError: the extra is not installed.
        UsageError: the server is reached through a proxy that cannot be used.
    """

    def __init__(self, url: str, key: str | None, *, timeout: float, retries: int) -> None:
        for package in ("openai", "tenacity"):
            if find_spec(package) is None:
                raise MissingExtraError("an openai: agent", "openai")
        import openai

        self.url = url
        self._timeout, self._retries = timeout, retries
        secret = key is not None and len(key) >= _SHORTEST_SECRET
        self._secrets = (
            () if key is None or not secret else tuple(dict.fromkeys((key, quote(key, safe=""), json.dumps(key)[1:-1])))
        )
        self._closed = threading.Event()
        proxy = find_proxy(url, _PROXIES)
        self._through = f" through the proxy of {proxy.variable}" if proxy is not None else ""
        # A transport of its own: the client's default one takes every proxy of the environment, also for this machine.
        library = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])  # openai 3 has httpx2.
        # To read the certificates that this machine trusts takes longer than a short answer of a server that shows none.
        unencrypted = proxy is None and url.lower().startswith("http://")
        transport = bounded_transport(
            library,
            timeout,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if unencrypted else True,  # This one trusts nobody.
            proxy=None if proxy is None else proxy.url,
            limits=openai.DEFAULT_CONNECTION_LIMITS,
        )
        # The client's own retries would hide ours.
        self._client = openai.OpenAI(
            base_url=url,
            api_key=key or _NO_KEY,
            timeout=timeout,
            max_retries=0,
            default_headers={} if url == OPENAI else dict.fromkeys(_environment_headers(), openai.omit),
            http_client=openai.DefaultHttpxClient(transport=transport, follow_redirects=False),
        )
        if url != OPENAI:  # The client takes these, too, out of the environment.
            self._client.organization = self._client.project = None
        weakref.finalize(self, self._client.close).atexit = False

    def ask(self, path: Path, body: Mapping[str, Any], *, final: Collection[int] = ()) -> CompletionReply:
        """Post a request, and return the answer.

        Args:
            path: the endpoint.
            body: the fields of the request, `model` among them.
            final: statuses that no further attempt is made after, besides those where it never helps.

        Raises:
            ServerError: it failed for good, or too often; or what was answered is not the model's answer.
        """
        from tenacity import Retrying, retry_if_exception, sleep_using_event, stop_after_attempt

        attempts = Retrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, ServerError) and error.transient and error.status not in final
            ),
            wait=self._pause,
            stop=stop_after_attempt(self._retries + 1),
            sleep=sleep_using_event(self._closed),
            reraise=True,
        )
        try:
            reply: CompletionReply = attempts(self._post, path, body)
            return reply
        except ServerError as error:
            count = attempts.statistics["attempt_number"]
            if count == 1:
                raise
            raise ServerError(f"{error} ({count} attempts)", error.status) from None

    def models(self) -> list[dict[str, Any]]:
        """Return the server's list of models; empty where it has none.

        Raises:
            ServerError: the server does not answer, or does not accept the key.
        """
        try:
            raw = self._client.models.with_raw_response.list(timeout=min(self._timeout, _MODELS_TIMEOUT))
            listed = self._without_key(self._decoded(raw.http_response.text)["data"])
            return [model for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]
        except (ValueError, KeyError, TypeError):
            return []
        except Exception as error:
            failure = self._failure("models", error)
            if failure.status is None:
                raise ServerError(f"{failure}: start the server, or correct the URL") from None
            if failure.status in (401, 403):
                raise failure from None
            return []

    def look_up(self, url: str) -> object:
        """Return the decoded answer to a GET request; None where there is none.

        Args:
            url: a URL of the server.
        """
        import openai

        try:
            options: Any = {"timeout": min(self._timeout, _MODELS_TIMEOUT)}
            return self._without_key(self._client.get(url, cast_to=object, options=options))
        except (openai.APIError, ValueError):
            return None

    def close(self) -> None:
        """Start no further attempt; requests in progress end by their time-out."""
        self._closed.set()

    def redact(self, text: str) -> str:
        """Return a text without the key."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text

    def _post(self, path: Path, body: Mapping[str, Any]) -> CompletionReply:
        if self._closed.is_set():
            raise ServerError(f"{self._where(path)}: the agent was closed before there was an answer")
        rest = dict(body)
        model = rest.pop("model")
        try:
            if path == "completions":
                prompt = rest.pop("prompt")
                raw = self._client.completions.with_raw_response.create(model=model, prompt=prompt, extra_body=rest)
            else:
                messages = rest.pop("messages")
                raw = self._client.chat.completions.with_raw_response.create(model=model, messages=messages, extra_body=rest)
            text = raw.http_response.text
        except Exception as error:
            raise self._failure(path, error) from None
        return self._read(path, text)

    def _where(self, path: str) -> str:
        return f"{self.url}/{path}{self._through}"

    def _read(self, path: Path, text: str) -> CompletionReply:
        where = self._where(path)
        try:
            loaded = self._decoded(text)
        except (ValueError, RecursionError):
            raise ServerError(
                f"{where} answered with something that is not JSON: {self._excerpt(text)!r}", transient=True
            ) from None
        try:
            return self._redacted(read_reply(loaded))
        except ReplyError as error:
            transient = error.transient if error.status is None else _is_transient(error.status)
            raise ServerError(f"{where} {self._excerpt(str(error))}", error.status, transient=transient) from None

    def _decoded(self, text: str) -> Any:
        """Return the decoded JSON of a body."""
        return replace_surrogates(json.loads(text))  # No tokenizer takes a lone surrogate, and no file.

    def _redacted(self, reply: CompletionReply) -> CompletionReply:
        """Return a reply without the key; where it held it, without its tokens, which spell the key too."""
        texts = (reply.text, reply.reasoning, reply.stop, [(call.name, call.arguments) for call in reply.calls])
        text, reasoning, stop, calls = self._without_key(texts)
        if (text, reasoning, stop, calls) == texts and self.redact("".join(reply.pieces)) == "".join(reply.pieces):
            return reply
        return replace(
            reply,
            text=text,
            reasoning=reasoning,
            stop=stop,
            calls=tuple(ToolCall(name, arguments) for name, arguments in calls),
            pieces=(),
            logprobs=None,
            token_logprobs=(),
            ids=(),
        )

    def _without_key(self, value: Any) -> Any:
        """Return JSON data, or a tuple in it, whose texts do not hold the key."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(str(name)): self._without_key(inner) for name, inner in value.items()}
        return type(value)(map(self._without_key, value)) if isinstance(value, list | tuple) else value

    def _failure(self, path: str, error: Exception) -> ServerError:
        """Return the error for an exception of the client."""
        import openai

        where = self._where(path)
        if isinstance(error, openai.APITimeoutError):
            return ServerError(f"{where} did not answer within {self._timeout:g} s", transient=True)
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return ServerError(
                f"{where} cannot be reached or broke off ({type(cause).__name__}: {self._excerpt(str(cause))})", transient=True
            )
        if not isinstance(error, openai.APIStatusError):
            return ServerError(f"{where}: {type(error).__name__}: {self._excerpt(str(error))}")
        status, message = error.status_code, self._excerpt(error_message(error.body))
        if 300 <= status < 400 and (moved := error.response.headers.get("location")):
            message = f"it has moved to {self._excerpt(moved)}: name the server by its own URL"
        quota_spent = error.code == "insufficient_quota"  # 429 too, and no waiting helps.
        transient = _is_transient(status) and not quota_spent
        return ServerError(
            f"{where} answered {status}{': ' if message else ''}{message}",
            status,
            transient=transient,
            retry_after=_seconds(error.response.headers.get("retry-after")),
        )

    def _pause(self, state: Any) -> float:
        """Return the seconds until the next attempt: those of `Retry-After`, else twice as long each time."""
        error = state.outcome.exception()
        if isinstance(error, ServerError) and error.retry_after is not None:
            return min(error.retry_after, LONGEST_WAIT)
        return float(min(LONGEST_WAIT, BACKOFF * 2 ** (state.attempt_number - 1) * random.uniform(1, 2)))

    def _excerpt(self, text: str) -> str:
        return " ".join(self.redact(text).split())[:_EXCERPT_CHARS]


def _environment_headers() -> list[str]:
    """Return the names of the headers that the client takes out of the environment: lines of a name, a colon and a value."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    return [line.partition(":")[0].strip() for line in lines if ":" in line]


def _is_transient(status: int) -> bool:
    """Return whether another attempt may succeed after an HTTP status."""
    return (status in _TRANSIENT or status >= 500) and status not in _PERMANENT


def _seconds(header: str | None) -> float | None:
    """Return the seconds to wait by a `Retry-After` header: a number of seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
