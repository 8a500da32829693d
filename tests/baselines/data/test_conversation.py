"""Conversations of others: what carries content is taken or refused with its line, its message and its field."""

import json
from pathlib import Path
from typing import Any

import pytest

from cotbench.baselines.data.conversation import METADATA
from cotbench.baselines.data.demonstration import read_demonstrations, write_jsonl
from cotbench.cli import run_cli
from cotbench.errors import UsageError

TRACE, ACTION = "The mug is on the desk.", "go to desk 1"
ANSWER = f"<action>{ACTION}</action>"
USER = {"role": "user", "content": "You see a desk."}
Line = dict[str, Any]


def line(answer: Any, **more: Any) -> Line:
    fields = answer if isinstance(answer, dict) else {"content": answer}
    return {"messages": [USER, {"role": "assistant", **fields}], **more}


def read(path: Path, *lines: Any) -> Any:
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in lines))
    return read_demonstrations(path)


@pytest.mark.parametrize(
    "answer",
    [
        f"<think>{TRACE}</think>\n{ANSWER}",
        f"{TRACE}</think>\n{ANSWER}",  # The template has opened the trace.
        {"content": ANSWER, "reasoning_content": TRACE},
        {"content": ANSWER, "reasoning": f"\n{TRACE}\n"},
        {"content": ANSWER, "thinking": TRACE, "reasoning": None, "reasoning_content": ""},
        {"content": ANSWER, "reasoning": TRACE, "reasoning_content": TRACE},
        {"content": f"<think>{TRACE}</think>{ANSWER}", "reasoning_content": TRACE},
        {"content": [{"type": "thinking", "thinking": TRACE, "signature": "c2ln"}, {"type": "text", "text": ANSWER}]},
        {"content": [{"type": "reasoning", "text": TRACE}, {"type": "text", "text": ANSWER, "reasoning": None}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": TRACE}]}, {"type": "text", "text": ANSWER}]},
        {"content": [{"type": "text", "text": f"<think>{TRACE}</think>"}, {"type": "text", "text": ANSWER}]},
        {"content": [{"type": "text", "text": ANSWER}], "thinking": TRACE},
        {
            "content": ANSWER,
            "thinking": TRACE,
            "weight": 1,
            "train": True,
            "name": "me",
            "id": 7,
            "tool_calls": [],
            "from": None,
        },
    ],
)
def test_reasoning_is_taken_from_wherever_it_stands(answer: Any, tmp_path: Path) -> None:
    (found,) = read(tmp_path / "f.jsonl", line(answer))
    assert (found.observations, found.actions, found.traces) == (("You see a desk.",), (ACTION,), (TRACE,))
    write_jsonl(tmp_path / "again.jsonl", [found])
    assert read_demonstrations(tmp_path / "again.jsonl") == [found]


def test_an_answer_without_reasoning_has_no_trace(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "f.jsonl", line({"content": ANSWER, "weight": 0, "reasoning_content": " "}))
    assert found.traces == (None,)


def test_sharegpt_is_read_as_messages_are(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "You see a desk.", "loss": None},
        {"from": "gpt", "value": f"<think>{TRACE}</think>\n{ANSWER}", "loss": True},
        {"from": "human", "value": "On the desk you see a mug."},
    ]
    (found,) = read(tmp_path / "f.jsonl", {"id": "x", "conversations": turns, "system": "Be kind.", "env": "alfworld-gen"})
    (same,) = read(
        tmp_path / "g.jsonl", {"conversations": [{"from": "system", "value": "Be kind."}, *turns], "system": "Be kind."}
    )
    assert (found.traces, found.actions, found.env) == ((TRACE,), (ACTION,), "alfworld-gen")
    assert found.instructions is not None and found.instructions.text == "Be kind."
    assert same.instructions == found.instructions
    roles = [{"role": {"human": "user", "gpt": "assistant"}[one["from"]], "content": one["value"]} for one in turns]
    (also,) = read(tmp_path / "h.jsonl", {"conversations": roles, "system": "Be kind."})
    assert (also.traces, also.actions, also.instructions) == (found.traces, found.actions, found.instructions)


def test_what_says_where_a_line_comes_from_is_ignored(tmp_path: Path) -> None:
    about = {key: {"any": "thing"} for key in METADATA}
    row = line({"content": f"<think>{TRACE}</think>{ANSWER}", **about}, **about, functions="", chosen=[], prompt=None)
    (found,) = read(tmp_path / "f.jsonl", row)
    assert found.traces == (TRACE,)


CALLS = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
PLAIN = line(ANSWER)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line({"content": ANSWER, "tool_calls": CALLS}), "message 2 has `tool_calls`, which is unknown; move it into the text"),
        (line({"content": ANSWER, "function_call": CALLS[0]}), "message 2 has `function_call`, which is unknown"),
        (
            line({"content": ANSWER, "reasoning_details": [{"text": "x"}]}),
            "message 2 has `reasoning_details`, which is unknown",
        ),
        (line({"content": ANSWER, "thought": 0}), "message 2 has `thought`, which is unknown"),
        (line({"content": ANSWER, "from": "gpt"}), "message 2 has `from`, which is unknown"),
        (line(ANSWER, tools=CALLS), "it has `tools`, which is unknown"),
        (line(ANSWER, functions='{"name": "f"}'), "it has `functions`, which is unknown"),
        (line(ANSWER, thinking="x"), "it has `thinking`, which is unknown"),
        (line(ANSWER, weight=0.5), "it has `weight`, which is unknown"),
        (line(ANSWER, conversations=[{"from": "human", "value": "x"}]), "it has `conversations`, which is unknown"),
        (line(ANSWER, observations=["x"]), "it has `observations`, which is unknown"),
        (line({"content": ANSWER, "thinking": TRACE, "weight": 0}), "answer 1 has weight 0, but every answer with a trace"),
        (line({"content": f"<think>t</think>{ANSWER}", "train": False}), "answer 1 has train False, but every answer"),
        (
            line({"content": ANSWER, "weight": 0.5}),
            "message 2 has weight 0.5, but answers with a trace are trained on, each alike",
        ),
        ({"messages": [{**USER, "train": True}]}, "message 1 has train True, but answers with a trace are trained on"),
        ({"messages": [{**USER, "thinking": "x"}]}, "message 1 has reasoning, but is not an answer"),
        (
            line({"content": ANSWER, "thinking": "x", "reasoning": "y"}),
            "message 2 has two different traces besides its text",
        ),
        (line({"content": f"<think>x</think>{ANSWER}", "reasoning": "y"}), "answer 1 has one trace in its text and another"),
        (line({"content": ANSWER, "thinking": True}), "`thinking` of message 2 is not a text"),
        (line({"content": ANSWER, "thinking": "so <action>look</action>"}), "the reasoning of answer 1 holds a tag"),
        (line({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}), "message 2 has a part of type 'image_url'"),
        (line({"content": ["text"]}), "message 2 has a part of type None"),
        (line({"content": [{"type": "text", "text": ANSWER, "citations": [1]}]}), "a part of message 2 has `citations`"),
        (line({"content": [{"type": "text", "text": 3}]}), "a part of message 2 is not one text"),
        (line({"content": [{"type": "thinking", "thinking": "x", "text": "y"}]}), "a part of message 2 is not one text"),
        (
            line({"content": [{"type": "text", "text": ANSWER}, {"type": "thinking", "thinking": "x"}]}),
            "message 2 has reasoning after its text; put it before",
        ),
        (line({"content": None}), "message 2 is not a text of system, user or assistant"),
        (line(f"I go there. {ANSWER}"), "answer 1 is not one trace and one action (text before action)"),
        (line(f"<think>x</think>So: {ANSWER}"), "answer 1 is not one trace and one action (text before action)"),
        (line(f"{ANSWER}\nThat was all."), "answer 1 is not one trace and one action (text after action)"),
        (line(f"{ANSWER}{ANSWER}"), "answer 1 is not one trace and one action (several actions)"),
        (line(f"<think>a</think><think>b</think>{ANSWER}"), "is not one trace and one action (trace tags repeated)"),
        (line(f"{ANSWER}<think>x</think>"), "answer 1 is not one trace and one action ("),
        (line(ANSWER, system=["x"]), "its `system` is not a text"),
        (
            {"messages": [{"role": "system", "content": "a"}, *PLAIN["messages"]], "system": "b"},
            "it has a `system` and another system message",
        ),
        ({"conversations": "You see a desk."}, "it has conversations and no `messages`"),
        ('{"messages": [{"role": "user", "content": "x", "content": "y"}]}\n', "the key 'content' occurs twice"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}\n', "(messages.0.content holds a lone surrogate"),
        ('{"observations": ["o"], "actions": ["\\udfff"], "traces": ["t"]}\n', "(actions.0 holds a lone surrogate"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(bad: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    with pytest.raises(UsageError) as error:
        read(path, PLAIN, bad)
    assert str(error.value).startswith(f"{path}:2 ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_messages_that_differ_from_the_columns_are_not_ignored(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "f.jsonl", line(f"<think>{TRACE}</think>{ANSWER}"))
    write_jsonl(tmp_path / "g.jsonl", [found])
    row = json.loads((tmp_path / "g.jsonl").read_text())
    row["messages"][-1]["reasoning_content"] = None
    assert read(tmp_path / "h.jsonl", row) == [found]
    for change in ({"content": "<action>look</action>"}, {"reasoning_content": "Hm."}):
        edited = {**row, "messages": [*row["messages"][:-1], {**row["messages"][-1], **change}]}
        with pytest.raises(UsageError, match=r"h\.jsonl:1 holds other answers in `messages` than in its columns"):
            read(tmp_path / "h.jsonl", edited)


def test_the_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text('{"messages": [{"role": "user", "content": "\\ud800"}]}\n')
    assert run_cli(["traces", "--from", "f.jsonl", "--out", "x.jsonl"]) == 2
    message = "f.jsonl:1 cannot be used (messages.0.content holds a lone surrogate, which is not a character): fix or remove it"
    assert capsys.readouterr() == ("", f"error: {message}\n")
    assert not Path("x.jsonl").exists()
