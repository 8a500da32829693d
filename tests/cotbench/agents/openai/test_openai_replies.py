"""What a server answers: what the model wrote is read, whatever its form; a server's failure is an error."""

import json
from typing import Any

import pytest

from cotbench.agents.openai.reply import ReplyError, ToolCall, read_reply
from cotbench.errors import AgentError
from cotbench.prompting.query import Decision
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_openai
from tests.fake_server import FakeServer
from tests.served import CHAT, KEY, SHORT, TEMPLATE, asked, served

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, pytest.mark.usefixtures("served_alone")]

THINKS = {"type": "thinking", "thinking": [{"type": "text", "text": "I look "}, {"type": "text", "text": "around."}]}
ACTS = {"type": "text", "text": "<action>look</action>"}
_WHOLE = "<action>look</action>"


def _message(content: Any, **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **more}, "finish_reason": "stop"}


def _body(choice: dict[str, Any], **more: Any) -> dict[str, Any]:
    tokens = 1000 if choice.get("finish_reason") == "length" else 3  # An answer that ended for its length has used its budget.
    return {"choices": [choice], "usage": {"prompt_tokens": 500, "completion_tokens": tokens}, **more}


def _answers(server: FakeServer, monkeypatch: pytest.MonkeyPatch, *bodies: dict[str, Any]) -> None:
    """Let the server answer with these bodies in turn, and with the last one from then on."""
    rest = list(bodies)
    monkeypatch.setattr(server, "answer", lambda path, body: (200, rest.pop(0) if len(rest) > 1 else rest[0]))


def _decided(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], mode: str = "prompt", options: str = "retries=0"
) -> Decision:
    """The decision of a query, with style template, that is answered with a body."""
    agent = served(server, options)
    _answers(server, monkeypatch, body)
    decision: Decision = agent.decide([asked(mode, TEMPLATE)])[0]  # type: ignore[arg-type]
    return decision


# What the model wrote.


@pytest.mark.parametrize(
    ("choice", "mode", "trace"),
    [
        (_message([THINKS, ACTS]), "cot", "I look around."),
        (_message([{"type": "thinking", "thinking": "I look around.", "signature": "x"}, ACTS]), "cot", "I look around."),
        (_message([{"type": "reasoning", "text": "I look around."}, ACTS]), "cot", "I look around."),
        (_message([{"type": "text", "text": "<action>"}, {"type": "output_text", "text": "look</action>"}]), "prompt", None),
        (_message(["<action>look", "</action>"]), "prompt", None),
        (_message([{"type": "step-start"}, ACTS]), "prompt", None),
        (_message(_WHOLE, thinking="I look around."), "cot", "I look around."),
        ({"text": None, **_message(_WHOLE)}, "prompt", None),
        ({"text": "", **_message(_WHOLE)}, "prompt", None),
        ({"text": _WHOLE, "message": None, "finish_reason": "stop"}, "prompt", None),
        (_message(None, refusal=_WHOLE), "prompt", None),
    ],
)
def test_a_content_is_read_in_every_form(
    choice: dict[str, Any], mode: str, trace: str | None, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _decided(server, monkeypatch, _body(choice), mode)
    assert (said.action, said.trace, said.format_ok, said.error) == ("look", trace, True, None)


@pytest.mark.parametrize(
    "choice",
    [
        _message(""),
        _message(None),
        _message([]),
        _message([{"type": "text", "text": ""}]),
        {"message": {"role": "assistant"}, "finish_reason": "stop"},
        {"text": "", "finish_reason": "length"},
        _message(None, reasoning=None, tool_calls=[], annotations=[], provider_specific_fields={"refusal": None}),
    ],
)
def test_an_empty_answer_of_a_normal_end_is_the_models(
    choice: dict[str, Any], server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _decided(server, monkeypatch, _body(choice))
    assert (said.action, said.format_ok, said.error) == ("", False, None)


def test_a_refusal_is_the_models_answer(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _decided(server, monkeypatch, _body(_message(None, refusal="I cannot help.")))
    assert (said.action, said.raw, said.format_ok, said.error) == ("I cannot help.", "I cannot help.", False, None)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *((reason, "stop") for reason in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "repetition")),
        *((reason, "length") for reason in ("length", "max_tokens", "MAX_TOKENS")),
    ],
)
def test_normal_ends_have_many_names(reason: str, finish: str) -> None:
    assert read_reply(_body({"text": "look", "finish_reason": reason})).finish == finish


