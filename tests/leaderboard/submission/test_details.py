"""What a submitter says of an entry, and where two sides part."""

from __future__ import annotations

import pytest

from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.verification.difference import Difference


@pytest.mark.parametrize(
    "name", ["a", "hf:Qwen/Qwen3-4B?dtype=bfloat16", "Größe 7 (groß), 100 % – no".replace("–", "-"), "推理 模型", "x" * 100]
)
def test_names_of_every_script_are_taken_as_they_are(name: str) -> None:
    details = Details.checked(name, "Ünïcode lab", "https://example.org/a?b=c#d")
    assert (details.name, details.team, details.link) == (name, "Ünïcode lab", "https://example.org/a?b=c#d")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the entry's name is empty: give one"),
        ("x" * 101, f"the entry's name '{'x' * 60}'… has 101 characters: at most 100 are accepted"),
        ("<b>", "the entry's name '<b>' holds the character '<'"),
        ('a"b', "holds the character '\"'"),
        ("a\nb", r"the entry's name 'a\nb' holds the character '\n'"),
        ("a\u202eb", r"holds the character '\u202e'"),
        ("a\x00b", r"holds the character '\x00'"),
        ("a\ud800b", "is not a text"),
        ("=1+1", "does not begin with a letter or a digit"),
        ("@SUM(A1)", "does not begin with a letter or a digit"),
        ("-2", "does not begin with a letter or a digit"),
        (" a", "begins or ends with a space"),
        ("a  b", "has two in a row"),
        ("e\u0301", "is not in Unicode's normal form C"),
        ("a`id`", "holds the character '`'"),
    ],
)
def test_other_names_are_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(SubmissionError) as raised:
        Details.checked(name)
    assert message in str(raised.value) and str(raised.value).isprintable()
    with pytest.raises(SubmissionError, match="the entry's team") if name else pytest.raises(SubmissionError, match="name"):
        Details.checked("good" if name else "", name)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("javascript:alert(1)", "begins with https:// or http://"),
        ("data:text/html,x", "begins with https:// or http://"),
        ("//example.org", "begins with https:// or http://"),
        ("https://", "begins with https:// or http://"),
        ("https://example.org/<script>", "it holds a character that none has unescaped"),
        ("https://example.org/a b", "it holds a character that none has unescaped"),
        ("https://bücher.example", "it holds a character that none has unescaped"),
        ("https://[::1", "is not a web address: Invalid IPv6 URL"),
        ("https://example.org:x/", "is not a web address: Port could not be cast"),
        ("https://me:secret@example.org", "names a user before its host"),
        ("https://example.org/" + "a" * 500, "has 520 characters: at most 500 are accepted"),
    ],
)
def test_a_link_is_a_web_address(link: str, message: str) -> None:
    with pytest.raises(SubmissionError) as raised:
        Details.checked("good", "", link)
    assert str(raised.value).startswith("the entry's link 'https" if link.startswith("https") else f"the entry's link {link!r}")
    assert message in str(raised.value)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(SubmissionError, match="the entry's name '5' is not a text"):
        Details.checked(5)  # type: ignore[arg-type]


def test_a_difference_names_its_place_and_shows_both_sides() -> None:
    at = Difference.at("observation", "You see a mug.", "You see a cup.", episode="alfworld/gen/cool/17#cot", step=3)
    assert at.place == "alfworld/gen/cool/17#cot, step 3: observation"
    assert str(at) == f"{at.place} is 'You see a mug.', the replay says 'You see a cup.'"
    assert Difference.at("split_tasks", 3, 4).place == "manifest: split_tasks"
    assert Difference.at("score", 1.0, 0.5, episode="a#cot").place == "a#cot: score"


def test_long_texts_are_cut_to_where_they_part() -> None:
    first, second = "a" * 1000 + "X" + "b" * 1000, "a" * 1000 + "Y" + "b" * 1000
    at = Difference.at("observation", first, second)
    assert len(at.submitted) == len(at.found) == 302
    assert "aX" in at.submitted and "aY" in at.found
    assert at.submitted.replace("X", "Y") == at.found
    longer = Difference.at("observation", "a" * 1000, "a" * 1001)
    assert longer.found.removesuffix("a") == longer.submitted != longer.found
