"""Servers that cannot do everything, fail, or want a key."""

import re
import time
import traceback
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from cotbench.agents import make_agent
from cotbench.agents.openai import connection
from cotbench.agents.openai.address import read_address
from cotbench.errors import AgentError, CotbenchError, MissingExtraError, UsageError
from cotbench.installation import install_command
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_openai
from tests.fake_server import FakeServer, Manners, running
from tests.served import KEY, SHORT, TEMPLATE, asked, served, unused_port

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, pytest.mark.usefixtures("served_alone")]


# What a server can do.


def test_the_server_is_described() -> None:
    with running(Manners(context=900)) as server:
        told = make_agent(f"openai:fake@{server.url}/v1/").describe()
        assert told == make_agent(f"openai:fake@{server.url}").describe(), "with or without the path, and at every start"
        assert (told["model"], told["url"], told["context"]) == ("fake", f"{server.url}/v1", 900)
        assert told["server"] == {"id": "fake", "owned_by": "vllm"}
        assert (told["prefill"], told["reason"], told["prompts"], told["tools"]) == ("chat", "", "messages", "text")


def test_the_url_comes_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert make_agent("openai:fake").decide([asked("prompt")])[0].action == "look"


@pytest.mark.parametrize(
    ("manners", "why"),
    [
        (Manners(continues="refuses", owner=""), "chat: the server refuses continue_final_message (422)"),
        (Manners(continues="ignores"), "chat: nothing shows that the server knows continue_final_message"),
        (Manners(usage=False), "chat: the server does not tell how many tokens a prompt has"),
        (Manners(chat=False, completions="no"), "'fake'"),
    ],
)
def test_a_server_that_continues_nothing_is_refused(manners: Manners, why: str) -> None:
    with running(manners) as server:
        if not manners.chat:
            with pytest.raises(AgentError, match="does not answer for 'fake'"):
                served(server)
            return
        agent = served(server)
        assert agent.describe()["prefill"] == "none" and why in agent.describe()["reason"]
        assert "no tokenizer: " in agent.describe()["reason"]
        with pytest.raises(AgentError, match="--elicitation-style template"):
            agent.require(SHORT)
        error = agent.decide([asked("prompt")])[0].error
        assert error is not None and "--elicitation-style template" in error
        assert agent.decide([asked("prompt", TEMPLATE)])[0].action == "look"


def test_other_names_and_roles() -> None:
    with running(Manners(budget="max_completion_tokens")) as server:
        assert served(server).decide([asked("prompt")])[0].action == "look"
        assert server.bodies()[0]["max_completion_tokens"] == SHORT.action_tokens
    with running(Manners(system=False)) as server:
        assert served(server).decide([asked("prompt")])[0].action == "look"
        first = server.bodies()[0]["messages"][0]
        assert first["role"] == "user" and first["content"].startswith("You act.")


def test_fields_that_a_server_does_not_have_are_left_out() -> None:
    with running(Manners(owner="them", continues="refuses", logprobs=False)) as server:
        agent = served(server)
        agent.decide([asked("prompt", TEMPLATE)])
        assert set(server.bodies()[0]) == {"model", "messages", "max_tokens", "temperature", "stop"}


@pytest.mark.parametrize("options", ["", "tools=native"])
def test_a_temperature_that_is_refused_is_found_out_at_the_start(options: str) -> None:
    with running() as server:
        agent = served(server, options)
        server.manners.temperatures = (1.0,)
        warm = TEMPLATE.model_copy(update={"temperature": 0.7})
        for elicitation in (TEMPLATE, warm):
            server.forget()
            with pytest.raises(AgentError, match=r"'temperature' does not support .* change --temperature$") as raised:
                agent.require(elicitation)
            assert len(server.requests) == 1 and "\n" not in str(raised.value)
        agent.require(TEMPLATE.model_copy(update={"temperature": 1.0}))


def test_a_trial_that_fails_for_a_while_stops_no_run(server: FakeServer) -> None:
    agent = served(server, "retries=0")
    server.troubles = deque(["500", None])
    agent.require(SHORT)
    assert agent.decide([asked("prompt")])[0].action == "look"


def test_a_model_that_is_not_there(server: FakeServer) -> None:
    with pytest.raises(AgentError, match=r"does not answer for 'fale'; did you mean 'fake'\?"):
        served(server, model="fale")
    gone = f"openai:fake@http://127.0.0.1:{unused_port()}"
    with pytest.raises(AgentError, match="start the server, or correct the URL"):
        make_agent(gone)


# Troubles.


@pytest.mark.parametrize("trouble", ["429 0", "429", "500", "503 0", "408", "hang", "malformed", "empty", "cut", "drop"])
def test_troubles_that_pass(server: FakeServer, trouble: str) -> None:
    agent = served(server, "timeout=0.3" if trouble == "hang" else "")
    server.troubles = deque([trouble, trouble, None])
    said = agent.decide([asked("prompt")])[0]
    assert (said.error, said.action) == (None, "look")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("500", r"answered 500: no, .* \(3 attempts\)"),
        ("429", r"answered 429: no, .* \(3 attempts\)"),
        ("hang", r"did not answer within 0\.3 s \(3 attempts\)"),
        ("malformed", r"not JSON: .* \(3 attempts\)"),
        ("cut", r"cannot be reached or broke off .* \(3 attempts\)"),
        ("400", r"answered 400: no, \S+ \S+$"),
        ("401", r"answered 401: no, \S+ \S+$"),
    ],
)
def test_troubles_that_stay_are_errors_of_their_query(server: FakeServer, trouble: str, told: str) -> None:
    agent = served(server, "retries=2&concurrency=1" + ("&timeout=0.3" if trouble == "hang" else ""))
    count = 1 if trouble in ("400", "401") else 3
    server.troubles = deque([trouble] * count)
    one, two = agent.decide([asked("prompt"), asked("prompt")])
    assert one.error is not None and re.search(told, one.error), one.error
    assert (two.error, two.action) == (None, "look")
    assert len(server.requests) == count + 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-3", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("", None), (None, None)],
)
def test_how_long_a_server_wants_to_be_left_alone(header: str | None, seconds: float | None) -> None:
    assert connection._seconds(header) == seconds


