"""Servers' URLs, and which proxy leads to them."""

import pytest

from cotbench.proxy import find_proxy
from cotbench.server_url import is_loopback, read_url


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *((host, True) for host in ("localhost", "LocalHost", "localhost.", "api.localhost", "127.0.0.1", "127.9.9.9", "::1")),
        *((host, True) for host in ("0.0.0.0", "::", "::ffff:127.0.0.1")),
        *((host, False) for host in ("", "localhost.example", "127.0.0.1.example", "10.0.0.1", "128.0.0.1", "fe80::1", "h")),
    ],
)
def test_what_this_machine_is(host: str, here: bool) -> None:
    assert is_loopback(host) == here


def test_a_url_is_kept_as_it_stands_but_for_scheme_and_end() -> None:
    assert read_url(" HTTPS://Host:8000/Path/v1// ", "x") == "https://Host:8000/Path/v1"
    assert read_url("http://[::1]:8000", "x") == "http://[::1]:8000"


@pytest.mark.parametrize(
    ("variables", "url", "variable"),
    [
        ({"HTTP_PROXY": "http://p:1"}, "http://h", "HTTP_PROXY"),
        ({"HTTP_PROXY": "http://p:1"}, "https://h", None),
        ({"HTTP_PROXY": "http://p:1", "https_proxy": "p:2"}, "https://h", "https_proxy"),
        ({"ALL_PROXY": "http://p:1"}, "https://h", "ALL_PROXY"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h"}, "https://h:8000/v1", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "h:8000"}, "https://h:8000/v1", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "other, *"}, "https://h", "ALL_PROXY"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://h", None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "example.org"}, "https://api.example.org", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:8000/v1", None),
        ({"ALL_PROXY": "http://p:1"}, "https://[::1]:8000", None),
        ({"ALL_PROXY": "socks9://p:1"}, "http://localhost", None),
        ({}, "http://h", None),
    ],
)
def test_which_proxy_leads_to_a_server(
    variables: dict[str, str], url: str, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = find_proxy(url, ("http",))
    assert (None if proxy is None else proxy.variable) == variable
    assert proxy is None or (proxy.url.startswith("http://p:") and "p:" not in repr(proxy))