@pytest.mark.parametrize("reason", ["tool_calls", "tool_use", "function_call", "stop"])
def test_calls_are_read_in_every_form(reason: str) -> None:
    call = {"name": "add", "arguments": "{}"}
    for fields in ({"tool_calls": [{"id": "1", "function": call}]}, {"function_call": call}, {"tool_calls": [call]}):
        reply = read_reply(_body({"message": {"content": None, **fields}, "finish_reason": reason}))
        assert reply.calls == (ToolCall("add", "{}"),), fields
        assert reply.text == ""


# What the server failed to do.

FAILURES = {
    "finish error": (_body({**_message(""), "finish_reason": "error"}), "finish_reason 'error'"),
    "finish abort": (_body({**_message(None), "finish_reason": "abort"}), "finish_reason 'abort'"),
    "finish content_filter": (_body({**_message(""), "finish_reason": "content_filter"}), "finish_reason 'content_filter'"),
    "half an answer": (_body({**_message("<action>lo"), "finish_reason": "time_limit"}), "finish_reason 'time_limit'"),
    "no context left": (_body({**_message(_WHOLE), "finish_reason": "model_length"}), "finish_reason 'model_length'"),
    "no finish": (_body({**_message(_WHOLE), "finish_reason": None}), "without a finish_reason"),
    "finish of another kind": (_body({**_message(_WHOLE), "finish_reason": {"type": "stop"}}), "{'type': 'stop'}"),
    "error in the choice": (_body({**_message(""), "error": {"code": 400, "message": "It is broken."}}), "It is broken."),
    "error beside choices": (_body(_message(_WHOLE), error={"message": "It is broken."}), "It is broken."),
    "error instead of choices": ({"error": {"code": "502", "message": "It is broken."}}, "It is broken."),
    "error as text": ({"error": "It is broken."}, "It is broken."),
    "error in vLLM's form": ({"object": "error", "message": "It is broken.", "code": 400}, "It is broken."),
    "nothing": ({"choices": [{"finish_reason": "stop"}]}, "not understand"),
    "neither text nor message": (_body({"text": None, "message": None, "finish_reason": "stop"}), "not understand"),
    "an empty message": (_body({"message": {}, "finish_reason": "stop"}), "not understand"),
    "sound": (_body(_message(None, audio={"data": "UklGRg=="})), "UklGRg=="),
    "an unknown part": (_body(_message([ACTS, {"type": "reference", "reference_ids": [1]}])), "reference_ids"),
    "a text part of another form": (_body(_message([{"type": "text", "text": {"value": "look"}}])), "not understand"),
    "a text part under another name": (_body(_message([{"type": "text", "value": "look"}])), "not understand"),
    "a content that is no text": (_body(_message({"answer": "look"})), "not understand"),
    "a content that is a number": (_body(_message(5)), "not understand"),
    "reasoning that is no text": (_body(_message(_WHOLE, reasoning={"steps": 1})), "not understand"),
    "a lost call": (_body({**_message(None, tool_calls=[]), "finish_reason": "tool_calls"}), "no call"),
    "calls that are no list": (_body(_message(None, tool_calls={"0": {}})), "tool calls that cotbench does not understand"),
    "a call without a function": (_body(_message(None, tool_calls=[{"custom": {"name": "add"}}])), "not understand"),
    "a call under other names": (_body(_message(None, tool_calls=[{"name": "add", "input": {"a": 1}}])), "not understand"),
    "a call that was not asked for": (_body(_message("", tool_calls=[{"function": {"name": "add"}}])), "parser of tool calls"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_servers_failure_is_an_error_in_its_own_words(name: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    body, words = FAILURES[name]
    said = _decided(server, monkeypatch, body)
    assert said.error is not None and words in said.error and "\n" not in said.error
    assert said.action == ""


def test_an_error_is_short_and_holds_no_key(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = _decided(server, monkeypatch, {"error": {"message": f"{KEY} is not\nwelcome {'here ' * 1000}"}})
    assert said.error is not None and "[key] is not welcome here" in said.error
    assert KEY not in said.error and len(said.error) < 500


@pytest.mark.parametrize(
    ("body", "attempts"),
    [
        (_body({**_message(""), "finish_reason": "abort"}), 3),
        (_body({**_message(""), "finish_reason": "error"}), 3),
        (_body({**_message(""), "finish_reason": None}), 3),
        ({"error": {"message": "broken"}}, 3),
        ({"error": {"message": "busy", "code": 429}}, 3),
        (_body({**_message(""), "error": {"message": "broken", "code": 502}}), 3),
        ({"error": {"message": "no such field", "code": 400}}, 1),
        (_body({**_message(""), "finish_reason": "content_filter"}), 1),
        (_body(_message([{"type": "image", "url": "x"}])), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    body: dict[str, Any], attempts: int, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _decided(server, monkeypatch, body, options="retries=2").error is not None
    assert len(server.bodies(CHAT)) == attempts


def test_an_abort_that_passes_costs_an_attempt_alone(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = served(server)
    _answers(server, monkeypatch, _body({**_message(""), "finish_reason": "abort"}), _body(_message(_WHOLE)))
    said = agent.decide([asked("prompt", TEMPLATE)])[0]
    assert (said.action, said.error) == ("look", None)


def test_a_server_that_tells_no_finish_is_refused_at_the_start(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(server, monkeypatch, _body({**_message("Yes."), "finish_reason": None}))
    with pytest.raises(AgentError, match="without a finish_reason") as raised:
        served(server, "retries=0")
    assert "\n" not in str(raised.value)


def test_errors_of_a_run_are_no_scores(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    config = RunConfig(agent=f"openai:fake@{server.url}?retries=0", episodes=2, mode="cot", max_steps=2, elicitation=SHORT)
    agent = served(server, "retries=0")
    agent.require(SHORT)
    _answers(server, monkeypatch, _body({**_message(""), "finish_reason": "error"}))
    outcome = run(config, out=tmp_path / "run", agent=agent)
    assert [episode.error is not None and "finish_reason 'error'" in episode.error for episode in outcome.records] == [True] * 2


def test_no_body_raises_anything_but_a_reply_error() -> None:
    whole = _body({**_message("look", tool_calls=[{"function": {"name": "add", "arguments": "{}"}}]), "stop_reason": "x"})
    whole["choices"][0]["logprobs"] = {"content": [{"token": "a", "bytes": [97], "logprob": -0.5}]}
    whole["choices"][0]["token_ids"] = [1]
    for junk in (None, True, 0, 5, "x", [], ["x"], [None], {}, {"x": 1}, {"type": []}, [{"type": []}]):
        for changed in _with_junk(whole, junk):
            try:
                read_reply(changed)
            except ReplyError as error:
                json.dumps(str(error))


def _with_junk(value: Any, junk: Any) -> list[Any]:
    """Copies of a value in which each inner value in turn is replaced."""
    if isinstance(value, dict):
        inner = [{**value, name: changed} for name, each in value.items() for changed in _with_junk(each, junk)]
    elif isinstance(value, list):
        inner = [
            [*value[:place], changed, *value[place + 1 :]]
            for place, each in enumerate(value)
            for changed in _with_junk(each, junk)
        ]
    else:
        inner = []
    return [junk, *inner]