def test_a_date_lies_in_the_future() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (connection._seconds(soon) or 0) <= 100


def test_retry_after_goes_before_our_own_backoff(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = served(server)
    monkeypatch.setattr(connection, "BACKOFF", 50.0)
    monkeypatch.setattr(connection, "LONGEST_WAIT", 0.05)
    server.troubles = deque(["429 0", "429 3600", "503 Fri, 31 Dec 2999 23:59:59 GMT", None])
    began = time.monotonic()
    assert agent.decide([asked("prompt")])[0].action == "look"
    assert time.monotonic() - began < 5


def test_a_spent_quota_is_not_waited_for(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = served(server)
    spent = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    monkeypatch.setattr(server, "answer", lambda path, body: (429, spent))
    error = agent.decide([asked("prompt")])[0].error
    assert error is not None and "quota" in error and len(server.requests) == 1


def test_a_prompt_too_long_says_what_to_do() -> None:
    with running(Manners(context=120)) as server:
        agent = served(server)
        few, many = agent.decide([asked("prompt"), asked("prompt", turns=30)])
        assert few.error is None
        assert many.error is not None and "--max-steps" in many.error and "--observation-chars" in many.error
        assert len(server.requests) == 2, "asking again would not help"


# Keys.


def test_a_wrong_key_names_its_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with running(Manners(key="another")) as server:
        for spec in (f"openai:fake@{server.url}?key_env=MY_KEY", f"openai:fake@{server.url}?key_env=MY_KEY&way=completions"):
            with pytest.raises(AgentError, match="does not accept the key in MY_KEY") as raised:
                make_agent(spec)
            assert KEY not in "".join(traceback.format_exception(raised.value))
        with pytest.raises(AgentError, match=r"no key \(OPENAI_API_KEY is not set\)"):
            make_agent(f"openai:fake@{server.url}")
        server.manners.key = KEY
        assert make_agent(f"openai:fake@{server.url}?key_env=MY_KEY").decide([asked("prompt")])[0].action == "look"


def test_a_key_is_never_written_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level("DEBUG")
    with running(Manners(key=KEY)) as server:
        spec = f"openai:fake@{server.url}?retries=1"
        agent = make_agent(spec)
        trial = ["500", "500"]
        server.troubles = deque([*trial, "500", "500", "400", "malformed", "malformed", "401"])  # Each says the key.
        config = RunConfig(agent=spec, episodes=3, mode="cot", max_steps=1, elicitation=SHORT)
        outcome = run(config, out=tmp_path / "run", agent=agent)
        agent.close()
        assert sum(episode.error is not None for episode in outcome.records) == 3
        assert all("[key]" in (episode.error or "") for episode in outcome.records)
    written = "".join(path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert KEY not in written + "".join(capfd.readouterr()) + caplog.text
    assert all("secret" not in str(value) for value in vars(agent).values() if isinstance(value, str | dict))


@pytest.mark.parametrize(
    ("spec", "error", "told"),
    [
        (f"openai:m@http://127.0.0.1:1?key_env={KEY}", UsageError, "not a key"),
        (f"openai:m@http://me:{KEY}@127.0.0.1:1/v1", UsageError, "holds more than a host and a path"),
        (f"openai:m@http://{KEY}@127.0.0.1:1", UsageError, "environment variable"),
        ("openai:m", AgentError, "needs a key: put one into the environment variable OPENAI_API_KEY"),
        ("openai:m?key_env=OTHER_KEY", AgentError, "OTHER_KEY"),
        ("openai:m@localhost:8000", UsageError, "http:// or https://"),
        ("openai:@http://127.0.0.1:1", UsageError, "needs the name of a model"),
        ("openai:m@http://127.0.0.1:1?concurrency=0", UsageError, "concurrency of 1 or more"),
        ("openai:m@http://127.0.0.1:1?context=20", UsageError, "no room"),
        ("openai:m@http://127.0.0.1:1?way=straight", UsageError, "unknown way 'straight'"),
        ("openai:m@http://127.0.0.1:1?tools=all", UsageError, "unknown tools 'all'"),
    ],
)
def test_specs_that_cannot_be(spec: str, error: type[CotbenchError], told: str) -> None:
    with pytest.raises(error, match=told) as raised:
        make_agent(spec)
    assert KEY not in str(raised.value)


def test_a_key_that_no_header_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(AgentError, match="OPENAI_API_KEY holds characters") as raised:
        make_agent("openai:m@http://127.0.0.1:1")
    assert KEY not in str(raised.value)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_address("org/m@rev@http://h:1") == read_address("org/m@rev@http://h:1/v1/")
    assert read_address("org/m@rev@http://h:1").model == "org/m@rev"
    assert read_address("m@https://h/api/openai").url == "https://h/api/openai"
    assert read_address("m").url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://h:2/")
    assert read_address("m").url == "http://h:2/v1"


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("openai"))):
        make_agent("openai:m@http://127.0.0.1:1")
