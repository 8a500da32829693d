"""JSON from outside: it can be written again, and says nothing twice."""

import json
from typing import Any

import pytest

from cotbench.json_text import lone_surrogate, parse_json, replace_surrogates


@pytest.mark.parametrize(
    "value", [None, 1, "", "é\u2028", {"a": [1, {"b": "😀"}], "": {}}, [[], "x"], "\\ud800", {"\\ud83d": "\\ude00"}]
)
def test_what_json_writes_is_read(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == value
        assert parse_json(b"\xef\xbb\xbf" + text.encode()) == value, "a byte order mark is no content"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r'{"messages": [{"role": "user", "content": "a\ud800b"}]}', r"^messages\.0\.content holds a lone surrogate"),
        (r'["x", "\udc00"]', r"^1 holds a lone surrogate"),
        (r'"\ude00\ud83d"', r"^it holds a lone surrogate"),
        (r'{"a": {"\ud800": 1}}', r"^a name in a holds a lone surrogate"),
        (r'{"\ud800": 1}', r"^a name in it holds a lone surrogate"),
        ('{"content": "one", "content": "two"}', r"the key 'content' occurs twice in one object"),
        ('{"a": [{"b": 1, "b": 1}]}', r"the key 'b' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
        (b'"\xff"', "can't decode byte 0xff"),
        (b'"\xed\xa0\x80"', "can't decode byte 0xed"),
    ],
)
def test_what_cannot_be_written_again_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)
    if isinstance(text, str) and text.isascii():
        with pytest.raises(ValueError, match=message):
            parse_json(text.encode())


def test_an_escaped_pair_is_one_character() -> None:
    assert parse_json(r'"\ud83d\ude00"') == "😀"


def test_lone_surrogates_are_replaced_and_nothing_else() -> None:
    data = {"a": ["x\ud800", ("\udfff", 1)], "\udc80": {"b": None}, "c": "😀"}
    found = replace_surrogates(data)
    assert found == {"a": ["x?", ("?", 1)], "?": {"b": None}, "c": "😀"}
    assert lone_surrogate(data) is not None and lone_surrogate(found) is None
    assert replace_surrogates(found) == found
