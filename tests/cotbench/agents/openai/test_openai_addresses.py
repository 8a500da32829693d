"""Addresses of servers, and the way to them: slips are no names of models, and this machine is reached without a proxy."""

import re
import traceback
from collections.abc import Iterator

import pytest

from cotbench.agents import make_agent
from cotbench.agents.openai.address import OPENAI, read_address
from cotbench.errors import AgentError, UsageError
from cotbench.installation import install_command
from tests.conftest import needs_openai
from tests.fake_server import FakeServer, Manners, running
from tests.served import CHAT, KEY, TEMPLATE, asked, served, unused_port

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, pytest.mark.usefixtures("served_alone")]

SLIPS = [
    "m@http:/host",
    "m@http:host",
    "m@https//host",
    "m@//host/v1",
    "m@host/v1",
    "m@host:8000",
    "m@host.example",
    "m@localhost",
    "m@LOCALHOST",
    "m@127.0.0.1",
    "m@[::1]:8000",
    "m@:8000",
    "m@ http://host",
    "m@ host",
    "m@ftp://host",
    "m@ws://host/v1",
    "m@",
    "@http:/host",
    "@localhost:8000",
    "@localhost",
    "org/m@host/v1",
    "org/@host:8000/v1",
    "m@rev@host:8000",
]
NO_URLS = [
    "http://",
    "http:///v1",
    "http://host:port",
    "http://host:99999",
    "http://[::1",
    "http://ho st",
    "http://http://host",
    "https://https:/host",
    "http://https//host",
]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A proxy that every variable names; it answers as a server does, whatever host it is asked for."""
    with running() as fake:
        _set_proxies(monkeypatch, fake.url.replace("//", f"//me:{KEY}@"))
        yield fake


def _set_proxies(monkeypatch: pytest.MonkeyPatch, url: str, *names: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.delenv(spelled, raising=False)
    for name in names or ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, url)


# Slips.


@pytest.mark.parametrize("target", SLIPS)
@pytest.mark.parametrize("base_url", ["", "http://127.0.0.1:1"])
def test_what_may_be_an_address_is_no_name(target: str, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UsageError, match="openai:MODEL@URL") as raised:
        make_agent(f"openai:{target}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url_is_refused_wherever_it_stands(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^openai:m: not the address of a server"):
        read_address(f"m@{url}")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UsageError, match=r"^OPENAI_BASE_URL: not the address of a server"):
        read_address("m")


@pytest.mark.parametrize("url", ["host", "host:8000", "localhost/v1", "ftp://host", "http:/host", "//host"])
def test_a_base_url_needs_its_scheme(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UsageError, match="OPENAI_BASE_URL: not the address"):
        make_agent("openai:m")


@pytest.mark.parametrize("target", [f"m@https//me:{KEY}@host", f"m@me:{KEY}@host:80", f"m@http://me:{KEY}@host:x"])
def test_the_message_of_a_slip_holds_no_password(target: str) -> None:
    with pytest.raises(UsageError) as raised:
        make_agent(f"openai:{target}")
    assert KEY not in "".join(traceback.format_exception(raised.value))


def test_a_scheme_may_be_in_capitals(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url.replace("http", "HTTP")
    agent = make_agent(f"openai:fake@{url}")
    assert agent.describe()["url"] == f"{server.url}/v1"  # type: ignore[attr-defined]
    monkeypatch.setenv("OPENAI_BASE_URL", f" {url}/ ")
    assert read_address("fake").url == f"{server.url}/v1"


@pytest.mark.parametrize(
    "name",
    [
        "@cf/meta/llama-3-8b-instruct",
        "workers-ai/@cf/meta/llama-3-8b-instruct",
        "publishers/google/models/x@001",
        "claude-3@20240229",
        "claude@latest",
        "m@v1.2",
        "@cf/meta/llama@2",
    ],
)
def test_an_at_sign_belongs_to_a_name_only_for_a_server_that_the_user_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_address(f"{name}@http://h:1").model == name
    with pytest.raises(UsageError, match="openai:MODEL@URL"):  # OpenAI's own models have no such names.
        read_address(name)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://h:2")
    assert (read_address(name).model, read_address(name).url) == (name, "http://h:2/v1")


def test_only_a_name_alone_goes_to_openai() -> None:
    assert read_address("gpt-4o").url == read_address("ft:gpt-4o:org::id").url == OPENAI


def test_a_server_that_has_moved_is_not_followed(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running() as other:
        server.always = f"moved {other.url}/v1/chat/completions"
        with pytest.raises(AgentError, match=f"answered 307: it has moved to {other.url}/v1/chat/completions: name"):
            make_agent(f"openai:fake@{server.url}")
        assert len(server.requests) == 1 and not other.requests


# Proxies.


def test_this_machine_is_reached_without_a_proxy(server: FakeServer, proxy: FakeServer) -> None:
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        server.forget()
        agent = make_agent(f"openai:fake@{server.url.replace('127.0.0.1', host)}?retries=0")
        assert agent.decide([asked("prompt", TEMPLATE)])[0].action == "look"
        assert server.bodies(CHAT) and not proxy.requests, host


def test_other_hosts_are_reached_through_it(proxy: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent("openai:fake@http://model.test?retries=0")
    assert agent.decide([asked("prompt", TEMPLATE)])[0].action == "look"
    assert {path for path, _ in proxy.requests} == {"http://model.test/v1/chat/completions"}
    monkeypatch.setenv("NO_PROXY", "other.test,.test")
    proxy.forget()
    with pytest.raises(AgentError, match=r"http://model\.test/v1/models cannot be reached"):
        make_agent("openai:fake@http://model.test?retries=0")
    assert not proxy.requests


def test_a_failure_names_the_proxy_but_not_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_proxies(monkeypatch, f"http://me:{KEY}@127.0.0.1:{unused_port()}", "HTTP_PROXY")
    with pytest.raises(AgentError, match="through the proxy of HTTP_PROXY cannot be reached") as raised:
        make_agent("openai:fake@http://model.test?retries=0")
    assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("variable", "url", "words"),
    [
        ("ALL_PROXY", f"socks5://me:{KEY}@127.0.0.1:1", "needs the extra 'socks': " + re.escape(install_command("socks"))),
        ("HTTP_PROXY", f"socks5h://me:{KEY}@127.0.0.1:1", re.escape(install_command("socks"))),
        ("all_proxy", f"socks://me:{KEY}@127.0.0.1:1", "which cannot be used here"),
        ("ALL_PROXY", f"http://me:{KEY}@127.0.0.1:port", "holds no URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    variable: str, url: str, words: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cotbench.proxy.find_spec", lambda package: None)
    _set_proxies(monkeypatch, url, variable)
    with pytest.raises(UsageError, match=f"^{variable} .*{words}.* NO_PROXY=model.test") as raised:
        make_agent("openai:fake@http://model.test")
    assert KEY not in "".join(traceback.format_exception(raised.value)) and "\n" not in str(raised.value)
    assert served(server).decide([asked("prompt")])[0].action == "look", "this machine needs none"
    if variable != "HTTP_PROXY":
        monkeypatch.setenv("HTTP_PROXY", server.url)
        assert make_agent("openai:fake@http://model.test").decide([asked("prompt", TEMPLATE)])[0].action == "look"


def test_a_proxy_may_stand_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Manners()) as fake:
        _set_proxies(monkeypatch, fake.url.removeprefix("http://"), "http_proxy")
        assert make_agent("openai:fake@http://model.test").decide([asked("prompt", TEMPLATE)])[0].action == "look"
