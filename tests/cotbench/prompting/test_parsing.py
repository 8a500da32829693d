"""Reading what a model wrote: any string at all."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotbench.prompting.parsing import MAX_ACTION, TAGS, Answer, Tags, clean_action, parse_answer

FRAGMENTS = [
    *TAGS,
    "\n",
    " ",
    "```",
    "```json\n",
    '"',
    "'",
    "`",
    "go to desk 1",
    "Action: look",
    "> ",
    "<",
    "action>",
    "</thin",
    "\x00",
]
ANSWERS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=12)), max_size=14).map("".join)
PLAIN = st.text(st.characters(exclude_characters="*<>`\"'“”‘’"), min_size=1).filter(
    lambda text: text.strip() and not text.strip().lower().startswith(("action", "next action", "the action"))
)


def _is_read(text: str) -> None:
    answer = parse_answer(text)
    assert answer == parse_answer(text), "a pure function"
    assert not any(tag in answer.action for tag in TAGS)
    assert answer.action == answer.action.strip()
    assert answer.trace is None or not any(tag in answer.trace for tag in TAGS)
    assert answer.format_ok == (not answer.problems)
    assert ("no action" in answer.problems) == (answer.action == "")


@settings(max_examples=400, deadline=None)
@given(ANSWERS)
def test_any_string_is_read(text: str) -> None:
    _is_read(text)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(ANSWERS)
def test_many_strings_are_read(text: str) -> None:
    _is_read(text)


@settings(max_examples=300, deadline=None)
@given(PLAIN, PLAIN)
def test_a_well_formed_answer_comes_back(trace: str, action: str) -> None:
    answer = parse_answer(f"<think>{trace}</think>\n<action>{action}</action>")
    assert answer == Answer(trace.strip(), action.strip(), True, ())
    assert parse_answer(f"<action>{action}</action>") == Answer(None, action.strip(), True, ())


ANSWERS: list[tuple[str, str | None, str, str | None]] = [
    ("<think>a</think><action>look</action>", "a", "look", None),
    ("<action>look</action>", None, "look", None),
    ("a</think><action>look</action>", "a", "look", "trace not opened"),
    ("<think>a<action>look</action>", "a", "look", "trace not closed"),
    ("<think>a", "a", "", "trace not closed"),
    ("<think><think>a</think></think><action>look</action>", "a", "look", "trace tags repeated"),
    ("<think>a</think><think>b</think><action>look</action>", "a  b", "look", "trace tags repeated"),
    ("<action><think>hm</think>look</action>", "hm", "look", "text before trace"),
    ("<action>look</action><think>b</think>", "b", "look", "action before trace"),
    ("<action>go <action>look</action>", None, "go  look", "tags inside action"),
    ("<think>I say <action>open fridge 1</action></think>", "I say", "open fridge 1", "action inside trace"),
    ("<action>look</action><action>inventory</action>", None, "look", "several actions"),
    ("<action>look", None, "look", "action not closed"),
    ("<action>look\nand then", None, "look", "action not closed"),
    ("<action>look</act", None, "look", "action not closed"),
    ("look</action>", None, "look", "action not opened"),
    ("I will <action>look</action>", None, "look", "text before action"),
    ("<action>look</action> done", None, "look", "text after action"),
    ('<action>"look"</action>', None, "look", None),
    ("<action>`look`</action>", None, "look", None),
    ("<action>```\nlook\n```</action>", None, "look", None),
    ("<action>```text\nlook\n```</action>", None, "look", None),
    ("Thought: hm\nAction: look\n", None, "look", "no action tag"),
    ("look", None, "look", "no action tag"),
    ("```\nlook\n```", None, "look", "no action tag"),
    ("<Think>a</THINK><Action>look</Action>", "a", "look", None),
    ('<action>"look".</action>', None, "look", None),
    ("<action>Action: > look</action>", None, "look", None),
    ("**Action:** look", None, "look", "no action tag"),
    ("<action></action><action>look</action>", None, "look", "several actions"),
    ("", None, "", "no action"),
    ("<action></action>", None, "", "no action"),
]
"""Text, trace, action, and the problem where there is one."""


@pytest.mark.parametrize(("text", "trace", "action", "problem"), ANSWERS)
def test_the_ways_models_err(text: str, trace: str | None, action: str, problem: str | None) -> None:
    answer = parse_answer(text)
    assert answer.action == action
    if problem is None:
        assert answer.problems == ()
    else:
        assert problem in answer.problems
        assert not answer.format_ok
    if "inside" not in (problem or "") and problem != "trace not opened":
        assert answer.trace == trace


@pytest.mark.parametrize(("text", "trace", "action", "problem"), ANSWERS)
def test_other_tags_are_read_alike(text: str, trace: str | None, action: str, problem: str | None) -> None:
    tags = Tags("reasoning", "do")
    renamed = re.sub("think", "reasoning", re.sub("action>", "do>", text, flags=re.I), flags=re.I).replace("</act", "</d")
    found, usual = parse_answer(renamed, tags), parse_answer(text)
    assert (found.trace, found.action, found.problems) == (usual.trace, usual.action, usual.problems)
    if problem is None and "<" in text:
        assert parse_answer(text, tags).problems  # The usual tags are text then.


def test_calls_keep_their_quotes_and_lines() -> None:
    calls = '[ls(a=True), cd(folder="x")]'
    assert parse_answer(f"<action>{calls}</action>").action == calls
    many = '[\n  {"name": "ls"}\n]'
    assert parse_answer(f"<action>{many}</action>").action == many


def test_a_huge_answer_is_cut() -> None:
    answer = parse_answer("<think>" * 300_000 + "<action>" + "x" * 3_000_000)
    assert len(answer.action) <= MAX_ACTION


def test_one_line_fence() -> None:
    assert clean_action("```look```") == "look"
