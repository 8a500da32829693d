"""Stop strings: what a server does with them is found out for certain, and none that was met is taken for the end of a turn."""

import pytest

from cotbench.agents.openai.reply import CompletionReply
from cotbench.agents.openai.stops import choose_test_stop, classify_stops, restore_stop, stops_to_send
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from tests.conftest import needs_openai
from tests.fake_server import FakeServer, Manners, running
from tests.served import CHAT, SHORT, TEMPLATE, asked, served

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, pytest.mark.usefixtures("served_alone")]


def test_the_test_requests_are_greedy() -> None:
    with running(Manners(sampled="Hm!")) as server:
        agent = served(server)
        assert agent.describe()["stops"] == "told", "what is sampled holds none of the usual letters"
        agent.decide([asked("prompt")])
        assert server.bodies(CHAT)[0]["stop"] == [ACTION_CLOSE]


def test_a_server_that_takes_no_temperature_is_still_found_out(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(path: str, body: dict) -> tuple[int, dict]:  # type: ignore[type-arg]
        if body.get("temperature") == 0.0:
            return 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0"}}
        return FakeServer.answer(server, path, body)

    monkeypatch.setattr(server, "answer", answer)
    assert served(server).describe()["stops"] == "told"


def _long_winded(prompt: str) -> str:
    if prompt.endswith(ACTION_OPEN):
        return f"look{ACTION_CLOSE} and on and on and on"
    return f"I look.{THINK_CLOSE}\n{ACTION_OPEN}look{ACTION_CLOSE} and on"


@pytest.mark.parametrize("stops", ["told", "matched", "kept", "silent", "ignored", "refused"])
def test_the_tokens_generated_are_those_that_the_server_generated(stops: str) -> None:
    with running(Manners(stops=stops, model=_long_winded)) as server:
        agent = served(server)
        cot, prompt = agent.decide([asked("cot"), asked("prompt")])
        assert (cot.trace, cot.action, prompt.action) == ("I look.", "look", "look")
        assert (cot.format_ok, prompt.format_ok, cot.trace_truncated) == (True, True, False)
        assert (cot.trace_tokens, cot.action_tokens, prompt.action_tokens) == (5, 2, 2), (
            "the answer's own, whatever was thrown away"
        )
        whole = len(server.codec.encode(_long_winded(ACTION_OPEN))) + 1
        if stops in ("ignored", "refused"):
            assert prompt.generated_tokens == whole and prompt.discarded_tokens == whole - 2
        else:
            assert prompt.generated_tokens == 2 and prompt.discarded_tokens == cot.discarded_tokens == 0


@pytest.mark.parametrize(
    ("manners", "stops", "warning"),
    [
        (Manners(stops="ignored"), "ignored", "ignores stop strings"),
        (Manners(stops="refused"), "refused", "refuses stop strings"),
        (Manners(model=lambda prompt: ""), "unknown", "did not show what it does with stop strings"),
    ],
)
def test_what_a_server_does_not_do_is_said(
    manners: Manners, stops: str, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(manners) as server:
        described = served(server).describe()
        assert described == served(server).describe()
        assert described["stops"] == stops
        assert len(described["warnings"]) == 1 and warning in described["warnings"][0] and warning in caplog.text
    with running(Manners(stops="silent")) as server:
        assert "warnings" not in served(server).describe()


@pytest.mark.parametrize("stops", ["told", "matched", "kept", "silent", "ignored"])
def test_where_the_test_requests_show_nothing_every_server_is_understood(stops: str) -> None:
    with running(Manners(stops=stops, model=lambda prompt: "")) as server:
        agent = served(server)
        assert agent.describe()["stops"] == "unknown"
        server.manners.model = _long_winded
        cot, prompt = agent.decide([asked("cot"), asked("prompt")])
        assert (cot.trace, cot.action, prompt.action, cot.format_ok, prompt.format_ok) == (
            "I look.",
            "look",
            "look",
            True,
            True,
        )
        assert all(len(body["stop"]) == 1 for body in server.bodies(CHAT))
        server.manners.model = lambda prompt: "I look." if prompt.endswith(THINK_OPEN) else "look"
        cot = agent.decide([asked("cot")])[0]
        assert (cot.trace, cot.action, cot.format_ok, cot.trace_truncated) == ("I look.", "look", False, True), "turns that end"


def test_a_free_answer_at_a_server_that_cuts_in_silence() -> None:
    with running(Manners(stops="silent")) as server:
        agent = served(server)
        cot, prompt = agent.decide([asked("cot", TEMPLATE), asked("prompt", TEMPLATE)])
        assert (cot.trace, cot.action, cot.format_ok, prompt.format_ok) == ("I look around.", "look", True, True)
        assert (cot.action_tokens, prompt.trace_tokens, prompt.action_tokens) == (2, 1, 2), "counted from the opening tag"
        assert server.bodies(CHAT)[0]["stop"] == [ACTION_CLOSE[1:]]
        server.manners.model = lambda prompt: f"{ACTION_OPEN}look"
        assert not agent.decide([asked("prompt", TEMPLATE)])[0].format_ok, "the model never closed it"


def test_a_budget_that_ends_inside_a_tag_is_no_closed_tag() -> None:
    with running(Manners(stops="silent")) as server:
        agent = served(server)
        server.manners.model = lambda prompt: "a <" + "b" * 50
        tight = SHORT.model_copy(update={"action_tokens": 3})
        assert not agent.decide([asked("prompt", tight)])[0].format_ok


# What is decided from replies.


def _reply(text: str, finish: str = "stop", tokens: int | None = None, stop: str | None = None) -> CompletionReply:
    return CompletionReply(text, finish=finish, tokens=tokens, stop=stop)


FREE = _reply("The sky is blue.", "length", 16)


@pytest.mark.parametrize(
    ("stopped", "stops"),
    [
        (_reply("T", tokens=1, stop="he"), "told"),
        (_reply("The", tokens=1), "kept"),
        (_reply("T", tokens=1), "cut"),
        (_reply("The sky is blue.", "length", 16), "ignored"),
        (_reply("A sea", "length", 16), "unknown"),
        (_reply("The"), "kept"),
    ],
)
def test_what_a_server_does_with_a_stop_string(stopped: CompletionReply, stops: str) -> None:
    assert choose_test_stop(FREE) == "he"
    free = FREE if stopped.tokens is not None else _reply(FREE.text, "length")
    assert classify_stops("he", free, stopped) == stops


def test_an_answer_too_short_to_test_with() -> None:
    assert choose_test_stop(_reply(" a\n")) is None
    assert choose_test_stop(CompletionReply("", reasoning="Hm, so")) == "m,", "a reasoning parser took all of it"


@pytest.mark.parametrize("handling", ["told", "kept", "cut", "ignored", "refused", "unknown"])
def test_stop_strings_that_are_sent(handling: str) -> None:
    sent = stops_to_send((THINK_CLOSE, ACTION_OPEN), handling)  # type: ignore[arg-type]
    if handling in ("told", "kept"):
        assert sent == [THINK_CLOSE, ACTION_OPEN]
    else:
        assert sent == (["/think>"] if handling in ("cut", "unknown") else []), "both would leave the same character"
    restored = restore_stop(_reply("so<"), (THINK_CLOSE, ACTION_OPEN), handling)  # type: ignore[arg-type]
    assert restored.text == ("so</think>" if handling in ("cut", "unknown") else "so<")
    for untouched in (_reply("so"), _reply("so<", "length"), _reply("")):
        assert restore_stop(untouched, (THINK_CLOSE,), handling) == untouched  # type: ignore[arg-type]
